"""Readiness and status to whoever started us: systemd's notify protocol (sd_notify(3)).

`trimtab up` listens with the same protocol, so one mechanism serves both. Without a NOTIFY_SOCKET
nothing is sent. A manager that does not read can't hold us up.
"""

from __future__ import annotations

import os
import socket

SEND_TIMEOUT_S = 0.1  # a datagram to a full socket would wait for its reader


def notify(*, ready: bool = False, stopping: bool = False, status: str = "") -> None:
    """Send what is set; a manager that went away is no error."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    status = " ".join(status.splitlines())  # a line is an assignment
    lines = ["READY=1"] * ready + ["STOPPING=1"] * stopping + [f"STATUS={status}"] * bool(status)
    if not address or not lines:
        return
    target = "\0" + address[1:] if address.startswith("@") else address
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.settimeout(SEND_TIMEOUT_S)
        try:
            sock.sendto("\n".join(lines).encode(), target)
        except OSError:
            return
