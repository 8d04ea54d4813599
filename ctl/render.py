"""A fleet as rows and as data: pure functions from values to text.

Rules: JSON's field names are the model's, enums are their names, absent is null; a route's fields
stand beside its replica's. Tables are for people and may change; the data formats are the API.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

from ctl.columns import Column, Noun, count, text
from ctl.options import Format
from trimtab.verdict import judge
from trimtab.views import Account, Fleet, PoolView

API_VERSION = "trimtab/v1"
AGE_FIELDS = frozenset(
    {"state_age_ms", "report_age_ms", "uptime_ms", "connected_ms", "age_ms"}
    | {"breaker_age_ms", "ejected_for_ms"}
    | {"acked_version", "sent_version"}
)


@dataclass(frozen=True, slots=True)
class Table:
    """Titles and cells; the columns in `toned` carry a word worth a colour."""

    titles: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    toned: frozenset[int] = frozenset()


@dataclass(frozen=True, slots=True)
class Status:
    """One screen: lines, a table, lines."""

    head: tuple[str, ...]
    pools: Table
    problems: tuple[str, ...]


def table(noun: Noun[Any], fleet: Fleet, *, wide: bool) -> Table:
    """A noun's items for people."""
    items = noun.items(fleet)
    return rows([c for c in noun.columns if c.shown(items, wide)], items)


def data(noun: Noun[Any], fleet: Fleet, form: Format) -> str:
    """A noun's items for programs, ending with a newline unless empty."""
    found = noun.items(fleet)
    return listed(noun.kind, [item(value) for value in found], map(noun.name, found), form)


def listed(kind: str, items: Sequence[dict[str, Any]], names: Iterable[str], form: Format) -> str:
    """Plain data for programs, in one of the formats that are not for people."""
    if form is Format.NAME:
        return "".join(f"{name}\n" for name in names)
    if form is Format.JSONL:
        return "".join(json.dumps(one) + "\n" for one in items)
    if form is Format.CSV:
        return _csv(items)
    whole = {"apiVersion": API_VERSION, "kind": f"{kind}List", "items": items}
    return plain(whole, form)


def plain(value: dict[str, Any], form: Format) -> str:
    """One thing as YAML, or else as JSON."""
    if form is not Format.YAML:
        return json.dumps(value, indent=2) + "\n"
    import yaml  # noqa: PLC0415  30 ms that the other formats need not pay

    dumper = getattr(yaml, "CSafeDumper", yaml.SafeDumper)  # ten times as fast, where it is
    return "---\n" + str(yaml.dump(value, Dumper=dumper, sort_keys=False))


def news(noun: Noun[Any], fleet: Fleet, form: Format) -> object:
    """Equal for two looks between which nothing but time moved."""
    items = noun.items(fleet)
    if form.is_table:
        shown = [c for c in noun.columns if c.shown(items, form is Format.WIDE) and not c.age]
        return [
            tuple(column.title for column in shown),
            *(tuple((column.still or column.cell)(one) for column in shown) for one in items),
        ]
    return [_timeless(item(value)) for value in items]


def status(fleet: Fleet) -> Status:
    """The verdict, what stands behind it, a line a pool, and what is wrong."""
    verdict = judge(fleet)
    synced, agents = sum(e.in_sync for e in fleet.edges), sum(a.connected for a in fleet.agents)
    who = f"leader {text(fleet.leader)}, term {fleet.term}, version {fleet.version}"
    head = (
        f"{text(fleet.name)} is {verdict.level.value}: {verdict.sentence}",
        f"edges {synced}/{len(fleet.edges)} in sync   "
        f"agents {agents}/{len(fleet.agents)} connected   "
        f"{who}, software {text(fleet.controlplane_version)}",
    )
    problems = tuple(f"  ! {text(problem)}" for problem in verdict.problems)
    return Status(head, rows(_STATUS, fleet.pools), problems)


def verdict(fleet: Fleet) -> dict[str, Any]:
    """The same for programs."""
    found = judge(fleet)
    return {
        "apiVersion": API_VERSION,
        "kind": "Status",
        "fleet": fleet.name,
        "leader": fleet.leader,
        "term": fleet.term,
        "level": found.level.value,
        "sentence": found.sentence,
        "problems": list(found.problems),
        "pools": [item(pool) for pool in fleet.pools],
    }


def item(value: Any) -> dict[str, Any]:
    """One view as plain data."""
    fields = _plain(value)
    route = fields.pop("route", {})
    return {**route, **fields}


def line(value: Any) -> str:
    """One thing as a line of JSON, without its end."""
    return json.dumps(item(value))


def document(value: Any, form: Format = Format.JSON) -> str:
    """One thing as a document."""
    return plain({"apiVersion": API_VERSION, "kind": type(value).__name__, **item(value)}, form)


def account(found: Account, form: Format = Format.JSON) -> str:
    """An account as a document, with what edges told as they told it."""
    records = [{"edge": one.edge, **json.loads(one.json)} for one in found.records]
    fields = item(found) | {"records": records}
    return plain({"apiVersion": API_VERSION, "kind": "Account", **fields}, form)


def rows(columns: Sequence[Column[Any]], items: Sequence[Any]) -> Table:
    """These columns of these items."""
    return Table(
        titles=tuple(c.title for c in columns),
        rows=tuple(tuple(c.cell(one) for c in columns) for one in items),
        toned=frozenset(i for i, c in enumerate(columns) if c.toned),
    )


def _plain(value: Any) -> Any:
    if isinstance(value, IntEnum):
        return value.name
    if isinstance(value, tuple):
        return [_plain(part) for part in value]
    if dataclasses.is_dataclass(value):
        return {f.name: _plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    return value


def _timeless(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _timeless(part) for key, part in value.items() if key not in AGE_FIELDS}
    if isinstance(value, list):
        return [_timeless(part) for part in value]
    return value


def _csv(items: Sequence[dict[str, Any]]) -> str:
    if not items:
        return ""
    import csv  # noqa: PLC0415  5 ms, and rare
    import io  # noqa: PLC0415

    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(items[0])
    writer.writerows([_csv_cell(part) for part in one.values()] for one in items)
    return out.getvalue()


def _csv_cell(value: Any) -> str:
    if value is None:
        return ""
    return json.dumps(value) if isinstance(value, list | dict | bool) else str(value)


def _withheld(pool: PoolView) -> str:
    if not pool.healthy_slots:
        return "-"
    return f"{max(0.0, 1 - pool.open_slots / pool.healthy_slots):.0%}"


def _shed(pool: PoolView) -> str:
    return f"{pool.shed_1m / pool.requests_1m:.1%}" if pool.requests_1m else "-"


_STATUS: tuple[Column[PoolView], ...] = (
    Column("POOL", lambda p: text(p.pool)),
    Column("OPEN", lambda p: f"{p.open}/{p.replicas}"),
    Column("SLOTS", lambda p: count(p.open_slots)),
    Column("WITHHELD", _withheld),
    Column("IN-FLIGHT", lambda p: count(p.inflight)),
    Column("QUEUED", lambda p: count(p.queued)),
    Column("REQUESTS 1m", lambda p: count(p.requests_1m)),
    Column("SHED 1m", _shed),
)
