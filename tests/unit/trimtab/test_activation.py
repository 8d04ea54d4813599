"""Sockets handed over by the manager: taken by the process they are meant for, and no other."""

from __future__ import annotations

import os
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[3]
TELL = """
import os, sys
from trimtab.runtime.activation import inherited
os.environ["LISTEN_PID"] = sys.argv[1].replace("own", str(os.getpid()))
taken = inherited()
print(taken and taken.getsockname()[1])
"""


def tell(pid: str, *, listens: bool, datagram: bool = False) -> str:
    """What a child finds that was given one socket as systemd gives it."""
    code = f"""
import os, socket
kind = socket.SOCK_DGRAM if {datagram} else socket.SOCK_STREAM
s = socket.socket(socket.AF_INET, kind)
s.bind(("127.0.0.1", 0))
if {listens}: s.listen()
print(s.getsockname()[1], flush=True)
os.dup2(s.fileno(), 3)
os.set_inheritable(3, True)
os.environ["LISTEN_FDS"] = "1"
os.execv({sys.executable!r}, [{sys.executable!r}, "-c", {TELL!r}, {pid!r}])
"""
    command = [sys.executable, "-c", code]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, capture_output=True, text=True, env=env, check=True, timeout=30)
    port, found = done.stdout.split()
    return "the socket" if found == port else found


@pytest.mark.parametrize(
    ("pid", "listens", "datagram", "found"),
    [
        ("own", True, False, "the socket"),
        ("1", True, False, "None"),
        ("own", False, False, "None"),
        ("own", False, True, "None"),
    ],
)
def test_only_a_listening_socket_for_us_is_taken(
    pid: str, listens: bool, datagram: bool, found: str
) -> None:
    assert tell(pid, listens=listens, datagram=datagram) == found
