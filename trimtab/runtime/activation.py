"""Listening sockets that the manager opened for us: sd_listen_fds(3).

Who starts us with a socket keeps it open over our end, so that callers who come meanwhile wait in
its queue and are not refused: an edge is exchanged for a newer one without losing anybody.
"""

from __future__ import annotations

import os
import socket

FIRST_FD = 3
SOCKETS_MAX = 16


def inherited() -> socket.socket | None:
    """The first listening stream socket that was handed over; None when there is none."""
    count = os.environ.get("LISTEN_FDS", "")
    if os.environ.get("LISTEN_PID") != str(os.getpid()) or not count.isdecimal():
        return None
    for number in range(FIRST_FD, FIRST_FD + min(int(count), SOCKETS_MAX)):
        try:
            handed = socket.socket(fileno=number)
        except OSError:
            continue
        if handed.type == socket.SOCK_STREAM and handed.getsockopt(
            socket.SOL_SOCKET, socket.SO_ACCEPTCONN
        ):
            os.set_inheritable(number, False)
            return handed
        handed.detach()  # it is not ours to close
    return None
