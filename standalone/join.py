"""`trimtab join`: the line that `ctl node token create` prints, run on the new node."""

from __future__ import annotations

import asyncio
import os
import pathlib
import socket
import sys
from typing import Annotated

import typer

from trimtab.runtime import service
from trimtab.runtime.config import Secret, resolve

_NEXT = {
    "agent": "trimtab-agent --tls-dir {dir} --controlplane HOST:PORT --engine URL",
    "edge": "trimtab-edge --tls-dir {dir} --controlplane HOST:PORT --listen HOST:PORT",
    "admin": "trimtab-ctl --tls-dir {dir} --server HOST:PORT status",
    "scaler": "put the three files of {dir} into KEDA's secret: docs/autoscaling.md",
}


def join(
    address: Annotated[str, typer.Argument(help="HOST:PORT of the control plane's tls.enroll.")],
    token: Annotated[
        str, typer.Argument(help="The one-time token, tt-join-..., or @FILE that holds it.")
    ],
    name: Annotated[
        str, typer.Option(help="This node's name in the fleet; by default the token's or host's.")
    ] = "",
    tls_dir: Annotated[
        pathlib.Path | None,
        typer.Option(
            help="Where to keep the certificate; default ~/.local/state/trimtab/tls/ROLE."
        ),
    ] = None,
) -> None:
    """Get a certificate for this machine with a token of `trimtab-ctl node token create`."""
    from trimtab.runtime import join as enrolment  # noqa: PLC0415 - `up` needs no cryptography
    from trimtab.runtime import tls  # noqa: PLC0415

    if tls_dir and (tls_dir / tls.CERTIFICATE).exists():
        print(f"{tls_dir} holds a certificate already: give another --tls-dir", file=sys.stderr)
        raise typer.Exit(service.EXIT_CONFIG)
    try:
        if token.startswith("@"):
            token = resolve(Secret(file=token[1:]))
        joined = asyncio.run(enrolment.join(address, token, name, socket.gethostname()))
        peer = joined.peer
        directory = (tls_dir or _default() / peer.role).absolute()
        joined.save(directory)
    except service.ConfigError as error:
        print(error, file=sys.stderr)
        raise typer.Exit(service.EXIT_CONFIG) from None
    print(f"joined as {peer}; certificate and key are in {directory}")
    print(f"next: {_NEXT[peer.role].format(dir=directory)}")


def _default() -> pathlib.Path:
    base = os.environ.get("XDG_STATE_HOME") or pathlib.Path.home() / ".local" / "state"
    return pathlib.Path(base) / "trimtab" / "tls"
