"""Which pool a replica is in, and by which name its engine is asked.

Rules, in this order: the pool that the configuration puts it in, by its URL, else by its name if
the configuration gave that; the pool one of whose names it serves; a pool named after the first
model it serves; none yet.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from trimtab.model import EngineFacts, Pool
from trimtab.views import ConfiguredEngine


@dataclass(frozen=True, slots=True)
class EngineSpec:
    """An engine that the configuration lists; an empty pool means "by the model it serves"."""

    name: str
    url: str
    pool: str = ""
    served_as: str = ""
    named: bool = True  # the configuration gave the name; else it is our guess at the agent's


def spec_of(engine: ConfiguredEngine, node: str) -> EngineSpec:
    """An engine as configured; without a name it is called as an agent of this node calls it."""
    name = engine.name or f"{node}-{urlsplit(engine.url).port}"
    return EngineSpec(name, engine.url, engine.pool, engine.served_as, named=bool(engine.name))


def mismatch(served_as: str, facts: EngineFacts | None) -> str:
    """Why an engine can't serve by this name; empty when it can, or says nothing of its models."""
    known = (*facts.served_models, *facts.adapters) if facts and facts.served_models else ()
    if not known or not served_as or served_as in known:
        return ""
    return f"it serves {', '.join(known[:5])}, not {served_as}"


class Placement:
    """The configured pools and engines, ready for look-ups."""

    def __init__(self, pools: Iterable[Pool] = (), engines: Iterable[EngineSpec] = ()) -> None:
        self.pools = tuple(pools)
        self.engines = tuple(engines)
        self._by_name = {engine.name: engine for engine in self.engines if engine.named}
        self._by_url = {engine.url: engine for engine in self.engines}
        self._names = {name: pool for pool in self.pools for name in (pool.name, *pool.aliases)}

    def spec(self, replica: str, url: str) -> EngineSpec | None:
        """What the configuration says about a replica."""
        return self._by_url.get(url) or self._by_name.get(replica)

    def place(self, replica: str, url: str, served_models: Sequence[str]) -> tuple[str, str]:
        """Its pool and the model name to ask it for; both may be empty."""
        spec = self.spec(replica, url)
        pool = spec.pool if spec else ""
        if not pool:
            pool = self._pool_of(served_models)
        if spec and spec.served_as:
            return pool, spec.served_as
        return pool, self._name_for(pool, served_models)

    def _pool_of(self, served_models: Sequence[str]) -> str:
        for model in served_models:
            if model in self._names:
                return self._names[model].name
        return served_models[0] if served_models else ""

    def _name_for(self, pool: str, served_models: Sequence[str]) -> str:
        known = self._names.get(pool)
        for name in (known.name, *known.aliases) if known else (pool,):
            if name in served_models:
                return name
        return served_models[0] if served_models else pool
