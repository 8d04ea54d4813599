"""How a binary starts and ends: bad configuration is one sentence and exit 64; signals end it."""

from __future__ import annotations

import asyncio
import gc
import signal
import sys
from collections.abc import Coroutine
from typing import Any

EXIT_CONFIG = 64  # EX_USAGE in sysexits.h


class ConfigError(Exception):
    """The operator asked for something impossible; says what, where, what is allowed."""


def run(work: Coroutine[Any, Any, None]) -> int:
    """Run a service to its end; the process's exit status."""
    import uvloop  # noqa: PLC0415  10 ms that `ctl` need not pay

    try:
        uvloop.run(work)
    except ConfigError as error:
        print(error, file=sys.stderr)  # noqa: T201
        return EXIT_CONFIG
    except KeyboardInterrupt:
        return 130
    return 0


def rarely_collect() -> None:
    """What exists now stays; look for cycles a tenth as often, as few are made (5 % of an edge)."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 20, 20)


def stop_event() -> asyncio.Event:
    """Set by SIGTERM and SIGINT; call it once, inside the loop."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    return stop
