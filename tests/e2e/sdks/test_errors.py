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
        *("unknown model", 404, "model_not_found", "Did you mean 'demo'? Models served: demo"),
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
        type="BadRequestError",
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
        *("silent replica", 504, "upstream_timeout", "sent nothing for too long"),
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


def names_of(speaker: Speaker) -> dict[int, str]:
    return NODE_NAMES if speaker.name == "openai-node" else NAMES


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
async def test_contract(speaker: Speaker, row: Row) -> None:
    async with scene(row) as here:
        told = await speaker.ask(here.edge.url, row.question)
        exchanges = here.edge.exchanges
        assert [exchange.status for exchange in exchanges] == [row.status] * row.tries
        assert waited_as_told(here.edge)
        assert here.edge.dispatch.totals() == (0, 0)
    assert told == Told(
        error=names_of(speaker).get(row.status, "InternalServerError"),
        status=row.status,
        code=row.code,
        type=row.type,
        param=row.param,
        message=told.message,
        request_id=exchanges[-1].headers["x-request-id"],
    )
    assert row.says in told.message
    if row.tries == 1 and told.type == "invalid_request_error":
        assert exchanges[0].headers["x-should-retry"] == "false"


async def test_a_prompt_that_breaks_engines_is_not_sent_a_third_time(speaker: Speaker) -> None:
    async with AsyncExitStack() as stack:
        urls = [(await stack.enter_async_context(fragile_engine())).url for _ in range(2)]
        edge = await stack.enter_async_context(running_edge(urls))
        told = await speaker.ask(edge.url, Question(prompt=FAILS.decode()))
        assert [exchange.status for exchange in edge.exchanges] == [502, 422]
        assert (told.error, told.code) == ("UnprocessableEntityError", "request_quarantined")
        assert "incident" in told.message


@pytest.mark.usefixtures("real_times")
async def test_who_is_told_to_wait_longer_than_usual_does(speaker: Speaker) -> None:
    row = Row("full", 503, "", "", policy=EdgePolicy(queue_limit=0), slots=0)
    async with scene(row) as here:
        await speaker.ask(here.edge.url, Question(retries=1))
        first, _ = here.edge.exchanges
        # both SDKs come back after at most half a second by themselves
        assert int(first.headers["retry-after-ms"]) >= 1000
        assert waited_as_told(here.edge)


async def test_models_and_ids(speaker: Speaker) -> None:
    async with scene(Row("well", 200, "", "")) as here:
        assert (await speaker.ask(here.edge.url, Question(kind="models"))).text == 2 * MODEL
        told = await speaker.ask(here.edge.url, Question())
        assert told.text
        assert told.request_id == here.edge.exchanges[-1].headers["x-request-id"]
