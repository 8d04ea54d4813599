"""One process of a fleet on this machine: start it, end it, freeze it, by its pid.

Rules: a part dies with us, however we end (standalone/leash); its output goes to a log of its own;
what was started is ended, politely first.
"""

from __future__ import annotations

import os
import pathlib
import signal
import subprocess
import sys
from collections.abc import Sequence

from standalone import leash

STOP_GRACE_S = 10.0


class Part:
    """A process that can be started again."""

    def __init__(
        self, name: str, argv: Sequence[str], log: pathlib.Path, fds: Sequence[int] = ()
    ) -> None:
        """`fds` of ours are open in it, too."""
        self.name = name
        self.log = log
        self._argv = argv
        self._fds = fds
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def running(self) -> bool:
        """Whether it is there (frozen counts)."""
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int:
        """Of the running process."""
        assert self._process is not None, f"{self.name} was never started"
        return self._process.pid

    def start(self) -> None:
        """Start it, unless it runs."""
        if self.running:
            return
        command = (sys.executable, "-I", "-S", leash.__file__, str(os.getpid()), *self._argv)
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                pass_fds=self._fds,
            )

    def kill(self) -> None:
        """End it at once (SIGKILL)."""
        self._signal(signal.SIGKILL)
        if self._process is not None:
            self._process.wait()

    def freeze(self) -> None:
        """Stop it without ending it (SIGSTOP): its sockets stay open and nobody answers."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on."""
        self._signal(signal.SIGCONT)

    def wait(self) -> int:
        """Its exit status, once it has ended."""
        assert self._process is not None, f"{self.name} was never started"
        return self._process.wait()

    def end(self) -> None:
        """End it politely, and after a grace by force."""
        self._signal(signal.SIGTERM)
        self.thaw()
        if self._process is not None:
            try:
                self._process.wait(STOP_GRACE_S)
            except subprocess.TimeoutExpired:
                self.kill()

    def strike(self, how: str) -> None:
        """Let it be killed, frozen or ended."""
        {"killed": self.kill, "frozen": self.freeze, "ended": self.end}[how]()

    def recover(self, how: str) -> None:
        """Undo that."""
        if how == "frozen":
            self.thaw()
        else:
            self.start()

    def last_words(self) -> str:
        """The end of its log, for an error."""
        text = self.log.read_text(errors="replace") if self.log.exists() else ""
        return "\n".join(text.splitlines()[-5:])

    def _signal(self, number: signal.Signals) -> None:
        if self.running:
            os.kill(self.pid, number)
