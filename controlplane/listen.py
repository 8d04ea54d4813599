"""Binding the control plane's address, so that one socket never serves two.

Rules: a unix socket is for its owner only (0600); a file that nobody answers on is a leftover and
is replaced; one that somebody answers on, or that is no socket, is left alone.
"""

from __future__ import annotations

import os
import pathlib
import socket
import stat

from trimtab.runtime.service import ConfigError

PATH_LIMIT_BYTES = 107  # sun_path of Linux, less its end
CONNECT_TIMEOUT_S = 1.0


def socket_path(address: str) -> pathlib.Path | None:
    """The file of a unix address; None for others."""
    if not address.startswith("unix:"):
        return None
    return pathlib.Path(address.removeprefix("unix:").removeprefix("//"))


def prepare(address: str) -> None:
    """Make way for our socket; raises ConfigError when it is not ours to make."""
    path = socket_path(address)
    if path is None:
        return
    if len(os.fsencode(path)) > PATH_LIMIT_BYTES:
        raise ConfigError(f"{path} is too long for a socket: at most {PATH_LIMIT_BYTES} bytes")
    if not path.parent.is_dir():
        raise ConfigError(f"cannot listen on {address}: {path.parent} is not a directory")
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise ConfigError(f"cannot listen on {address}: {path} is a file, not a socket")
    if _answers(path):
        raise ConfigError(f"another control plane is running on {address}")
    path.unlink()


def protect(address: str) -> None:
    """Keep others off the socket that was just bound."""
    path = socket_path(address)
    if path is not None:
        path.chmod(0o600)


def _answers(path: pathlib.Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(CONNECT_TIMEOUT_S)
        try:
            probe.connect(os.fspath(path))
        except ConnectionRefusedError:
            return False
        except OSError:
            return True  # somebody holds it, even if too busy to answer
    return True
