"""trimtab/runtime/otlp: what becomes of an export."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

from tests.fakes.dice import Loaded
from trimtab import trace
from trimtab.runtime import otlp
from trimtab.runtime.otlp import Exporter, ExportError
from trimtab.runtime.otlp_settings import Otlp

AGAIN, NEVER = ExportError("busy", passing=True), ExportError("no", passing=False)
SPAN = trace.Span("it", trace.Kind.SERVER, trace.begin("", "", 7), 1, 0, 1.0, 2.0, False, ())


class Scripted:
    """Answers as it is told, then well."""

    def __init__(self, answers: Sequence[ExportError | int]) -> None:
        self._answers = iter(answers)
        self.asked = 0

    async def send(self, _signal: str, _request: Any) -> Any:
        """The next answer; a number is of spans that it refuses."""
        self.asked += 1
        answer = next(self._answers, 0)
        if isinstance(answer, ExportError):
            raise answer
        made = ExportTraceServiceResponse()
        made.partial_success.rejected_spans = answer
        return made


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(otlp, "BACKOFF_S", (0.0, 0.0))


@pytest.mark.parametrize(
    ("answers", "asked", "counted"),
    [
        ([0], 1, {"sent": 3}),
        ([2], 1, {"sent": 1, "refused": 2}),
        ([99], 1, {"refused": 3}),
        ([AGAIN, AGAIN], 3, {"sent": 3}),
        ([AGAIN] * 9, otlp.TRIES, {"failed": 3}),
        ([NEVER], 1, {"failed": 3}),
    ],
)
async def test_what_becomes_of_a_batch(
    answers: list[ExportError | int], asked: int, counted: dict[str, int]
) -> None:
    way, found = Scripted(answers), Counter[str]()
    exporter = _exporter(way, found)
    batch = exporter.batch()
    for _ in range(3):
        batch.add(SPAN)
    await exporter.traces(batch)
    assert (way.asked, +found) == (asked, counted)


async def test_it_is_said_once_that_it_fails_and_once_that_it_works_again(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO")
    exporter = _exporter(Scripted([NEVER, NEVER, NEVER]), Counter())
    for _ in range(5):
        await exporter.traces(exporter.batch())
    assert [r.message.rpartition(" ")[2] for r in caplog.records] == ["nothing", "again"]


async def test_a_bug_in_what_is_told_ends_nobody(caplog: pytest.LogCaptureFixture) -> None:
    found = Counter[str]()
    exporter = _exporter(Scripted([]), found)

    async def bug() -> None:
        raise KeyError("bug")

    for _ in range(2):
        await exporter.safely("traces", bug())
    assert (found["failed"], len(caplog.records)) == (2, 1)
    with pytest.raises(asyncio.CancelledError):
        await exporter.safely("traces", _cancelled())


async def _cancelled() -> None:
    raise asyncio.CancelledError


def _exporter(way: Scripted, found: Counter[str]) -> Exporter:
    def count(_signal: str, result: str, number: int) -> None:
        found[result] += number

    return Exporter(way, Otlp("http://x:1"), Loaded(0.0), count)
