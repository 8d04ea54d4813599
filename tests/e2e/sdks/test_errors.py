"""The error contract (docs/errors.md) as the users of the official SDKs meet it.

Of each situation: the exception and what is in it, how many requests the edge saw, and that none
came sooner than the answer before it had said.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from itertools import pairwise

import pytest

from tests.e2e.sdks.speakers import Question, Speaker, Told
from tests.fakes.edge import MODEL, EdgeUnderTest, running_edge
from tests.fakes.fragile import FAILS, fragile_engine
from tests.fakes.local_engine import LocalEngine, local_engine
from tests.fakes.short_times import shorten
from trimtab.model import EdgePolicy, Serving

pytestmark = pytest.mark.timeout(180)  # npm may install first
CONTEXT_TOKENS = 100
NAMES = {
    400: "BadRequestError",
    401: "AuthenticationError",
    404: "NotFoundError",
    413: "APIStatusError",
    422: "UnprocessableEntityError",
}
NODE_NAMES = NAMES | {413: "APIError"}
ANTHROPIC_NAMES = NAMES | {
    413: "ContentTooLargeError",
    503: "ServiceUnavailableError",
    504: "GatewayTimeoutError",
    529: "OverloadedError",
}
ANTHROPIC_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    404: "not_found_error",
    413: "request_too_large",
    502: "api_error",
    503: "overloaded_error",
    504: "timeout_error",
    529: "overloaded_error",
}
ENGINES_OWN = "BadRequestError"


@dataclass(slots=True)
class Scene:
    """An edge before its engines."""

    edge: EdgeUnderTest
    engine: LocalEngine


Arrange = Callable[[Scene], Awaitable[None]]


async def healthy(_: Scene) -> None:
    """As it is."""


def fault(**faults: object) -> Arrange:
    async def arrange(scene: Scene) -> None:
        await scene.engine.fault(**faults)

    return arrange


async def closed(scene: Scene) -> None:
    scene.edge.set_serving("r0", Serving.CLOSED)


@dataclass(frozen=True, slots=True)
class Row:
    """One row of the contract."""

    name: str
    status: int
    code: str
    says: str
    question: Question = field(default_factory=Question)
    arrange: Arrange = healthy
    policy: EdgePolicy = field(default_factory=EdgePolicy)
    slots: int = 8
    tries: int = 1
    type: str = "invalid_request_error"
    param: str | None = None


ROWS = [
    Row("unknown key", 401, "invalid_api_key", "sk-…wxyz", Question(key="sk-" + 20 * "x" + "wxyz")),
    Row(
        *("unknown model", 404, "model_not_found", "Did you mean 'demo'? Models served: "),
        question=Question(model="dmeo"),
        param="model",
    ),
    Row("bad JSON", 400, "invalid_json", "byte 16", Question(raw='{"model":"demo",}')),
    Row(
        *("too long an answer", 400, "context_length_exceeded", "200 output tokens"),
        question=Question(fields={"max_tokens": 200}),
        param="max_tokens",
    ),
    Row(
        *("too long a prompt", 400, "context_length_exceeded", "maximum context length is 100"),
        question=Question(prompt="hello " * 200),
        type=ENGINES_OWN,
        param="input_tokens",
    ),
    Row(
        *("large body", 413, "request_too_large", "larger than 1000 bytes"),
        question=Question(prompt="x" * 2_000),
        policy=EdgePolicy(body_limit_bytes=1_000),
    ),
    Row(
        *("fleet full", 503, "server_is_overloaded", "The fleet is full: 0 requests wait"),
        policy=EdgePolicy(queue_limit=0),
        slots=0,
        tries=3,
        type="service_unavailable_error",
    ),
    Row(
        *("nothing open", 503, "no_replica_available", "None of the 1 replicas"),
        arrange=closed,
        tries=3,
        type="service_unavailable_error",
    ),
    Row(
        *("engines full", 503, "server_is_overloaded", "Every replica was full"),
        arrange=fault(reject=True),
        tries=3,
        type="service_unavailable_error",
    ),
    Row(
        *("replica lost", 502, "replica_lost", "attempts: refused"),
        arrange=fault(refuse=True),
        tries=3,
        type="server_error",
    ),
    Row(
        *("replica failed", 502, "replica_error", "failed on this request"),
        arrange=fault(error_rate=1.0),
        tries=3,
        type="server_error",
    ),
    Row(
        *("silent replica", 504, "upstream_timeout", "nothing for 0.05 s, the idle timeout"),
        question=Question(retries=1, stream=True),  # what says no time is tried by the SDK's own
        policy=EdgePolicy(idle_timeout_ms=50),
        arrange=fault(freeze=True),
        tries=2,
        type="server_error",
    ),
]


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    """Nobody waits long, unless a test is about real times."""
    if "real_times" not in request.fixturenames:
        shorten(monkeypatch)


@pytest.fixture
def real_times() -> None:
    """Ask for what the product says."""


@asynccontextmanager
async def scene(row: Row) -> AsyncIterator[Scene]:
    async with (
        local_engine(max_model_len=CONTEXT_TOKENS) as engine,
        running_edge([engine.url], row.slots, row.policy) as edge,
    ):
        routes = [replace(r, max_model_len_tokens=CONTEXT_TOKENS) for r in edge.snapshot.routes]
        edge.push(replace(edge.snapshot, routes=tuple(routes)))
        here = Scene(edge, engine)
        await row.arrange(here)
        yield here


def waited_as_told(edge: EdgeUnderTest) -> bool:
    """No request came sooner than the answer before it had said."""
    return all(
        later.came_s - earlier.ended_s >= int(earlier.headers.get("retry-after-ms", 0)) / 1000
        for earlier, later in pairwise(edge.exchanges)
    )


def expected(speaker: Speaker, row: Row) -> Told:
    """What the SDK's user has to be told, but for the message and the request's id."""
    if speaker.name != "anthropic-python":
        names = NODE_NAMES if speaker.name == "openai-node" else NAMES
        error = names.get(row.status, "InternalServerError")
        return Told(error=error, status=row.status, code=row.code, type=row.type, param=row.param)
    status = 529 if row.code == "server_is_overloaded" else row.status
    kind = row.type if row.type == ENGINES_OWN else ANTHROPIC_TYPES[status]
    return Told(error=ANTHROPIC_NAMES.get(status, "InternalServerError"), status=status, type=kind)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
async def test_contract(speaker: Speaker, row: Row) -> None:
    wanted = expected(speaker, row)
    async with scene(row) as here:
        told = await speaker.ask(here.edge.url, row.question)
        exchanges = here.edge.exchanges
        assert [exchange.status for exchange in exchanges] == [wanted.status] * row.tries
        assert waited_as_told(here.edge)
        assert here.edge.dispatch.totals() == (0, 0)
    wanted.message, wanted.request_id = told.message, exchanges[-1].headers["x-request-id"]
    assert told == wanted
    assert row.says in told.message
    if row.tries == 1 and row.type != ENGINES_OWN:
        assert exchanges[0].headers["x-should-retry"] == "false"


async def test_a_prompt_that_breaks_engines_is_not_sent_a_third_time(speaker: Speaker) -> None:
    async with AsyncExitStack() as stack:
        urls = [(await stack.enter_async_context(fragile_engine())).url for _ in range(2)]
        edge = await stack.enter_async_context(running_edge(urls))
        told = await speaker.ask(edge.url, Question(prompt=FAILS.decode()))
        assert [exchange.status for exchange in edge.exchanges] == [502, 422]
        assert told.error == "UnprocessableEntityError"
        assert told.code in {"request_quarantined", None}
        assert "incident" in told.message


@pytest.mark.usefixtures("real_times")
async def test_who_is_told_to_wait_longer_than_usual_does(speaker: Speaker) -> None:
    row = Row("full", 503, "", "", policy=EdgePolicy(queue_limit=0), slots=0)
    async with scene(row) as here:
        await speaker.ask(here.edge.url, Question(retries=1))
        first, _ = here.edge.exchanges
        # all SDKs come back after at most half a second by themselves
        assert int(first.headers["retry-after-ms"]) >= 1000
        assert waited_as_told(here.edge)


async def test_models_and_ids(speaker: Speaker) -> None:
    async with scene(Row("well", 200, "", "")) as here:
        listed = (await speaker.ask(here.edge.url, Question(kind="models"))).text.split()
        assert listed[0] == listed[-1] == MODEL
        told = await speaker.ask(here.edge.url, Question())
        assert told.text
        assert told.request_id == here.edge.exchanges[-1].headers["x-request-id"]
