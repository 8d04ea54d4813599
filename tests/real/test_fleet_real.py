"""`trimtab up` in front of two real vLLM engines, seen by the official openai client."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any

import openai
import pytest

from agent.config import EngineConfig
from agent.engine import connect
from agent.watch import EngineWatch
from tests.real.adapter import ADAPTER
from tests.real.engine import MODEL, RealEngine, session_members
from tests.real.fleet import PROMPT, Fleet, wait_until
from trimtab.model import EngineFacts, LimitSource
from trimtab.policy.progress import WARMING_STEPS
from trimtab.runtime import clock

Engines = tuple[RealEngine, RealEngine]
CHAT: Any = [{"role": "user", "content": PROMPT}]
TOO_LONG = f"{PROMPT} " * 3000
STARTED_S = 240.0


def running(engines: Engines) -> int:
    """Requests in the engines' batches, by their own word."""
    return sum(engine.running() for engine in engines)


@dataclass(frozen=True)
class Heard:
    """What came of a stream: how it was said to end, or the error that broke it."""

    text: str
    finish_reason: str | None
    error: str | None
    completion_tokens: int | None = field(default=None, compare=False)


def hear(stream: openai.Stream[Any]) -> Heard:
    """Listen to the end."""
    text, finish_reason, tokens = "", None, None
    try:
        for chunk in stream:
            for choice in chunk.choices:
                text += choice.text
                finish_reason = choice.finish_reason
            tokens = chunk.usage.completion_tokens if chunk.usage else tokens
    except openai.APIError as error:
        return Heard(text, finish_reason, error.code or repr(error))
    return Heard(text, finish_reason, None, tokens)


def test_a_completion_is_the_same_text_plain_and_streamed(fleet: Fleet) -> None:
    whole = fleet.complete(tokens=16)
    assert whole.usage is not None
    assert whole.usage.completion_tokens == 16
    streamed = hear(fleet.stream(tokens=16))
    assert streamed == Heard(whole.choices[0].text, "length", None)


def test_a_chat_is_the_same_text_plain_and_streamed(fleet: Fleet) -> None:
    ask: Any = {"model": MODEL, "messages": CHAT, "max_tokens": 16, "temperature": 0}
    chat = fleet.client.chat.completions
    whole = chat.create(**ask)
    chunks = list(chat.create(**ask, stream=True, stream_options={"include_usage": True}))
    assert chunks[0].choices[0].delta.role == "assistant"
    texts = [choice.delta.content or "" for chunk in chunks for choice in chunk.choices]
    assert "".join(texts) == whole.choices[0].message.content != ""
    assert chunks[-1].usage == whole.usage


def test_models(fleet: Fleet) -> None:
    listed = list(fleet.client.models.list())
    assert [model.id for model in listed] == [MODEL, ADAPTER]
    assert listed == [fleet.client.models.retrieve(model.id) for model in listed]


def test_an_unknown_model_is_not_found_and_the_known_are_named(fleet: Fleet) -> None:
    with pytest.raises(openai.NotFoundError, match=rf"Models served: {MODEL}\b") as caught:
        fleet.client.completions.create(model="nobody", prompt=PROMPT)
    assert caught.value.code == "model_not_found"


@pytest.mark.parametrize("stream", [False, True])
def test_a_too_long_prompt_is_refused_in_the_engine_s_own_words(
    fleet: Fleet, engines: Engines, stream: bool
) -> None:
    bodies: list[Any] = []
    with openai.OpenAI(base_url=f"{engines[0].url}/v1", api_key="none") as direct:
        for client in (direct, fleet.client):
            with pytest.raises(openai.BadRequestError, match="2000 tokens") as caught:
                client.completions.create(model=MODEL, prompt=TOO_LONG, stream=stream)
            bodies.append(caught.value.body)
    assert bodies[1] == bodies[0] | {"code": "context_length_exceeded"}  # vLLM's is the status


def test_a_streaming_client_that_leaves_frees_its_slot(fleet: Fleet, engines: Engines) -> None:
    with fleet.stream(tokens=1500) as stream:
        next(stream)
        assert running(engines) == 1
    wait_until(lambda: running(engines) == 0, "a free slot", 2)


def test_a_plain_client_that_leaves_frees_its_slot(fleet: Fleet, engines: Engines) -> None:
    with ThreadPoolExecutor() as threads:
        left = threads.submit(fleet.complete, 1500, timeout_s=2)
        wait_until(lambda: running(engines) == 1, "it runs")
        assert isinstance(left.exception(), openai.APITimeoutError)
    wait_until(lambda: running(engines) == 0, "a free slot", 2)


def begun(fleet: Fleet, count: int, tokens: int) -> list[openai.Stream[Any]]:
    """Streams that can't change engines unseen any more; their engines are past their warm-up."""
    streams = [fleet.stream(tokens) for _ in range(count)]
    for stream in streams:
        for _ in range(WARMING_STEPS):
            next(stream)
    return streams


def ends(heard: list[Heard]) -> list[tuple[str | None, str | None]]:
    return [(one.finish_reason, one.error) for one in heard]


def test_a_killed_engine_is_not_seen_by_anybody(fleet: Fleet, engines: Engines) -> None:
    killed, other = engines
    with fleet.cordoned(killed):
        whole = begun(fleet, 2, tokens=600)
    with ThreadPoolExecutor() as threads:
        with fleet.cordoned(other):
            moved = begun(fleet, 2, tokens=600)
            plain = [threads.submit(fleet.complete, 400) for _ in range(4)]
            wait_until(lambda: killed.running() > 2, "plain requests on it as well")
        session = killed.pids().api
        killed.kill()
        assert session_members(session) == []
        plain += [threads.submit(fleet.complete, 400) for _ in range(4)]
        rests = list(threads.map(hear, moved))
        assert ends(rests) == [("length", None)] * 2
        assert all(rest.completion_tokens == 600 for rest in rests)
        assert ends(list(threads.map(hear, whole))) == [("length", None)] * 2
        usages = [answer.result().usage for answer in plain]
    assert [usage.completion_tokens for usage in usages if usage] == [400] * 8
    fleet.wait_for(killed, "DEAD", "LOST")

    killed.start()
    fleet.wait_for(killed, "READY", "OPEN", STARTED_S)
    wait_until(
        lambda: bool(fleet.complete()) and killed.metric("vllm:request_success_total") > 0,
        "traffic again",
    )


def test_a_hung_engine_is_stalled_gets_no_requests_and_comes_back(
    fleet: Fleet, engines: Engines
) -> None:
    hung, other = engines
    with ThreadPoolExecutor() as threads:
        with fleet.cordoned(other):
            streams = begun(fleet, 1, tokens=300)
            hung.sigstop_core()
            stopped_s = clock.wall_s()
            caught = [threads.submit(fleet.complete) for _ in range(2)]
        fleet.wait_for(hung, "STALLED", "CLOSED")
        assert fleet.changed_s(hung) - stopped_s < 4
        assert all(fleet.complete() for _ in range(6))
        fleet.wait_for(hung, "STALLED", "CLOSED")  # not LOST: none of the six had to be moved
        hung.sigcont_core()
        fleet.wait_for(hung, "READY", "OPEN")
        assert all(answer.result() for answer in caught)
        assert ends([hear(stream) for stream in streams]) == [("length", None)]


def test_what_waits_for_an_engine_that_stays_hung_moves_on(fleet: Fleet, engines: Engines) -> None:
    hung, other = engines
    with ThreadPoolExecutor() as threads:
        with fleet.cordoned(other):
            streams = begun(fleet, 1, tokens=300)
            hung.sigstop_core()
            caught = [threads.submit(fleet.complete) for _ in range(2)]
        fleet.wait_for(hung, "STALLED", "LOST")
        assert ends([hear(stream) for stream in streams]) == [("length", None)]
        assert all(answer.result() for answer in caught)
    hung.sigcont_core()
    fleet.wait_for(hung, "READY", "OPEN")


def test_the_facts_of_an_engine_reach_the_operator(fleet: Fleet, engines: Engines) -> None:
    for engine in engines:
        shown = fleet.replica(engine)
        assert shown["max_num_seqs"] == 8
        assert shown["max_num_seqs_source"] == "COMMAND_LINE"
        assert shown["vllm_version"] == "0.32.0"
        assert shown["max_model_len_tokens"] == 2000
        assert shown["served_as"] == MODEL


async def test_the_agent_reads_the_facts_off_the_engine(engines: Engines) -> None:
    url = engines[0].url
    async with connect(url, "") as client:
        watch = EngineWatch(EngineConfig("r", url), client)
        await watch.look()
        watch.assess()
        await watch.learn()
        facts = watch.facts()
    assert replace(facts, epoch=0, uptime_ms=None) == EngineFacts(
        replica="r",
        url=url,
        served_models=(MODEL,),
        max_model_len_tokens=2000,
        max_num_seqs=8,
        max_num_seqs_source=LimitSource.COMMAND_LINE,
        kv_cache_tokens=2031,  # 64 blocks of 32, less the null block and a token, as vLLM counts
        vllm_version="0.32.0",
    )
    assert facts.epoch > 0
    assert facts.uptime_ms is not None
