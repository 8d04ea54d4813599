"""`trimtab init`: a configuration for this machine, with every setting explained. Asks nothing.

Rules: what it says of this machine it has seen; a file that is there is left alone; a key is shown
once and kept as its hash.
"""

from __future__ import annotations

import asyncio
import os
import pathlib
import secrets
import socket
import sys
from dataclasses import dataclass
from typing import Annotated

import pynvml
import typer
from msgspec.structs import replace

from standalone import config_text, discover
from standalone.config import default_state_dir, sha256
from trimtab.runtime import config as file
from trimtab.runtime import service

SYSTEM_STATE = "/var/lib/trimtab"
SYSTEM_SOCKET = "unix:/run/trimtab/control.sock"
SYSTEM_PAGE = "127.0.0.1:4002"
SYSTEM_DRAIN_S = 840.0
FILE = pathlib.Path("trimtab.yaml")
_USABLE = {discover.Kind.VLLM, discover.Kind.LOCKED}


@dataclass(frozen=True, slots=True)
class Machine:
    """What was seen of it."""

    node: str
    engines: tuple[discover.Found, ...] = ()
    gpus: tuple[str, ...] = ()


def init(
    path: Annotated[pathlib.Path, typer.Argument(metavar="FILE", help="What to write.")] = FILE,
    force: Annotated[bool, typer.Option(help="Replace a file that is there.")] = False,
) -> None:
    """Write a configuration for this machine, with every setting explained.

    It looks for vLLM on 127.0.0.1:8000-8007 and for GPUs, and makes a key. As root it is for the
    services of systemd, for anybody else for `trimtab up`; either can read it.
    """
    key = f"sk-tt-{secrets.token_urlsafe(32)}"
    machine = asyncio.run(seen())
    made = configuration(machine, None if os.geteuid() == 0 else default_state_dir(os.environ), key)
    try:
        config_text.save(path, config_text.text(made, heading(machine)), force)
    except service.ConfigError as error:
        print(error, file=sys.stderr)
        raise typer.Exit(service.EXIT_CONFIG) from None
    for line in notes(machine, made):
        print(line)
    print(f"key      {key}   (shown once: {path} has its hash)")
    print(f"next     trimtab up -f {path}   or the services: docs/install.md")


def configuration(machine: Machine, state_dir: pathlib.Path | None, key: str) -> file.Config:
    """With its engines and one key."""
    urls = [found.url for found in machine.engines]
    if not urls:  # as deploy/systemd/vllm@.service starts them, one a GPU
        urls = [f"http://127.0.0.1:{8000 + gpu}" for gpu in range(len(machine.gpus))]
    return replace(
        placed(machine.node, state_dir),
        engines=tuple(file.Engine(url=url) for url in urls),
        keys=(file.Key(name="users", sha256=sha256(key)),),
    )


def placed(node: str, state_dir: pathlib.Path | None) -> file.Config:
    """Where things are: as the services of systemd have it, unless a person's own is given."""
    if state_dir:
        target = f"unix:{state_dir}/control.sock"
        return file.Config(node=node, state_dir=str(state_dir), controlplane=target)
    return file.Config(
        node=node,
        state_dir=SYSTEM_STATE,
        controlplane=SYSTEM_SOCKET,
        controlplane_metrics=SYSTEM_PAGE,
        edge=file.EdgeLimits(drain_s=SYSTEM_DRAIN_S),
    )


def heading(machine: Machine) -> str:
    """The first lines of the file."""
    return (
        f"Trimtab's configuration, written by `trimtab init` on {machine.node}. Every setting is "
        "here: take away the # of one to set it; what is shown holds anyway, or is an example. "
        "What is not marked as needing a restart takes effect by `trimtab-ctl config apply`. "
        "`trimtab-ctl config validate` finds mistakes."
    )


def notes(machine: Machine, made: file.Config) -> list[str]:
    """What was seen, line by line."""
    lines = [f"GPU {number}    {name}" for number, name in enumerate(machine.gpus)]
    for found in machine.engines:
        models = ", ".join(found.models) or "it wants a key: name it in upstream_key"
        lines.append(f"engine   {found.url}: vLLM {found.version}, {models}")
    if not machine.engines:
        ports = f"127.0.0.1:{discover.PORTS[0]}-{discover.PORTS[-1]}"
        then = "one a GPU is expected there" if made.engines else "name yours below engines"
        lines.append(f"engine   no vLLM on {ports}: {then}")
    return lines


async def seen() -> Machine:
    """Look at this machine: a second at most, and what its driver takes."""
    found = await discover.look([f"http://127.0.0.1:{port}" for port in discover.PORTS])
    usable = tuple(one for one in found if one.kind in _USABLE)
    return Machine(socket.gethostname(), usable, await asyncio.to_thread(gpus))


def gpus() -> tuple[str, ...]:
    """The names of this machine's GPUs; none without a driver."""
    try:
        pynvml.nvmlInit()
        handles = map(pynvml.nvmlDeviceGetHandleByIndex, range(pynvml.nvmlDeviceGetCount()))
        return tuple(str(pynvml.nvmlDeviceGetName(handle)) for handle in handles)
    except pynvml.NVMLError:
        return ()
