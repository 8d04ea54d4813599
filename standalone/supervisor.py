"""Keeps child processes running, starts them in order and ends them in the reverse order.

Rules: a child starts when the one before it is ready; it says so itself (sd_notify); it leads a
process group of its own, so that the terminal's Ctrl-C reaches only us; its output goes to a log;
it dies with us (standalone/leash). Nothing here decides: see standalone/restart.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import pathlib
import signal
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from standalone import leash, notices, restart
from standalone.config import UPSTREAM_KEY_ENV
from standalone.state import State, rotate
from trimtab.policy.dice import Dice
from trimtab.runtime.backoff import Backoff
from trimtab.runtime.clock import now_s
from trimtab.runtime.service import EXIT_CONFIG, ConfigError
from trimtab.runtime.tasks import TaskRunner

READY_TIMEOUT_S = 60.0  # a start takes under a second of CPU, but the machine may be busy
_TAIL_BYTES = 4096


@dataclass(frozen=True, slots=True)
class Spec:
    """A child to run."""

    name: str
    argv: tuple[str, ...]
    stop_grace_s: float = 5.0
    env: Mapping[str, str] = field(default_factory=dict)


class Audience(Protocol):
    """Who is told what happens to the children."""

    def died(self, name: str, how: str, wait_s: float, log: pathlib.Path) -> None:
        """A child ended by itself and will be started again."""

    def back(self, name: str) -> None:
        """A child that had died is ready again."""

    def status(self, name: str, text: str) -> None:
        """A child says how it is."""


class StartError(Exception):
    """A child can't be started; says which, and its last words."""


class Child:
    """One child process and its successors."""

    def __init__(self, spec: Spec, state: State, dice: Dice, audience: Audience) -> None:
        self.spec = spec
        self.ready = asyncio.Event()
        self.log = state.log(spec.name)
        self._socket = state.notify_socket(spec.name)
        self._backoff = Backoff(dice, cap_s=restart.WAIT_MAX_S)
        self._audience = audience
        self._stopping = asyncio.Event()
        self._process: asyncio.subprocess.Process | None = None
        self._deaths = 0
        self._was_ready = False

    async def keep(self) -> None:
        """Run it, again and again, until `stop`; raises StartError when that is hopeless."""
        rotate(self.log)
        async with notices.listen(self._socket, self._take):
            while not self._stopping.is_set():
                started_s = now_s()
                code = await self._run()
                if not self._stopping.is_set():
                    await self._after_death(code, now_s() - started_s)

    async def _run(self) -> int:
        command = (sys.executable, "-I", "-S", leash.__file__, str(os.getpid()), *self.spec.argv)
        env = {**os.environ, **self.spec.env, "NOTIFY_SOCKET": str(self._socket)}
        env.pop(UPSTREAM_KEY_ENV, None)  # they have it in a file
        with self.log.open("ab") as log:
            process = await asyncio.create_subprocess_exec(
                *command, stdin=asyncio.subprocess.DEVNULL, stdout=log, stderr=log, env=env,
                start_new_session=True,
            )  # fmt: skip
        self._process = process
        if self._stopping.is_set():  # `stop` came while it was being made, and found nothing
            self.kill()
        try:
            return await process.wait()
        finally:
            self.kill()  # only when we were cancelled is there anything to kill
            self.ready.clear()
            await process.wait()

    async def _after_death(self, code: int, up_s: float) -> None:
        self._deaths += 1
        unready = None if self._was_ready else self._deaths
        wait_s = restart.wait_s(code, up_s, unready, self._backoff)
        if wait_s is None:
            raise self._hopeless(code)
        self._audience.died(self.spec.name, restart.how(code), wait_s, self.log)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(wait_s):
                await self._stopping.wait()

    def _hopeless(self, code: int) -> Exception:
        words = last_line(self.log)
        if code == EXIT_CONFIG and words:
            return ConfigError(f"{self.spec.name}: {words}")
        return StartError(
            f"{self.spec.name} {restart.how(code)}: {words or 'no word'} ({self.log})"
        )

    def _take(self, notice: notices.Notice) -> None:
        if notice.status:
            self._audience.status(self.spec.name, notice.status)
        if notice.ready and not self.ready.is_set():
            self.ready.set()
            if self._deaths:
                self._audience.back(self.spec.name)
            self._was_ready = True

    async def stop(self) -> None:
        """End it: politely, and after its grace by force."""
        self._stopping.set()
        process = self._process
        if process is None or process.returncode is not None:
            return
        process.terminate()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self.spec.stop_grace_s):
                await process.wait()
        self.kill()
        await process.wait()

    def kill(self) -> None:
        """End its whole process group at once, if it still runs."""
        process = self._process
        if process is not None and process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


class Supervisor:
    """All children, in their order."""

    def __init__(self, specs: Sequence[Spec], state: State, dice: Dice, audience: Audience) -> None:
        self._children = [Child(spec, state, dice, audience) for spec in specs]

    async def run(self, stop: asyncio.Event, up: asyncio.Event) -> None:
        """Start all, set `up`, run until `stop`; raises StartError or ConfigError."""
        async with TaskRunner() as tasks:
            starting = tasks.once("start", self._start(tasks, up))
            try:
                await stop.wait()
            finally:
                starting.cancel()
                for child in reversed(self._children):
                    await child.stop()

    def kill(self) -> None:
        """End everything at once."""
        for child in self._children:
            child.kill()

    async def _start(self, tasks: TaskRunner, up: asyncio.Event) -> None:
        for child in self._children:
            _ = tasks.once(child.spec.name, child.keep())
            try:
                async with asyncio.timeout(READY_TIMEOUT_S):
                    await child.ready.wait()
            except TimeoutError:
                name = child.spec.name
                raise StartError(
                    f"{name} is not ready after {READY_TIMEOUT_S:.0f} s: see {child.log}"
                ) from None
        up.set()


def last_line(path: pathlib.Path) -> str:
    """The last words in a log."""
    with path.open("rb") as stream:
        stream.seek(0, os.SEEK_END)
        stream.seek(max(0, stream.tell() - _TAIL_BYTES))
        lines = stream.read().decode(errors="replace").split("\n")
    return next((line.strip() for line in reversed(lines) if line.strip()), "")
