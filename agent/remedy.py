"""Has systemd restart an engine's service: all of it is killed, then it is started anew.

Rules: only on a grant of the control plane, only the unit that our own file names for the replica,
only while we see it do nothing ourselves; never through a shell. Its whole control group is killed
first: what hangs answers no SIGTERM, and a worker that is left holds the GPU's memory.
systemctl asks for the right over D-Bus (deploy/systemd/trimtab.rules says who may).
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable

from agent.watch import EngineWatch
from trimtab.directives import Restart, Restarted

SYSTEMCTL = ("systemctl", "--no-ask-password", "--no-block")
COMMAND_LIMIT_S = 10.0
DETAIL_LIMIT_CHARS = 200
Run = Callable[[tuple[str, ...]], Awaitable[str]]


class Remedy:
    """Carries grants out; remembers the newest term that granted any."""

    def __init__(self, run: Run | None = None) -> None:
        """`run` does a command and says why it failed, if it did."""
        self._run = run or _run
        self._term = 0

    async def restart(self, grant: Restart, watch: EngineWatch | None) -> Restarted:
        """Do it, or say why not."""
        problem = self._problem(grant, watch)
        if watch is not None and not problem:
            kill = (*SYSTEMCTL, "kill", "--signal=SIGKILL", watch.unit)
            start = (*SYSTEMCTL, "restart", watch.unit)
            problem = await self._run(kill) or await self._run(start)
        return Restarted(grant.replica, grant.epoch, not problem, problem[:DETAIL_LIMIT_CHARS])

    def _problem(self, grant: Restart, watch: EngineWatch | None) -> str:
        if grant.term < self._term:
            return f"term {self._term} has granted one since term {grant.term}"
        self._term = grant.term
        if watch is None:
            return "not watched by this agent"
        if not watch.unit:
            return "its unit is not in this agent's file"
        return watch.give_up(grant.epoch)


async def _run(command: tuple[str, ...]) -> str:
    try:
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
        )
    except OSError as error:
        return f"{command[0]}: {error.strerror}"
    try:
        async with asyncio.timeout(COMMAND_LIMIT_S):
            _, said = await process.communicate()
    except TimeoutError:
        return f"{' '.join(command)}: no end in {COMMAND_LIMIT_S:.0f} s"
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
    words = " ".join(said.decode(errors="replace").split())
    return f"{' '.join(command)}: {words or process.returncode}" if process.returncode else ""
