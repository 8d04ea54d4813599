"""Runs one engine and answers for all of it: `python -m standalone.keeper PORT 'COMMAND LINE'`.

vLLM is several processes; when its API server dies the others live on and keep the GPU's memory.
Rules: whatever the engine started ends with it, also what left its process group (we are its
subreaper, prctl(2)); when our own starter ends in any way, all ends at once; we say how loading
goes, and that it is ready when /health answers; SIGTERM ends a ready engine politely, and one that
loads at once, since nobody is on it. The command is one argument, so that whoever looks for vLLM
in the list of processes finds vLLM alone.
"""

from __future__ import annotations

import contextlib
import ctypes
import http.client
import os
import pathlib
import shlex
import signal
import sys

import psutil

from standalone import causes, leash
from standalone.state import last_line
from trimtab.runtime.clock import now_s
from trimtab.runtime.notify import notify

PR_SET_CHILD_SUBREAPER = 36
POLL_S = 0.5
ASK_LIMIT_S = 2.0
POLITE_S = 15.0
"""For the end of an engine that was told to end; the supervisor's grace is longer."""
END_S = 5.0
STATUS_PERIOD_S = 1.0
_LOG = pathlib.Path("/proc/self/fd/1")
_TRACKER = "multiprocessing.resource_tracker"
_WATCHED = {signal.SIGTERM, signal.SIGCHLD}


def main() -> int:
    """Run it to its end; its exit status, or 128 and the signal that killed it."""
    port, line = int(sys.argv[1]), sys.argv[2]
    starter = os.getppid()
    libc = ctypes.CDLL(None)
    libc.prctl(leash.PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    signal.pthread_sigmask(signal.SIG_BLOCK, _WATCHED)
    keeper = Keeper(shlex.split(line), port)
    try:
        while keeper.code is None and not keeper.wait():
            keeper.look()
        if keeper.code is None and keeper.ready and os.getppid() == starter:
            keeper.ask_to_end()
    finally:
        keeper.end()
    return 128 + signal.SIGTERM if keeper.code is None else keeper.code


class Keeper:
    """One engine, from its start to the end of its last process."""

    def __init__(self, command: list[str], port: int) -> None:
        env = {name: text for name, text in os.environ.items() if name != "NOTIFY_SOCKET"}
        started = [sys.executable, "-I", "-S", leash.__file__, str(os.getpid()), *command]
        self._pid = os.posix_spawn(sys.executable, started, env, setsigmask=())
        self._port = port
        self._started_s = self._told_s = now_s()
        self.code: int | None = None
        self.ready = False

    def wait(self, limit_s: float = POLL_S) -> bool:
        """Until something ended, but not longer; whether we are told to end."""
        got = signal.sigtimedwait(_WATCHED, limit_s)
        self._reap()
        return got is not None and got.si_signo == signal.SIGTERM

    def look(self) -> None:
        """Say how it is, until it is ready."""
        if self.ready:
            return
        now = now_s()
        if self._is_healthy() and self._listens():
            self.ready = True
            notify(ready=True)
        elif now - self._told_s >= STATUS_PERIOD_S:
            self._told_s = now
            words = causes.plain(last_line(_LOG))
            notify(status=f"loads for {now - self._started_s:.0f} s: {words or 'no word yet'}")

    def ask_to_end(self) -> None:
        """SIGTERM to its first process, which knows how to end the others; waits for that."""
        os.kill(self._pid, signal.SIGTERM)
        until_s = now_s() + POLITE_S
        while self.code is None and now_s() < until_s:
            self.wait()

    def end(self) -> None:
        """Kill what is left of it.

        multiprocessing's resource tracker last: it removes the shared memory of the dead, and ends.
        """
        until_s = now_s() + END_S
        while (left := self._left()) and now_s() < until_s:
            for process in left:
                if not _is_tracker(process):
                    _kill(process)
            self.wait(0.05)
        for process in self._left():
            _kill(process)
        self._reap()

    def _left(self) -> list[psutil.Process]:
        self._reap()
        return psutil.Process().children(recursive=True)

    def _reap(self) -> None:
        with contextlib.suppress(ChildProcessError):
            while (found := os.waitpid(-1, os.WNOHANG))[0]:
                if found[0] == self._pid:
                    code = os.waitstatus_to_exitcode(found[1])
                    self.code = code if code >= 0 else 128 - code

    def _listens(self) -> bool:
        """Whether it is our engine that answers there, and not another one."""
        for process in psutil.Process().children(recursive=True):
            with contextlib.suppress(psutil.Error):
                if any(
                    item.status == psutil.CONN_LISTEN and item.laddr[1:] == (self._port,)
                    for item in process.net_connections("tcp")
                ):
                    return True
        return False

    def _is_healthy(self) -> bool:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=ASK_LIMIT_S)
        try:
            connection.request("GET", "/health")
            return connection.getresponse().status == 200
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()


def _is_tracker(process: psutil.Process) -> bool:
    with contextlib.suppress(psutil.Error):
        return any(_TRACKER in word for word in process.cmdline())
    return False


def _kill(process: psutil.Process) -> None:
    with contextlib.suppress(psutil.Error):
        process.kill()


if __name__ == "__main__":
    raise SystemExit(main())
