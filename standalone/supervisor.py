"""Keeps child processes running, starts them in order and ends them in the reverse order.

Rules: a child starts when the one before it is ready; it says so itself (sd_notify); it leads a
process group of its own, so that the terminal's Ctrl-C reaches only us; its output goes to a log;
it dies with us (standalone/leash). What loads for minutes, an engine, is not waited for, and holds
nothing up: it is given up alone, as long as another one is left. Nothing here decides: see
standalone/restart.
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

from standalone import causes, leash, notices, restart
from standalone.state import State, bound, last_line, rotate, tail
from trimtab.policy.dice import Dice
from trimtab.runtime.clock import now_s
from trimtab.runtime.config import UPSTREAM_KEY_ENV
from trimtab.runtime.service import EXIT_CONFIG, ConfigError
from trimtab.runtime.tasks import TaskRunner

READY_TIMEOUT_S = 60.0  # a start takes under a second of CPU, but the machine may be busy
LOGS_PERIOD_S = 5.0


@dataclass(frozen=True, slots=True)
class Spec:
    """A child to run."""

    name: str
    argv: tuple[str, ...]
    stop_grace_s: float = 5.0
    env: Mapping[str, str] = field(default_factory=dict)
    loads: bool = False
    """An engine: it is ready when it is."""


class Audience(Protocol):
    """Who is told what happens to the children."""

    def died(self, name: str, how: str, wait_s: float, log: pathlib.Path) -> None:
        """A child ended by itself and will be started again; `how` may have several lines."""

    def back(self, name: str) -> None:
        """A child that had died is ready again."""

    def loaded(self, name: str) -> None:
        """An engine is ready for the first time."""

    def given_up(self, why: str) -> None:
        """An engine is not started again; the others go on."""

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
        self.hopeless = False
        self._backoff = restart.backoff(dice, loads=spec.loads)
        self._audience = audience
        self._stopping = asyncio.Event()
        self._process: asyncio.subprocess.Process | None = None
        self._deaths = self._failed_starts = 0
        self._was_ready = False
        self._log_began_bytes = 0

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
            self._log_began_bytes = log.tell()
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
            self.kill()  # when we were cancelled, or of an engine's keeper that was killed itself
            self._failed_starts = 0 if self.ready.is_set() else self._failed_starts + 1
            self.ready.clear()
            await process.wait()
            self._process = None

    async def _after_death(self, code: int, up_s: float) -> None:
        self._deaths += 1
        how, is_lasting = self._how(code)
        unready = None if self._was_ready and not self.spec.loads else self._failed_starts or None
        wait_s = restart.wait_s(code, up_s, unready, self._backoff)
        if wait_s is None or (is_lasting and unready):
            self.hopeless = True
            raise self._hopeless(code, how)
        self._audience.died(self.spec.name, how, wait_s, self.log)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(wait_s):
                await self._stopping.wait()

    def _how(self, code: int) -> tuple[str, bool]:
        """How it ended, an engine also why, and whether its next start will end so, too."""
        how = restart.how(code)
        if not self.spec.loads:
            return how, False
        words = tail(self.log, self._log_began_bytes)
        cause = causes.known(words, code)
        how = f"{how}: {causes.said(words)}"
        return (f"{how}\n  {cause.text}", cause.lasting) if cause else (how, False)

    def _hopeless(self, code: int, how: str) -> Exception:
        name = self.spec.name
        if self.spec.loads:
            return StartError(f"{name} {how}\n  it is not started again; its log: {self.log}")
        words = last_line(self.log)
        if code == EXIT_CONFIG and words:
            return ConfigError(f"{name}: {words}")
        return StartError(f"{name} {how}: {words or 'no word'} ({self.log})")

    def _take(self, notice: notices.Notice) -> None:
        if notice.status:
            self._audience.status(self.spec.name, notice.status)
        if notice.ready and not self.ready.is_set():
            self.ready.set()
            if self._deaths:
                self._audience.back(self.spec.name)
            elif self.spec.loads:
                self._audience.loaded(self.spec.name)
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
        if process is not None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)


class Supervisor:
    """All children, in their order."""

    def __init__(self, specs: Sequence[Spec], state: State, dice: Dice, audience: Audience) -> None:
        self._children = [Child(spec, state, dice, audience) for spec in specs]
        self._audience = audience

    async def run(self, stop: asyncio.Event, up: asyncio.Event) -> None:
        """Start all, set `up`, run until `stop`; raises StartError or ConfigError."""
        engines = [child for child in self._children if child.spec.loads]
        async with TaskRunner() as tasks:
            tasks.forever("logs", self._bound_logs())
            starting = tasks.once("start", self._start(tasks, up))
            try:
                await stop.wait()
            finally:
                starting.cancel()
                for child in reversed(self._children):
                    if not child.spec.loads:
                        await child.stop()
                # last, when nobody asks them any more, and all at once
                await asyncio.gather(*(child.stop() for child in engines))

    def kill(self) -> None:
        """End everything at once."""
        for child in self._children:
            child.kill()

    async def _start(self, tasks: TaskRunner, up: asyncio.Event) -> None:
        for child in self._children:
            _ = tasks.once(child.spec.name, self._keep(child))
            if child.spec.loads:
                continue
            try:
                async with asyncio.timeout(READY_TIMEOUT_S):
                    await child.ready.wait()
            except TimeoutError:
                name = child.spec.name
                raise StartError(
                    f"{name} is not ready after {READY_TIMEOUT_S:.0f} s: see {child.log}"
                ) from None
        up.set()

    async def _keep(self, child: Child) -> None:
        try:
            await child.keep()
        except StartError as error:
            left = any(one.spec.loads and not one.hopeless for one in self._children)
            if not (child.spec.loads and left):
                raise
            self._audience.given_up(str(error))

    async def _bound_logs(self) -> None:
        while True:
            await asyncio.sleep(LOGS_PERIOD_S)
            for child in self._children:
                bound(child.log)
