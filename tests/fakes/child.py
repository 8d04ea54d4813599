"""A child process for the supervisor's tests: does what its arguments say, one after another.

ready | status=TEXT | say=TEXT | exit=CODE | deaf (ignores SIGTERM) | forever | once=FILE (the next
word counts only if FILE is absent; makes it)
"""

from __future__ import annotations

import pathlib
import signal
import sys
from collections.abc import Callable

from trimtab.runtime.notify import notify


def _forever() -> None:
    while True:
        signal.pause()


_PLAIN: dict[str, Callable[[], object]] = {
    "ready": lambda: notify(ready=True),
    "deaf": lambda: signal.signal(signal.SIGTERM, signal.SIG_IGN),
    "forever": _forever,
}
_VALUED: dict[str, Callable[[str], object]] = {
    "status": lambda text: notify(status=text),
    "say": lambda text: print(text, flush=True),  # noqa: T201
    "exit": lambda code: sys.exit(int(code)),
}


def main() -> None:
    """Obey."""
    words = iter(sys.argv[1:])
    for word in words:
        verb, _, value = word.partition("=")
        if verb == "once":
            if pathlib.Path(value).exists():
                next(words)
            pathlib.Path(value).touch()
        elif verb in _PLAIN:
            _PLAIN[verb]()
        else:
            _VALUED[verb](value)


if __name__ == "__main__":
    main()
