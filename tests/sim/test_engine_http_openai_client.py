"""The official client against the simulated engine: answers, streams, and error classes."""

from collections.abc import AsyncIterator
from typing import Any

import openai
import pytest
from openai import AsyncOpenAI
from openai.types.chat import ChatCompletionMessageParam

from tests.sim.conftest import SimEngine, Start

USER: ChatCompletionMessageParam = {"role": "user", "content": "What is a breaker?"}


@pytest.fixture(scope="module")
def engine(start_engine: Start) -> SimEngine:
    return start_engine("--speed", "20", "--api-key", "secret")


@pytest.fixture
async def client(engine: SimEngine) -> AsyncIterator[AsyncOpenAI]:
    async with _client(engine) as connected:
        yield connected
    await engine.heal()


def _client(engine: SimEngine, key: str = "secret") -> AsyncOpenAI:
    return AsyncOpenAI(base_url=f"{engine.url}/v1", api_key=key, max_retries=0)


async def test_models(client: AsyncOpenAI) -> None:
    assert [model.id async for model in client.models.list()] == ["sim-8b"]


async def test_a_chat_ends_by_itself_and_streams_the_same(client: AsyncOpenAI) -> None:
    whole = await client.chat.completions.create(model="sim-8b", messages=[USER])
    assert whole.choices[0].finish_reason == "stop"
    assert whole.usage is not None
    stream = await client.chat.completions.create(
        model="sim-8b", messages=[USER], stream=True, stream_options={"include_usage": True}
    )
    events = [event async for event in stream]
    text = "".join(e.choices[0].delta.content or "" for e in events if e.choices)
    assert text == whole.choices[0].message.content
    assert events[0].choices[0].delta.role == "assistant"
    last_usage = events[-1].usage
    assert last_usage is not None
    assert last_usage.completion_tokens == whole.usage.completion_tokens


async def test_a_completion_with_a_stop_string(client: AsyncOpenAI) -> None:
    plain = await client.completions.create(model="sim-8b", prompt="Once", max_tokens=30)
    stop = plain.choices[0].text[20:25]
    cut = await client.completions.create(model="sim-8b", prompt="Once", max_tokens=30, stop=stop)
    assert cut.choices[0].finish_reason == "stop"
    assert cut.choices[0].text == plain.choices[0].text.partition(stop)[0]


async def test_a_cut_chat_continues_exactly_on_another_engine(
    client: AsyncOpenAI, start_engine: Start
) -> None:
    stream = await client.chat.completions.create(model="sim-8b", messages=[USER], stream=True)
    pieces = [event.choices[0].delta.content or "" async for event in stream]
    seen, missing = "".join(pieces[:12]), "".join(pieces[12:])
    messages: list[ChatCompletionMessageParam] = [USER, {"role": "assistant", "content": seen}]
    options = {"continue_final_message": True, "add_generation_prompt": False}
    async with _client(start_engine("--speed", "20")) as other:
        rest = await other.chat.completions.create(
            model="sim-8b", messages=messages, extra_body=options
        )
    assert rest.choices[0].message.content == missing


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"model": "other"}, openai.NotFoundError),
        ({"max_tokens": 0}, openai.BadRequestError),
        ({"temperature": -1}, openai.BadRequestError),
    ],
)
async def test_mistakes(
    client: AsyncOpenAI, arguments: dict[str, Any], error: type[openai.APIStatusError]
) -> None:
    with pytest.raises(error):
        await client.chat.completions.create(
            **({"model": "sim-8b", "messages": [USER]} | arguments)
        )


async def test_a_wrong_key(engine: SimEngine) -> None:
    async with _client(engine, "wrong") as client:
        with pytest.raises(openai.AuthenticationError):
            await client.models.list()


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        ({"reject": True}, openai.InternalServerError),
        ({"error_rate": 1.0}, openai.InternalServerError),
        ({"die_mid_stream": {"after_tokens": 2}}, openai.APIConnectionError),
        ({"refuse": True}, openai.APIConnectionError),
    ],
)
async def test_failures(
    engine: SimEngine, client: AsyncOpenAI, fault: dict[str, Any], error: type[openai.APIError]
) -> None:
    await engine.faults(**fault)
    with pytest.raises(error):
        await client.chat.completions.create(model="sim-8b", messages=[USER])


async def test_an_error_inside_a_stream(engine: SimEngine, client: AsyncOpenAI) -> None:
    await engine.faults(error_in_stream=3)
    stream = await client.chat.completions.create(model="sim-8b", messages=[USER], stream=True)
    with pytest.raises(openai.APIError, match="error occurred during streaming"):
        async for _ in stream:
            pass


async def test_tokens_can_be_read_back(engine: SimEngine, client: AsyncOpenAI) -> None:
    base = client.with_options(base_url=engine.url)
    given = {"model": "sim-8b", "prompt": "The queue waits. Ümlaut!"}
    counted = await base.post("/tokenize", cast_to=object, body=given)
    assert isinstance(counted, dict)
    assert counted["count"] == len(counted["tokens"])
    body = {"model": "sim-8b", "tokens": counted["tokens"]}
    assert await base.post("/detokenize", cast_to=object, body=body) == {"prompt": given["prompt"]}
