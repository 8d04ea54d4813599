"""Explanations and events as text: pure functions.

Rules: the first line is the answer; times are local; what a peer said is printed safely; what an
event was judged by is told as far as it says something (the data formats have all of it).
"""

from __future__ import annotations

import datetime
import itertools

from ctl.columns import text
from trimtab.views import Account, Explanation, Finding, FleetEvent

_NOTHING = frozenset({"0", "False"})
_ELSEWHERE = frozenset({"node", "intent", "breaker", "epoch", "state_age_ms"})


def explanation(found: Explanation) -> str:
    """One screen: the answer, what it means, every look, what happened, what to do."""
    lines = [text(found.headline), ""]
    lines += [f"  traffic  {text(found.traffic)}", f"  pool     {text(found.effect)}", ""]
    lines += findings(found.findings)
    if found.events:
        lines += ["", "LATELY", *(f"  {event(one, about=False)}" for one in found.events)]
    if found.advice:
        lines += ["", "TRY", *(f"  {text(hint)}" for hint in found.advice)]
    return "".join(f"{line}\n" for line in lines)


def event(happened: FleetEvent, *, about: bool = True) -> str:
    """One event: when, about what, what, and what it was judged by."""
    when = datetime.datetime.fromtimestamp(happened.at_ms / 1000).astimezone()
    parts = [when.strftime("%m-%d %H:%M:%S"), text(happened.about) if about else ""]
    parts += [text(happened.what), text(happened.text) if happened.text else ""]
    facts = [d for d in happened.details if d.value not in _NOTHING and d.name not in _ELSEWHERE]
    details = ", ".join(f"{text(d.name)}={text(d.value)}" for d in facts)
    parts.append(f"({details})" if details else "")
    return "  ".join(filter(None, parts))


def findings(found: tuple[Finding, ...]) -> list[str]:
    """What was looked at, by how much it matters."""
    lines = []
    for concern, group in itertools.groupby(found, lambda finding: finding.concern):
        title = concern.name
        for finding in group:
            lines.append(f"{title:<8} {text(finding.what):<8} {text(finding.text)}".rstrip())
            title = ""
    return lines


def account(found: Account) -> str:
    """One screen: the answer, a request's steps in order, every look, what to do."""
    lines = [text(found.headline), ""]
    lines += [f"  {_after(s.after_ms):>9}  {text(s.what):<12} {text(s.text)}" for s in found.steps]
    lines += [""] if found.steps else []
    lines += findings(found.findings)
    if found.advice:
        lines += ["", "TRY", *(f"  {text(hint)}" for hint in found.advice)]
    return "".join(f"{line}\n" for line in lines)


def _after(milliseconds: int) -> str:
    return f"+{milliseconds} ms" if milliseconds < 1_000 else f"+{milliseconds / 1000:.2f} s"
