"""What a simulation found, as one screen: the answer first, then the figures, then what to mind.

Rules: a figure stands beside the one that was measured, always; where the model misses what was
measured, no change is shown.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable

import msgspec

from ctl.columns import text
from ctl.options import Format
from ctl.render import API_VERSION, Table, plain
from trimtab.whatif import Figures, Found, Nearness

ABSENT = "—"
_VERDICTS = {
    Nearness.NEAR: "The model is near what was measured.",
    Nearness.ROUGH: "The model is rough: believe the direction of a change, not its size.",
    Nearness.OFF: "The model misses what was measured, so it says nothing about a change.",
}
_ADVICE = """\
Next: did replicas come, go, fail or slow down in that time (ctl events)? Try a time in which none
did, like --last 10m; a pool of unequal engines can't be simulated."""
_ROWS: tuple[tuple[str, Callable[[Figures], str]], ...] = (
    ("requests", lambda f: f"{f.requests}"),
    ("served", lambda f: _ratio(f.served, f)),
    ("refused", lambda f: _ratio(f.refused, f)),
    ("left by their callers", lambda f: _ratio(f.left, f)),
    ("failed", lambda f: _ratio(f.failed, f)),
    ("first token, p50", lambda f: _seconds(f.first_p50_s)),
    ("first token, p95", lambda f: _seconds(f.first_p95_s)),
    ("first token, p99", lambda f: _seconds(f.first_p99_s)),
    ("whole answer, p50", lambda f: _seconds(f.whole_p50_s)),
    ("whole answer, p95", lambda f: _seconds(f.whole_p95_s)),
    ("tokens a second", lambda f: f"{f.tokens_per_s:.0f}"),
    ("slots in use", lambda f: f"{100 * f.busy_ratio:.0f} %"),
)
_SELDOM = frozenset({"left by their callers", "failed"})
NONE = "0.0 %"


def read(answer: bytes) -> Found:
    """What the simulator said."""
    return msgspec.json.decode(answer, type=Found)


def is_usable(found: Found) -> bool:
    """Whether it says anything."""
    return found.nearness is not Nearness.OFF


def document(found: Found, form: Format) -> str:
    """The same for programs."""
    fields = msgspec.to_builtins(found)
    return plain({"apiVersion": API_VERSION, "kind": "Simulation", **fields}, form)


def told(found: Found, draw: Callable[[Table], str]) -> str:
    """One screen."""
    until = datetime.datetime.fromtimestamp(found.began_ms / 1000 + found.span_s).astimezone()
    lines = [_headline(found), ""]
    lines += [
        f"{text(found.pool)}, the {found.span_s / 60:.0f} min until {until:%m-%d %H:%M}:"
        f" {_number(found.replicas, 'replica')}, {_number(found.edges, 'edge')}",
        "",
    ]
    lines += [*draw(_table(found)).splitlines(), "", _VERDICTS[found.nearness]]
    lines += [f"  - {text(remark)}" for remark in found.remarks]
    lines += [] if is_usable(found) else ["", _ADVICE]
    return "".join(f"{line}\n" for line in lines)


def _headline(found: Found) -> str:
    if not is_usable(found):
        return "No answer: the model does not behave as the fleet did."
    if found.changed is None:
        return "As it is; say what to change, like --replicas +1."
    was, now = found.model, found.changed
    moved = [
        _moved("first token p95", _seconds(was.first_p95_s), _seconds(now.first_p95_s)),
        _moved("refused", _ratio(was.refused, was), _ratio(now.refused, now)),
        _moved("tokens a second", f"{was.tokens_per_s:.0f}", f"{now.tokens_per_s:.0f}"),
    ]
    said = ", ".join(filter(None, moved)) or "nothing changes that one would feel"
    return f"With {text(' and '.join(found.change))}: {said}."


def _moved(what: str, was: str, now: str) -> str:
    unit = was.partition(" ")[2]
    same_unit = unit and unit == now.partition(" ")[2]
    shown = was.partition(" ")[0] if same_unit else was
    return "" if was == now else f"{what} {shown} → {now}"


def _table(found: Found) -> Table:
    columns = [("measured", found.measured), ("model", found.model)]
    columns += [("changed", found.changed)] if found.changed else []
    rows = [(name, *(show(figures) for _, figures in columns)) for name, show in _ROWS]
    shown = tuple(row for row in rows if row[0] not in _SELDOM or set(row[1:]) != {NONE})
    return Table(("", *(title for title, _ in columns)), shown)


def _ratio(part: int, figures: Figures) -> str:
    return f"{100 * part / figures.requests:.1f} %" if figures.requests else ABSENT


def _seconds(value: float | None) -> str:
    if value is None:
        return ABSENT
    return f"{value:.2f} s" if value < 10 else f"{value:.1f} s"


def _number(count: int, noun: str) -> str:
    return f"{count} {noun}{'s' * (count != 1)}"
