"""What each noun shows: its columns, and how a value reads in a cell.

Rules: absent is "-", never 0; a cell is one line; a column that only matters sometimes (WHY) says
when it is shown; columns that are ages change without news, and a watch does not print for them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from trimtab.model import BreakerState, GpuSample, GpuState
from trimtab.verdict import in_full_use, is_open, why
from trimtab.views import AgentView, EdgeView, Fleet, PoolView, ReplicaView

T = TypeVar("T")
ABSENT = "-"
THROTTLED = 0x8 | 0x20 | 0x40 | 0x80  # NVML: hardware slowdown, thermal twice, power brake


@dataclass(frozen=True, slots=True)
class Column(Generic[T]):
    """A title and what stands below it."""

    title: str
    cell: Callable[[T], str]
    wide: bool = False
    age: bool = False
    toned: bool = False
    also: Callable[[T], bool] | None = None
    still: Callable[[T], str] | None = None
    """The cell without what time alone moves."""

    def shown(self, items: Sequence[T], wide: bool) -> bool:
        """Whether the table has this column."""
        return wide or not self.wide or (self.also is not None and any(map(self.also, items)))


@dataclass(frozen=True, slots=True)
class Noun(Generic[T]):
    """One kind of thing: where it is in a fleet and how it is shown."""

    kind: str
    items: Callable[[Fleet], tuple[T, ...]]
    name: Callable[[T], str]
    columns: tuple[Column[T], ...]
    none: str


def count(value: int | None) -> str:
    """A number that may be absent."""
    return ABSENT if value is None else str(value)


def ratio(value: float | None) -> str:
    """A share of one."""
    return ABSENT if value is None else f"{value:.2f}"


def span(milliseconds: int | None) -> str:
    """A length of time in its two largest units."""
    if milliseconds is None:
        return ABSENT
    seconds = milliseconds / 1000
    if seconds < 10:
        return f"{seconds:.1f}s"
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    parts = [(days, "d"), (hours, "h"), (minutes, "m"), (rest, "s")]
    first = next(index for index, (number, _) in enumerate(parts) if number)
    return "".join(f"{number}{unit}" for number, unit in parts[first : first + 2] if number)


def ago(milliseconds: int | None) -> str:
    """The age of something heard."""
    return ABSENT if milliseconds is None else f"{span(milliseconds)} ago"


def seconds(value: float | None) -> str:
    """A latency."""
    if value is None:
        return ABSENT
    return f"{value * 1000:.0f}ms" if value < 1 else f"{value:.1f}s"


def text(value: str) -> str:
    """A peer's words as one printable line."""
    line = " ".join(value.split())
    if line.isprintable():
        return line or ABSENT
    return "".join(c if c.isprintable() else "?" for c in line) or ABSENT


def model(replica: ReplicaView) -> str:
    """The public name, and the engine's own where it differs."""
    pool, own = replica.route.pool, replica.route.served_as
    return text(pool if own in ("", pool) else f"{pool}({own})")


def gpus(samples: Sequence[GpuSample]) -> str:
    """How many, the hottest, the mean load, and anything wrong."""
    bad = [sample.state.name.lower() for sample in samples if sample.state is not GpuState.OK]
    heats = [s.temperature_celsius for s in samples if s.temperature_celsius is not None]
    loads = [s.utilization_ratio for s in samples if s.utilization_ratio is not None]
    xids = sorted({event.code for sample in samples for event in sample.xids})
    parts = [f"{len(samples)}x"] if len(samples) > 1 else []
    parts += [f"{max(heats)}C"] if heats else []
    parts += [f"{sum(loads) / len(loads):.0%}"] if loads else []
    parts += [f"{len(bad)} {bad[0]}"] if bad else []
    parts += [f"xid {code}" for code in xids]
    parts += ["throttled"] if any((s.throttle_reasons or 0) & THROTTLED for s in samples) else []
    return " ".join(parts) or ABSENT


def breaker(replica: ReplicaView) -> str:
    """Its state, and how far it is on its way back."""
    state = replica.route.breaker
    if state is BreakerState.RAMPING:
        return f"ramping {replica.limit_slots}/{replica.full_slots}"
    if state is BreakerState.EJECTED and replica.ejected_for_ms:
        return f"ejected {span(replica.ejected_for_ms)}"
    return _breaker_word(replica)


def _breaker_word(replica: ReplicaView) -> str:
    state = replica.route.breaker
    return ABSENT if state is BreakerState.UNSPECIFIED else state.name.lower()


def _has_reason(replica: ReplicaView) -> bool:
    return not is_open(replica) or not in_full_use(replica)


REPLICAS: Noun[ReplicaView] = Noun(
    kind="Replica",
    items=lambda fleet: fleet.replicas,
    name=lambda r: r.route.replica,
    none="no replicas: agents report them, see `ctl get agents`",
    columns=(
        Column("REPLICA", lambda r: text(r.route.replica)),
        Column("NODE", lambda r: text(r.route.node)),
        Column("MODEL(SERVED AS)", model),
        Column("STATE", lambda r: r.state.name.lower(), toned=True),
        Column("ROUTE", lambda r: r.route.serving.name.lower(), toned=True),
        Column("BREAKER", breaker, toned=True, still=_breaker_word),
        Column("WEIGHT", lambda r: ratio(r.weight)),
        Column("SHARE 1m", lambda r: ratio(r.share_ratio)),
        Column("RUN", lambda r: count(r.running)),
        Column("WAIT", lambda r: count(r.waiting)),
        Column("IN-FLIGHT/LIMIT", lambda r: f"{r.inflight}/{r.limit_slots}"),
        Column("KV", lambda r: ratio(r.kv_cache_usage_ratio)),
        Column("TTFT p50", lambda r: seconds(r.ttft_p50_s)),
        Column("FAIL 1m", lambda r: count(r.failures_1m)),
        Column("BACKPR", lambda r: count(r.overloads_1m)),
        Column("HEARTBEAT", lambda r: ago(r.report_age_ms), age=True),
        Column("GPU", lambda r: gpus(r.gpus)),
        Column("VLLM", lambda r: text(r.vllm_version)),
        Column("AGE", lambda r: span(r.uptime_ms), age=True),
        Column("URL", lambda r: text(r.route.url), wide=True),
        Column("WHY", lambda r: text(why(r)), wide=True, also=_has_reason),
    ),
)

EDGES: Noun[EdgeView] = Noun(
    kind="Edge",
    items=lambda fleet: fleet.edges,
    name=lambda e: e.edge,
    none="no edges are connected; those that run keep serving without us",
    columns=(
        Column("EDGE", lambda e: text(e.edge)),
        Column("LISTENS", lambda e: text(e.listen_url)),
        Column("SYNC", lambda e: "yes" if e.in_sync else "no", toned=True),
        Column("ACKED/SENT", lambda e: f"{e.acked_version}/{e.sent_version}", age=True),
        Column("IN-FLIGHT", lambda e: count(e.inflight)),
        Column("QUEUED", lambda e: count(e.queued)),
        Column("REQUESTS 1m", lambda e: count(e.requests_1m)),
        Column("SHED 1m", lambda e: count(e.shed_1m)),
        Column("HEARTBEAT", lambda e: ago(e.report_age_ms), age=True),
        Column("VERSION", lambda e: text(e.edge_version)),
        Column("CONNECTED", lambda e: span(e.connected_ms), age=True),
        Column("WHY", lambda e: text(e.last_error), wide=True, also=lambda e: not e.in_sync),
    ),
)

AGENTS: Noun[AgentView] = Noun(
    kind="Agent",
    items=lambda fleet: fleet.agents,
    name=lambda a: a.node,
    none="no agents: start one beside an engine, or run `trimtab up`",
    columns=(
        Column("NODE", lambda a: text(a.node)),
        Column("CONNECTED", lambda a: "yes" if a.connected else "no", toned=True),
        Column("HEARTBEAT", lambda a: ago(a.report_age_ms), age=True),
        Column("VERSION", lambda a: text(a.agent_version)),
        Column("GPU READINGS", lambda a: text(a.gpu_detail or "ok")),
    ),
)

POOLS: Noun[PoolView] = Noun(
    kind="Pool",
    items=lambda fleet: fleet.pools,
    name=lambda p: p.pool,
    none="no pools: the configuration names none and no engine serves a model yet",
    columns=(
        Column("POOL", lambda p: text(p.pool)),
        Column("OPEN", lambda p: f"{p.open}/{p.replicas}"),
        Column("SLOTS OPEN", lambda p: f"{p.open_slots}/{p.healthy_slots}"),
        Column("IN-FLIGHT", lambda p: count(p.inflight)),
        Column("QUEUED", lambda p: count(p.queued)),
        Column("REQUESTS 1m", lambda p: count(p.requests_1m)),
        Column("SHED 1m", lambda p: count(p.shed_1m)),
    ),
)

VIEWS: dict[str, Noun[Any]] = {
    "replicas": REPLICAS,
    "edges": EDGES,
    "agents": AGENTS,
    "pools": POOLS,
}


def names(noun: Noun[Any], fleet: Fleet) -> list[str]:
    """Every name of a kind."""
    return [noun.name(item) for item in noun.items(fleet)]


def only(noun: Noun[Any], fleet: Fleet, name: str) -> Fleet:
    """The fleet with nothing of that kind but the one of that name."""
    kept = tuple(item for item in noun.items(fleet) if noun.name(item) == name)
    changes: dict[str, Any] = {f"{noun.kind.lower()}s": kept}
    return dataclasses.replace(fleet, **changes)
