"""Where requests go from here: to engines, by either of two clients, and out of the fleet."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import NamedTuple

from edge import carriers, fallback, upstream
from edge.carriers import Carriers
from edge.core.outside import Target
from edge.fallback import Fallbacks
from edge.metrics import EdgeMetrics
from edge.upstream import Upstream


class Ways(NamedTuple):
    """All of them."""

    engines: Upstream
    carriers: Carriers
    """To engines, for what is no JSON."""
    outside: Fallbacks


@asynccontextmanager
async def connect(
    key: str, targets: Mapping[str, Target], metrics: EdgeMetrics
) -> AsyncIterator[Ways]:
    """For as long as the edge runs; `key` is the engines' own, `targets` are outside, by pool."""
    async with (
        upstream.connect(key) as engines,
        carriers.connect(key) as passing,
        fallback.connect(targets, metrics) as outside,
    ):
        yield Ways(engines, passing, outside)
