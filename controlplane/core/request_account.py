"""How one request went, told from the decision record that its edge kept.

Rules: the record is an edge's word, perhaps of another version: what it lacks is left out, and no
text of it is taken for more than a word. The headline is how it ended, and why.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import msgspec

from controlplane.core.bounds import clip
from controlplane.core.looks import span
from trimtab.views import Account, Concern, EdgeRecord, Finding, Step

CANDIDATES_SHOWN = 8
_FAULTS = {
    "status": "an error",
    "empty": "an empty stream",
    "aborted": "the engine aborted it",
    "cut": "the connection was cut",
    "refused": "nothing listened",
    "unreachable": "no connection",
    "stale": "a kept connection was closed",
    "silent": "nothing came in time",
    "lost": "the control plane said that it is lost",
    "malformed": "no readable answer",
    "client_gone": "the caller left",
    "outrun": "another attempt was faster",
    "late": "its time was up",
}


class Candidate(msgspec.Struct):
    """A replica that could have been picked."""

    replica: str
    inflight: int = 0
    slots: int = 0
    waiting: int = 0
    penalty_slots: float = 0.0
    score: float = 0.0


class Attempt(msgspec.Struct):
    """One try."""

    replica: str
    picked_ms: int
    ended_ms: int
    outcome: str
    fault: str = ""
    status: int = 0
    at_home: bool | None = None
    continued_at_tokens: int | None = None
    tokens: int = 0
    among: list[Candidate] = []


class Record(msgspec.Struct):
    """What an edge tells; see docs/architecture.md."""

    request_id: str
    pool: str
    tenant: str
    urgency: str = "default"
    came_ms: int = 0
    caller_id: str = ""
    path: str = ""
    stream: bool = False
    prompt_tokens: int = 0
    predicted_wait_ms: int | None = None
    wait_budget_ms: int | None = None
    waited_ms: int = 0
    attempts: list[Attempt] = []
    not_continued: str = ""
    outside: bool = False
    first_byte_ms: int | None = None
    ended_ms: int = 0
    outcome: str = ""
    status: int = 0
    code: str = ""
    retry_after_ms: int | None = None


def read(content: bytes) -> Record | None:
    """An edge's record; None if it can't be read."""
    try:
        return msgspec.json.decode(content, type=Record)
    except (msgspec.ValidationError, msgspec.DecodeError):
        return None


def tell(found: Sequence[tuple[Record, EdgeRecord]]) -> Account:
    """The newest of what edges have of it; there is at least one."""
    record, source = max(found, key=lambda pair: pair[0].came_ms)
    steps = sorted(_steps(record), key=lambda step: step.after_ms)
    fine = record.outcome == "ok"
    return Account(
        subject="request",
        name=record.request_id,
        headline=f"{clip(record.request_id)} {_ending(record)}",
        concern=Concern.FINE if fine else Concern.LIMITS,
        findings=tuple(_findings(record, source.edge)),
        steps=tuple(steps),
        advice=tuple(_advice(record)),
        records=tuple(edge_record for _, edge_record in found),
    )


def _ending(record: Record) -> str:
    took = f"after {ms(record.ended_ms)}"
    if record.outcome == "ok":
        return f"was answered {_by(record)} {took}{_how(record)}"
    if record.outcome == "client_disconnect":
        where = _by(record) or "while it waited"
        return f"was left by its caller {took}, {where.replace('by ', 'on ')}{_how(record)}"
    told = f"{record.status} {clip(record.code)}".strip()
    if record.outcome == "shed":
        return f"was refused with {told} {took}: {_why_refused(record)}"
    if record.outcome == "client_error":
        return f"was turned down with {told} {took}: the request itself is at fault"
    last = record.attempts[-1] if record.attempts else None
    why = f": {_fault(last)} on {clip(last.replica)}" if last else ""
    return f"failed with {told or record.outcome} {took}{_how(record)}{why}"


def _why_refused(record: Record) -> str:
    if record.code == "no_replica_available":
        return f"no replica of {clip(record.pool)} was open"
    if record.predicted_wait_ms is None or record.wait_budget_ms is None:
        return f"{clip(record.pool)} was full"
    wait, budget = ms(record.predicted_wait_ms), ms(record.wait_budget_ms)
    if record.predicted_wait_ms > record.wait_budget_ms:
        return f"it would have waited {wait} for {clip(record.pool)}, and {budget} is allowed"
    return f"it waited {ms(record.waited_ms)} for {clip(record.pool)} in vain"


def _by(record: Record) -> str:
    return f"by {clip(record.attempts[-1].replica)}" if record.attempts else ""


def _how(record: Record) -> str:
    parts = []
    if record.first_byte_ms is not None:
        parts.append(f"first token after {ms(record.first_byte_ms)}")
    if record.waited_ms >= 1:
        parts.append(f"{ms(record.waited_ms)} in the queue")
    if len(record.attempts) > 1:
        parts.append(f"{len(record.attempts)} attempts")
    return f" ({', '.join(parts)})" if parts else ""


def _fault(attempt: Attempt) -> str:
    status = f" {attempt.status}" if attempt.status not in {0, 200} else ""
    fault = _FAULTS.get(attempt.fault, clip(attempt.fault) or "an answer")
    return f"{fault}{status}, which is {attempt.outcome.upper()}"


def _findings(record: Record, edge: str) -> Iterator[Finding]:
    kind = "stream" if record.stream else "plain"
    prompt = f", prompt about {record.prompt_tokens:,} tokens" if record.prompt_tokens else ""
    path = f"{clip(record.path)} {kind}" if record.path else kind
    text = f"{path} for {clip(record.pool)}{prompt}"
    yield Finding(Concern.FINE, "asked", text)
    yield Finding(Concern.FINE, "by", f"tenant {clip(record.tenant)}, {record.urgency}")
    called = f", called {clip(record.caller_id)} by its caller" if record.caller_id else ""
    yield Finding(Concern.FINE, "edge", f"{edge}{called}")


def _steps(record: Record) -> Iterator[Step]:
    if record.predicted_wait_ms is None or record.wait_budget_ms is None:
        yield Step(0, "came", "no queue: no replica was open, or it takes no slot")
    else:
        wait, budget = ms(record.predicted_wait_ms), ms(record.wait_budget_ms)
        refused = record.outcome == "shed" and not record.attempts
        verdict = "refused" if refused and not record.waited_ms else "admitted"
        yield Step(0, verdict, f"a wait of {wait} was predicted, {budget} allowed")
    for number, attempt in enumerate(record.attempts, 1):
        yield Step(attempt.picked_ms, "pick", _pick(attempt))
        yield Step(attempt.ended_ms, f"attempt {number}", _attempt(attempt))
    if record.first_byte_ms is not None:
        yield Step(record.first_byte_ms, "first token", "the caller has the beginning")
    if record.not_continued:
        yield Step(record.ended_ms, "not continued", clip(record.not_continued))
    told = f"{record.status} {clip(record.code)}".strip() if record.status else "nothing was told"
    again = f", come back in {ms(record.retry_after_ms)}" if record.retry_after_ms else ""
    yield Step(record.ended_ms, "end", f"{record.outcome}: {told}{again}")


def _pick(attempt: Attempt) -> str:
    if not attempt.among:
        return f"{clip(attempt.replica)}, without a choice"
    home = {True: " (its home)", False: " (away from its home)", None: ""}[attempt.at_home]
    shown = [_candidate(candidate) for candidate in attempt.among[:CANDIDATES_SHOWN]]
    more = len(attempt.among) - len(shown)
    rest = f" | {more} more" if more > 0 else ""
    return f"{clip(attempt.replica)}{home} of [{' | '.join(shown)}{rest}]"


def _candidate(one: Candidate) -> str:
    load = f"{one.inflight}"
    load += f"+{one.waiting} waiting" if one.waiting else ""
    load += f"+{one.penalty_slots:g} aversion" if one.penalty_slots else ""
    room = "" if one.inflight < one.slots else ", no room"
    return f"{clip(one.replica)} score {one.score:.2f} ({load} of {one.slots}{room})"


def _attempt(attempt: Attempt) -> str:
    took = ms(attempt.ended_ms - attempt.picked_ms)
    tokens = f", {attempt.tokens:,} tokens" if attempt.tokens else ""
    rest = attempt.continued_at_tokens
    again = f", the rest after {rest:,} tokens" if rest is not None else ""
    if attempt.outcome == "ok":
        return f"{clip(attempt.replica)}: OK in {took}{tokens}{again}"
    harmless = {"overload": " (breaker unaffected)", "client": " (nobody's fault)"}
    mark = harmless.get(attempt.outcome, "")
    return f"{clip(attempt.replica)}: {_fault(attempt)}{mark} in {took}{tokens}{again}"


def _advice(record: Record) -> Iterator[str]:
    if record.outcome == "shed":
        yield f"ctl explain model {record.pool}"
        yield f"ctl explain tenant {record.tenant}"
    for name in dict.fromkeys(a.replica for a in record.attempts if a.outcome in {"soft", "hard"}):
        yield f"ctl explain replica {name}"


def ms(milliseconds: int) -> str:
    """A length of time."""
    return f"{milliseconds} ms" if milliseconds < 1_000 else span(milliseconds / 1000)
