"""Readiness, status and signs of life to whoever started us: systemd's protocol (sd_notify(3)).

`trimtab up` listens with the same protocol, so one mechanism serves both. Without a NOTIFY_SOCKET
nothing is sent. A manager that does not read can't hold us up. The watchdog is fed from the event
loop, so that a loop that stands still is ended and started again.
"""

from __future__ import annotations

import asyncio
import os
import socket

from trimtab.runtime import clock

SEND_TIMEOUT_S = 0.1  # a datagram to a full socket would wait for its reader
FEEDS_PER_PERIOD = 3.0


def notify(
    *,
    ready: bool = False,
    stopping: bool = False,
    reloading: bool = False,
    alive: bool = False,
    status: str = "",
    more_s: float = 0.0,
) -> None:
    """Send what is set (`more_s`: how long ending takes); a manager that went away is no error."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    status = " ".join(status.splitlines())  # a line is an assignment
    lines = ["READY=1"] * ready + ["STOPPING=1"] * stopping + ["WATCHDOG=1"] * alive
    if reloading:
        lines += ["RELOADING=1", f"MONOTONIC_USEC={round(1e6 * clock.now_s())}"]
    lines += [f"STATUS={status}"] * bool(status)
    lines += [f"EXTEND_TIMEOUT_USEC={round(more_s * 1e6)}"] * bool(more_s)
    if not address or not lines:
        return
    target = "\0" + address[1:] if address.startswith("@") else address
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.settimeout(SEND_TIMEOUT_S)
        try:
            sock.sendto("\n".join(lines).encode(), target)
        except OSError:
            return


def watchdog_s() -> float | None:
    """How long the manager waits for a sign of life of this process; None: it does not."""
    period_us = os.environ.get("WATCHDOG_USEC", "")
    meant_for = os.environ.get("WATCHDOG_PID", "") or str(os.getpid())
    if not period_us.isdecimal() or not int(period_us) or meant_for != str(os.getpid()):
        return None
    return int(period_us) / 1e6


async def stay_alive() -> None:
    """Feed the watchdog, for ever."""
    period_s = watchdog_s()
    while period_s is not None:
        notify(alive=True)
        await asyncio.sleep(period_s / FEEDS_PER_PERIOD)
    await asyncio.Event().wait()
