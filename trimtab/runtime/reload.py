"""Taking the configuration file anew while everything runs: SIGHUP, `systemctl reload`.

Rules: all or nothing: a file that can't be taken changes nothing, and the log, the status line and
`trimtab_config_last_reload_successful` say so until one can; what changed and needs a restart is
named. The manager is told when it begins and when it is done (RELOADING=1, sd_notify(3)).
"""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Awaitable, Callable, Sequence

from trimtab.runtime.notify import notify
from trimtab.runtime.service import ConfigError

log = logging.getLogger("reload")
Take = Callable[[], Awaitable[Sequence[str]]]
"""Reads the file and takes it, whole: the settings that wait for a restart; raises ConfigError."""


class Reloading:
    """Reloads whenever the process is told to."""

    def __init__(self, take: Take, tell: Callable[[bool], None], usually: str) -> None:
        """`tell` hears each time whether it went well; `usually` is the status line."""
        self._take = take
        self._tell = tell
        self._usually = usually
        self._asked = asyncio.Event()
        self.problem = ""
        """Why the newest file was not taken, in one line; empty: it was."""
        asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, self.ask)

    def ask(self) -> None:
        """Reload soon."""
        self._asked.set()

    async def run(self) -> None:
        """For ever."""
        while True:
            await self._asked.wait()
            self._asked.clear()
            notify(reloading=True)
            await self._reload()
            notify(ready=True, status=self.problem or self._usually)

    async def _reload(self) -> None:
        problem = ""
        waiting: Sequence[str] = ()
        try:
            waiting = await self._take()
        except ConfigError as error:
            problem = str(error)
        if problem:
            fields = {"problem": problem}
            log.error("configuration not taken; nothing changed", extra={"fields": fields})
        else:
            fields = {"needs_restart": ", ".join(waiting) or "nothing"}
            log.info("configuration reloaded", extra={"fields": fields})
        one_line = " ".join(problem.split())
        self.problem = f"configuration not taken: {one_line}" if problem else ""
        self._tell(not problem)
