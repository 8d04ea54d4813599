"""What a control plane takes anew from its file by a reload: pools, engines, keys, limits.

Rules: they count while nothing was applied (docs/decisions/0017), at the one that leads; who does
not lead keeps them for when it does. Checked like what is applied.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import partial

from controlplane import live
from controlplane.config import ControlConfig, from_args
from controlplane.core.live import Live
from controlplane.core.placement import Placement
from controlplane.live import BadConfigError
from controlplane.metrics import ControlMetrics
from controlplane.seat import Seat
from controlplane.settings import Settings
from trimtab.runtime import live_config
from trimtab.runtime.reload import Reloading
from trimtab.runtime.service import ConfigError
from trimtab.runtime.tasks import TaskRunner


def follow(
    runner: TaskRunner,
    config: ControlConfig,
    settings: Settings,
    seat: Seat,
    metrics: ControlMetrics,
) -> str:
    """Do so whenever it is told to; the usual status line."""
    take, status = partial(_take, config, settings, seat), f"serving on {config.listen}"
    runner.forever("reload", Reloading(take, metrics.process.reloaded, status).run())
    return status


async def _take(config: ControlConfig, settings: Settings, seat: Seat) -> Sequence[str]:
    """Do so; what waits for a restart. Raises ConfigError."""
    new = await asyncio.to_thread(from_args, config.argv)
    file = Live(Placement(new.pools, new.engines), new.keys, new.policy, settings.node)
    try:
        if seat.loop is None:
            live.check(file, ())
        else:
            await seat.loop.live.reload(file, seat.loop.registry.replicas.values())
    except BadConfigError as error:
        raise ConfigError(str(error)) from None
    settings.placement, settings.keys, settings.policy = file.placement, file.keys, file.policy
    return live_config.held(config.base, new.base, "control planes")
