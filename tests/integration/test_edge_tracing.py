"""Traces of an edge at a real OTLP receiver: who joins whom, and what is never told."""

from __future__ import annotations

import pathlib
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

import aiohttp
import grpc
import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status
from prometheus_client.openmetrics import parser as openmetrics

from controlplane.metrics import ControlMetrics, Numbers
from edge import exporting
from tests.fakes.certificates import Authority, Files
from tests.fakes.edge import KEY, MODEL, running_edge
from tests.fakes.otlp import Receiver, grpc_receiver, http_receiver
from tests.fakes.replay import ReplayEngine, replay_engine
from tests.fakes.scripted_engine import scripted_engine
from tests.fakes.wait import until
from trimtab import catalogue
from trimtab.model import Serving
from trimtab.runtime import telemetry
from trimtab.runtime.otlp_settings import Otlp
from trimtab.runtime.tasks import TaskRunner

CHAT = "/v1/chat/completions"
TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
SAMPLED, UNSAMPLED = f"00-{TRACE}-{PARENT}-01", f"00-{TRACE}-{PARENT}-00"
CANARY = "xyzzy-canary"
ASKED: dict[str, Any] = {"model": MODEL, "messages": [{"role": "user", "content": CANARY}]}
STREAMED = ASKED | {"stream": True, "replay": "chat-stream"}
BROKEN = ASKED | {"replay": "drain-new-chat-nonstream"}
SERVER = f"POST {CHAT}"
RESOURCE = {"service.name": "trimtab-edge"}


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exporting, "PERIOD_S", 0.02)


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async with grpc_receiver() as running:
        yield running


@pytest.fixture
async def engine() -> AsyncIterator[ReplayEngine]:
    async with replay_engine() as running:
        yield running


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(headers={"authorization": f"Bearer {KEY}"}) as session:
        yield session


def facts(span: Span) -> dict[str, Any]:
    pairs = ((pair.key, pair.value) for pair in span.attributes)
    return {name: getattr(value, value.WhichOneof("value") or "") for name, value in pairs}


async def ask(
    http: aiohttp.ClientSession, url: str, fields: dict[str, Any], parent: str = ""
) -> tuple[int, str]:
    """Status, and the trace that the answer names."""
    said = {"traceparent": parent, "tracestate": "a=1"} if parent else {}
    async with http.post(url + CHAT, json=fields, headers=said) as answer:
        await answer.read()
        return answer.status, answer.headers.get("x-trace-id", "")


async def post(http: aiohttp.ClientSession, url: str, fields: dict[str, Any]) -> int:
    async with http.post(url, json=fields) as answer:
        await answer.read()
        return answer.status


def heard(engine: ReplayEngine) -> list[dict[str, str]]:
    """The headers that it was sent."""
    return [dict(received.headers) for received in engine.received]


@pytest.mark.parametrize("way", [grpc_receiver, http_receiver])
async def test_one_trace_from_the_caller_to_the_engine(
    http: aiohttp.ClientSession,
    engine: ReplayEngine,
    way: Callable[[], AbstractAsyncContextManager[Receiver]],
) -> None:
    async with way() as receiver:
        otlp = Otlp(receiver.url, way is http_receiver, headers={"x-a": "b"}, resource=RESOURCE)
        async with running_edge([engine.url], otlp=otlp) as edge:
            assert await ask(http, edge.url, STREAMED, SAMPLED) == (200, TRACE)
            await until(lambda: len(receiver.spans) == 2)
    server, client = receiver.spans
    assert {span.trace_id.hex() for span in receiver.spans} == {TRACE}
    assert (server.name, server.parent_span_id.hex()) == (SERVER, PARENT)
    assert (client.name, client.parent_span_id) == (f"chat {MODEL}", server.span_id)
    [sent] = heard(engine)
    assert sent["traceparent"] == f"00-{TRACE}-{client.span_id.hex()}-01"
    assert sent["tracestate"] == server.trace_state == "a=1"
    assert server.start_time_unix_nano <= client.start_time_unix_nano
    assert client.end_time_unix_nano <= server.end_time_unix_nano
    assert [event.name for event in server.events] == ["trimtab.first_data"]
    assert facts(client)["gen_ai.usage.output_tokens"] > 0
    [whose] = receiver.traces[0].resource_spans
    assert whose.resource.attributes[0].value.string_value == "trimtab-edge"
    assert receiver.headers[0]["x-a"] == "b"


@pytest.mark.parametrize("way", [grpc_receiver, http_receiver])
async def test_an_encrypted_receiver_of_ones_own_authority(
    tmp_path: pathlib.Path,
    http: aiohttp.ClientSession,
    engine: ReplayEngine,
    way: Callable[[Files], AbstractAsyncContextManager[Receiver]],
) -> None:
    authority = Authority("the lab's")
    ca = str(authority.write(tmp_path / "ca.crt"))
    async with way(authority.issue(tmp_path / "it", "127.0.0.1")) as receiver:
        otlp = Otlp(receiver.url, way is http_receiver, ca=ca)
        async with running_edge([engine.url], otlp=otlp) as edge:
            assert (await ask(http, edge.url, ASKED))[0] == 200
            await until(lambda: len(receiver.spans) == 2)


async def test_a_new_trace_begins_where_the_callers_is_wrong(
    http: aiohttp.ClientSession, engine: ReplayEngine, receiver: Receiver
) -> None:
    async with running_edge([engine.url], otlp=Otlp(receiver.url)) as edge:
        _, begun = await ask(http, edge.url, ASKED, f"00-{'0' * 32}-{PARENT}-01")
        await until(lambda: len(receiver.spans) == 2)
    [sent] = heard(engine)
    assert sent["traceparent"].split("-")[1] == begun != TRACE
    assert "tracestate" not in sent
    assert receiver.spans[0].parent_span_id == b""


async def test_each_attempt_is_a_span_of_its_own(
    http: aiohttp.ClientSession, engine: ReplayEngine, receiver: Receiver
) -> None:
    async with running_edge([engine.url, engine.url], otlp=Otlp(receiver.url)) as edge:
        assert await ask(http, edge.url, BROKEN, SAMPLED) == (502, TRACE)
        await until(lambda: len(receiver.spans) == 3)
    server, first, second = receiver.spans
    assert server.status.code == first.status.code == Status.STATUS_CODE_ERROR
    assert [facts(span)["trimtab.attempt.why"] for span in (first, second)] == ["first", "retry"]
    assert {facts(span)["trimtab.replica"] for span in (first, second)} == {"r0", "r1"}
    assert facts(second)["http.request.resend_count"] == 1
    parents = [sent["traceparent"].split("-")[2] for sent in heard(engine)]
    assert parents == [first.span_id.hex(), second.span_id.hex()]


async def test_a_stream_that_goes_on_elsewhere_is_one_trace(
    http: aiohttp.ClientSession, receiver: Receiver
) -> None:
    async with (
        scripted_engine("a") as first,
        scripted_engine("b") as second,
        running_edge([first.url, second.url], otlp=Otlp(receiver.url)) as edge,
        TaskRunner() as runner,
    ):
        first.last.clear()
        edge.set_serving("r1", Serving.CLOSED)
        body = {"model": MODEL, "prompt": CANARY, "stream": True}
        asking = runner.once("ask", post(http, edge.url + "/v1/completions", body))
        await until(lambda: any(job.started for job in edge.proxy.live.values()))
        edge.set_serving("r1", Serving.OPEN)
        edge.set_serving("r0", Serving.LOST)
        assert await asking == 200
        await until(lambda: len(receiver.named(f"text_completion {MODEL}")) == 2)
    before, after = receiver.named(f"text_completion {MODEL}")
    assert facts(before)["error.type"] == "lost"
    assert facts(after)["trimtab.attempt.why"] == "continuation"
    assert facts(after)["trimtab.attempt.continued_at_tokens"] == 2
    sent = [e.headers[-1]["traceparent"] for e in (first, second)]
    trace = receiver.spans[0].trace_id.hex()
    assert sent == [f"00-{trace}-{span.span_id.hex()}-01" for span in (before, after)]
    assert CANARY.encode() not in receiver.traces[0].SerializeToString()


async def test_what_is_not_sampled_is_told_only_if_it_stands_out(
    http: aiohttp.ClientSession, engine: ReplayEngine, receiver: Receiver
) -> None:
    otlp = Otlp(receiver.url, ratio=0.0)
    async with running_edge([engine.url, engine.url], otlp=otlp) as edge:
        assert await ask(http, edge.url, ASKED, UNSAMPLED) == (200, TRACE)
        assert (await ask(http, edge.url, ASKED))[0] == 200
        status, broken = await ask(http, edge.url, BROKEN)
        assert status == 502
        await until(lambda: bool(receiver.spans))
    assert {span.trace_id.hex() for span in receiver.spans} == {broken}
    assert [sent["traceparent"][-2:] for sent in heard(engine)] == ["00"] * 4


async def test_no_word_of_content_or_keys(
    http: aiohttp.ClientSession, engine: ReplayEngine, receiver: Receiver
) -> None:
    settings = Otlp(receiver.url, metrics_period_s=0.2)
    async with running_edge([engine.url, engine.url], otlp=settings) as edge:
        for fields in (ASKED, STREAMED, BROKEN, ASKED | {"replay": "err-missing-messages"}):
            await ask(http, edge.url, fields, SAMPLED)
        await ask(http, edge.url, ASKED | {"model": CANARY})
        await until(lambda: len(receiver.named(SERVER)) >= 4 and bool(receiver.metrics))
    told = b"".join(each.SerializeToString() for each in [*receiver.traces, *receiver.metrics])
    assert MODEL.encode() in told
    assert CANARY.encode() not in told
    assert KEY.encode() not in told
    answer = await _answered(http, engine)
    assert answer
    assert answer.encode() not in told


async def _answered(http: aiohttp.ClientSession, engine: ReplayEngine) -> str:
    async with http.post(engine.url + CHAT, json=ASKED) as answer:
        return str((await answer.json())["choices"][0]["message"]["content"])


@pytest.mark.parametrize("way", [grpc_receiver, http_receiver])
async def test_a_receiver_that_is_down_harms_no_request(
    http: aiohttp.ClientSession,
    engine: ReplayEngine,
    way: Callable[[], AbstractAsyncContextManager[Receiver]],
) -> None:
    async with way() as receiver:
        receiver.refuses = grpc.StatusCode.UNAVAILABLE
        otlp = Otlp(receiver.url, way is http_receiver)
        async with running_edge([engine.url], otlp=otlp) as edge:
            assert (await ask(http, edge.url, ASKED))[0] == 200
            await until(lambda: receiver.refused > 0)
            assert (await ask(http, edge.url, ASKED))[0] == 200
            receiver.refuses = None
            await until(lambda: len(receiver.named(SERVER)) == 2)


async def test_a_scrape_in_openmetrics_names_traces(
    http: aiohttp.ClientSession, engine: ReplayEngine, receiver: Receiver
) -> None:
    asks = {"accept": "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5"}
    async with running_edge([engine.url], otlp=Otlp(receiver.url)) as edge:
        await ask(http, edge.url, STREAMED, SAMPLED)
        await until(lambda: len(receiver.spans) == 2)
        async with http.get(f"{edge.admin_url}/metrics", headers=asks) as page:
            kind, text = page.content_type, await page.text()
        async with http.get(f"{edge.admin_url}/metrics") as page:
            assert (page.content_type, TRACE in await page.text()) == ("text/plain", False)
    assert kind == "application/openmetrics-text"
    read: Any = openmetrics.text_string_to_metric_families
    named = {
        family.name
        for family in read(text)
        for sample in family.samples
        if sample.exemplar and sample.exemplar.labels["trace_id"] == TRACE
    }
    assert named == {
        f"trimtab_edge_{n}_seconds" for n in ("request_duration", "time_to_first_token")
    }


async def test_control_planes_tell_their_metrics(receiver: Receiver) -> None:
    numbers: Numbers = {catalogue.CONTROLPLANE_LEADER: {(): 1.0}}
    settings = Otlp(receiver.url, metrics_period_s=0.05)
    async with telemetry.told(settings, ControlMetrics(lambda: numbers)):
        await until(lambda: bool(receiver.metrics))
    [point] = receiver.metric("trimtab_controlplane_leader").gauge.data_points
    assert point.as_double == 1.0


async def test_metrics_go_there_too_and_name_traces(
    http: aiohttp.ClientSession, engine: ReplayEngine, receiver: Receiver
) -> None:
    settings = Otlp(receiver.url, metrics_period_s=0.2)
    async with running_edge([engine.url], otlp=settings) as edge:
        await ask(http, edge.url, ASKED, SAMPLED)
        name = "trimtab_edge_request_duration_seconds"

        def exemplars() -> list[Any]:
            points = receiver.metric(name).histogram.data_points if receiver.metrics else []
            return [exemplar for point in points for exemplar in point.exemplars]

        await until(lambda: bool(exemplars()))
        [point] = receiver.metric(name).histogram.data_points
        assert (point.count, point.attributes[0].value.string_value) == (1, MODEL)
        assert exemplars()[0].trace_id.hex() == TRACE
