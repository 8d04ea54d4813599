"""What this edge tells the control plane when it is asked, in parts.

Rules: each kind of question (proto/trimtab/v1/question.proto) has one teller, which gives the whole
answer at once; what it raises as ValueError is for people; no prompt, answer or key is told.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial

from edge import recall
from edge.core import decisions, openai, told
from edge.core.arrivals import Arrivals
from edge.core.decisions import LATEST_MAX, Decisions
from edge.core.dispatch import Dispatch
from trimtab.codec import encode
from trimtab.runtime import clock
from trimtab.runtime.listener_tls import ListenerTls
from trimtab.runtime.own_facts import own_facts
from trimtab.v1.question_pb2 import EdgeAnswer, EdgeQuestion

PART_BYTES = 1024 * 1024
Teller = Callable[[str], bytes]


def tellers(
    kept: Decisions, arrivals: Arrivals, dispatch: Dispatch, tls: ListenerTls | None = None
) -> dict[str, Teller]:
    """What an edge can tell, by the kind of question."""

    def decision(request_id: str) -> bytes:
        record = kept.get(request_id) or kept.called(request_id)
        return openai.encode(decisions.view(record)) if record else b""

    def tenant(name: str) -> bytes:
        now_s = clock.now_s()
        records = told.lately(kept.newest(LATEST_MAX), now_s)
        return _bytes(told.tenant(name, records, dispatch.queues(), now_s))

    def replica(name: str) -> bytes:
        now_s = clock.now_s()
        return _bytes(told.replica(name, told.lately(kept.newest(LATEST_MAX), now_s), now_s))

    return {
        "decision": decision,
        "tenant": tenant,
        "replica": replica,
        "arrivals": partial(recall.arrivals, arrivals),
        "process": lambda _: _bytes(own_facts(tls.expires_s if tls else None)),
    }


def _bytes(value: object) -> bytes:
    found: bytes = encode(value).SerializeToString()
    return found


def answers(known: Mapping[str, Teller], question: EdgeQuestion) -> Iterator[EdgeAnswer]:
    """The answer to one question."""
    teller = known.get(question.kind)
    content, error = b"", f"this edge knows no question of the kind {question.kind!r}"
    if teller is not None:
        try:
            content, error = teller(question.argument), ""
        except ValueError as wrong:
            error = str(wrong)
    if len(content) > question.limit_bytes:
        error = f"the answer has {len(content)} bytes, and may have {question.limit_bytes}"
        content = b""
    for start in range(0, len(content), PART_BYTES):
        yield EdgeAnswer(id=question.id, content=content[start : start + PART_BYTES], more=True)
    yield EdgeAnswer(id=question.id, error=error)
