"""What an edge takes anew from its file by a reload; the rest waits for a restart, and is named."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import partial

from edge.access import AccessLog
from edge.config import EdgeConfig, from_args
from edge.metrics import EdgeMetrics
from edge.server import Endpoint
from trimtab.runtime import live_config
from trimtab.runtime.listener_tls import ListenerTls
from trimtab.runtime.reload import Reloading
from trimtab.runtime.tasks import TaskRunner


class Configured:
    """An edge's parts as the newest file wants them."""

    def __init__(self, config: EdgeConfig, endpoint: Endpoint, metrics: EdgeMetrics) -> None:
        """Raises ConfigError."""
        self.now = config
        self._started = config
        self._endpoint = endpoint
        self._metrics = metrics
        self.access = AccessLog(config.name, metrics)
        endpoint.finished.append(self.access.add)
        self._use(config)

    def follow(self, runner: TaskRunner, tls: ListenerTls | None) -> Reloading:
        """Do what is asked for by signal."""
        told = self._metrics.process.reloaded
        reloading = Reloading(partial(self._take, tls), told, "serving")
        runner.forever("access log", self.access.run())
        runner.forever("reload", reloading.run())
        return reloading

    async def _take(self, tls: ListenerTls | None) -> Sequence[str]:
        """Read the file and do so; what waits for a restart. Raises ConfigError."""
        new = await asyncio.to_thread(from_args, self._started.argv)
        if tls is not None:
            tls.renew()
        self._use(new)
        return live_config.held(self._started.base, new.base, "edges")

    def _use(self, config: EdgeConfig) -> None:
        self.access.use(config.access)
        clients = config.access.notes_clients
        self._endpoint.use(config.headers, config.extra_paths, notes_clients=clients)
        self.now = config
