"""The simulated engine's bytes against those recorded from vLLM 0.32.0.

Compared: status line, header names, order and values, chunk framing (one event a chunk), bodies.
Evened out first: dates, ids that a server draws, times, prompt token counts, generated words,
lengths that follow from these, and `x-request-id`, which some recordings had switched on.
"""

import asyncio
import json
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.sim.conftest import SimEngine, Start

DATA = Path(__file__).parents[1] / "data" / "vllm"
FLAGS = [
    *("--model", "/models/tiny----------", "--served-model-name", "tiny"),
    *("--max-model-len", "4096", "--num-gpu-blocks-override", "300", "--speed", "10"),
]
COMPLETION: dict[str, Any] = {"model": "tiny", "prompt": "def main", "max_tokens": 6}
CHAT: dict[str, Any] = {
    "model": "tiny",
    "messages": [{"role": "user", "content": "Hello there"}],
    "max_tokens": 6,
}
USAGE = {"stream": True, "stream_options": {"include_usage": True}}
CONTINUOUS = {
    "stream": True,
    "stream_options": {"include_usage": True, "continuous_usage_stats": True},
}
RESPONSE = {"model": "tiny", "input": "Hello there", "max_output_tokens": 6}
COMPLETIONS, CHATS = "/v1/completions", "/v1/chat/completions"
RESPONSES, MESSAGES = "/v1/responses", "/v1/messages"


class Answer(NamedTuple):
    """A response, evened out."""

    head: list[str]
    chunks: list[str]


_EVENED: list[tuple[str, str]] = [
    (r'"(cmpl|chatcmpl|modelperm)-[0-9a-f]{16}"', r'"\1-ID"'),
    (r'"created":\d+', '"created":0'),
    (r'"system_fingerprint":"vllm-0.32.0-[0-9a-f]{8}"', '"system_fingerprint":"FP"'),
    (r'"(prompt|total)_tokens":\d+', r'"\1_tokens":0'),
    (r'"text":"(?:[^"\\]|\\.)+"', '"text":"T"'),
    (r'"message":\{"role":"assistant","content":"(?:[^"\\]|\\.)+"', '"message":{"content":"T"'),
    (r'"delta":\{"content":"(?:[^"\\]|\\.)*"', '"delta":{"content":"T"'),
    (r'"tokens":\[[\d,]+\]', '"tokens":[]'),
    (r'"count":\d+', '"count":0'),
]


def _even(raw: bytes) -> Answer:
    head_bytes, _, body = raw.partition(b"\r\n\r\n")
    head = [line for line in head_bytes.decode().split("\r\n") if not line.startswith("x-request")]
    chunked = any(line.startswith("transfer-encoding") for line in head)
    head = [re.sub(r"^(date|content-length): .+", r"\1", line) for line in head]
    chunks = [text.decode() for text in (_chunks(body) if chunked else [body])]
    for pattern, replacement in _EVENED:
        chunks = [re.sub(pattern, replacement, text) for text in chunks]
    return Answer(head, chunks)


def _chunks(body: bytes) -> list[bytes]:
    """The chunks of a body; the last is empty where the server ended it properly."""
    chunks = []
    while body:
        size, _, rest = body.partition(b"\r\n")
        length = int(size, 16)
        assert size == f"{length:x}".encode()
        assert rest[length : length + 2] == b"\r\n"
        chunks.append(rest[:length])
        body = rest[length + 2 :]
    return chunks


def _recorded(name: str) -> Answer:
    return _even((DATA / f"{name}.http").read_bytes())


@pytest.fixture(scope="module")
def engine(start_engine: Start) -> SimEngine:
    return start_engine(*FLAGS)


@pytest.fixture(scope="module")
def guarded(start_engine: Start) -> SimEngine:
    return start_engine(*FLAGS, "--api-key", "first-key", "second-key")


@pytest.fixture
async def faulty(engine: SimEngine) -> AsyncIterator[SimEngine]:
    yield engine
    await engine.heal()


@pytest.mark.parametrize(
    ("name", "method", "path"),
    [
        ("get-health", "GET", "/health"),
        ("get-health-head", "HEAD", "/health"),
        ("get-health-post", "POST", "/health"),
        ("get-ping", "GET", "/ping"),
        ("get-ping-post", "POST", "/ping"),
        ("get-version", "GET", "/version"),
        ("get-load", "GET", "/load"),
        ("get-models", "GET", "/v1/models"),
        ("get-unknown-path", "GET", "/nope"),
        ("get-unknown-v1-path", "GET", "/v1/nope"),
        ("get-chat-get", "GET", CHATS),
    ],
)
async def test_small_endpoints(engine: SimEngine, name: str, method: str, path: str) -> None:
    assert _even(await engine.exchange(method, path)) == _recorded(name)


async def test_adapters_are_listed_with_their_base(start_engine: Start) -> None:
    modules = [f"{name}=/models/{name}" for name in ("lora-a", "lora-b")]
    engine = start_engine(*FLAGS, "--lora-modules", *modules)
    assert _even(await engine.exchange("GET", "/v1/models")) == _recorded("get-models-lora")


@pytest.mark.parametrize(
    ("name", "path", "data"),
    [
        ("chat-nonstream", CHATS, CHAT),
        ("chat-stream", CHATS, CHAT | {"stream": True}),
        ("chat-stream-usage", CHATS, CHAT | USAGE),
        ("chat-stream-usage-continuous", CHATS, CHAT | CONTINUOUS),
        ("comp-nonstream", COMPLETIONS, COMPLETION),
        ("comp-stream", COMPLETIONS, COMPLETION | {"stream": True}),
        ("comp-stream-usage", COMPLETIONS, COMPLETION | USAGE),
        ("comp-batch-prompts", COMPLETIONS, COMPLETION | {"prompt": ["a", "b"], "max_tokens": 2}),
        ("comp-body-request_id", COMPLETIONS, COMPLETION | {"request_id": "body-id-9"}),
        ("comp-priority-fcfs", COMPLETIONS, COMPLETION | {"priority": 5}),
        ("err-no-model", CHATS, {k: v for k, v in CHAT.items() if k != "model"}),
        ("err-unknown-field", CHATS, CHAT | {"no_such_field": {"a": [1]}}),
    ],
)
async def test_answers(engine: SimEngine, name: str, path: str, data: dict[str, Any]) -> None:
    assert _even(await engine.post(path, data)) == _recorded(name)


@pytest.mark.parametrize(
    ("name", "path", "data"),
    [
        ("responses-nonstream", RESPONSES, RESPONSE),
        ("responses-stream", RESPONSES, RESPONSE | {"stream": True}),
        ("messages-nonstream", MESSAGES, CHAT),
        ("messages-stream", MESSAGES, CHAT | {"stream": True}),
        ("messages-count-tokens", f"{MESSAGES}/count_tokens", CHAT),
        ("messages-err-no-max-tokens", MESSAGES, {k: v for k, v in CHAT.items() if k[:3] != "max"}),
    ],
)
async def test_other_dialects_have_the_same_events_with_the_same_fields(
    engine: SimEngine, name: str, path: str, data: dict[str, Any]
) -> None:
    answer, recorded = _even(await engine.post(path, data | {"ignore_eos": True})), _recorded(name)
    assert answer.head == recorded.head
    assert _shapes(answer.chunks) == _shapes(recorded.chunks)


def _shapes(chunks: list[str]) -> list[Any]:
    """Names of events, and of their fields; neighbours that are alike are one."""
    found: list[Any] = []
    for chunk in chunks:
        event, _, data = chunk.rpartition("data: ")
        shape = event, _shape(json.loads(data)) if data else None
        if shape not in found[-1:]:
            found.append(shape)
    return found


def _shape(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _shape(each) for name, each in value.items()}
    return [_shape(each) for each in value] if isinstance(value, list) else type(value)


async def test_several_choices(engine: SimEngine) -> None:
    """Their events may interleave in any order."""
    answer = _even(await engine.post(CHATS, CHAT | {"stream": True, "n": 2, "max_tokens": 3}))
    recorded = _recorded("chat-stream-n2")
    assert answer.head == recorded.head
    assert answer.chunks[:2] == recorded.chunks[:2]
    assert sorted(answer.chunks) == sorted(recorded.chunks)


async def test_the_id_header_becomes_the_id(engine: SimEngine) -> None:
    headers = {"Content-Type": "application/json", "X-Request-Id": "my-id-123"}
    body = json.dumps(COMPLETION | {"request_id": "not-this"}).encode()
    answer = await engine.exchange("POST", COMPLETIONS, body, headers)
    assert _even(answer) == _recorded("comp-xrequestid")


@pytest.mark.parametrize(
    ("name", "path", "data"),
    [
        ("err-empty-prompt", COMPLETIONS, COMPLETION | {"prompt": ""}),
        ("err-missing-prompt", COMPLETIONS, {"model": "tiny"}),
        ("err-missing-messages", CHATS, {"model": "tiny"}),
        ("err-max-tokens-negative", COMPLETIONS, COMPLETION | {"max_tokens": -1}),
        ("err-max-tokens-zero", COMPLETIONS, COMPLETION | {"max_tokens": 0}),
        ("err-max-tokens-too-large", COMPLETIONS, COMPLETION | {"max_tokens": 100_000}),
        ("err-chat-max-tokens-too-large", CHATS, CHAT | {"max_tokens": 100_000}),
        ("err-unknown-model", CHATS, CHAT | {"model": "nope"}),
        ("err-unknown-model-stream", CHATS, CHAT | {"model": "nope", "stream": True}),
        ("err-prompt-token-out-of-vocab", COMPLETIONS, COMPLETION | {"prompt": [99_999_999]}),
        ("err-stream-options-nonstream", CHATS, CHAT | {"stream_options": {"include_usage": True}}),
        ("err-temperature-range", CHATS, CHAT | {"temperature": -1}),
        ("err-too-long-prompt", COMPLETIONS, COMPLETION | {"prompt": "word " * 5000}),
        (
            "err-too-long-prompt-stream",
            COMPLETIONS,
            COMPLETION | {"prompt": "word " * 5000, "stream": True},
        ),
        ("err-wrong-type", CHATS, CHAT | {"temperature": "hot"}),
    ],
)
async def test_refusals(engine: SimEngine, name: str, path: str, data: dict[str, Any]) -> None:
    answer = _even(await engine.post(path, data))
    assert answer == _recorded(name)


@pytest.mark.parametrize(
    ("name", "body", "content_type"),
    [
        ("err-bad-json", b'{"model": "tiny", "messages": [}', "application/json"),
        ("err-truncated-body", b'{"model":', "application/json"),
        ("err-empty-body", b"", "application/json"),
        ("err-content-type", json.dumps(CHAT).encode(), "text/plain"),
    ],
)
async def test_bodies_that_are_no_json(
    engine: SimEngine, name: str, body: bytes, content_type: str
) -> None:
    answer = await engine.exchange("POST", CHATS, body, {"Content-Type": content_type})
    assert _even(answer) == _recorded(name)


_JSON = {"Content-Type": "application/json"}


@pytest.mark.parametrize(
    ("name", "method", "path", "authorization"),
    [
        ("auth-none", "POST", COMPLETIONS, None),
        ("auth-wrong", "POST", COMPLETIONS, "Bearer no-key"),
        ("auth-basic", "POST", COMPLETIONS, "Basic c2Vjb25kLWtleQ=="),
        ("auth-models-none", "GET", "/v1/models", None),
        ("auth-unknown-v1-none", "GET", "/v1/nope", None),
        ("auth-ok2", "POST", COMPLETIONS, "Bearer second-key"),
        ("auth-health-none", "GET", "/health", None),
        ("auth-version-none", "GET", "/version", None),
        ("auth-tokenize-none", "POST", "/tokenize", None),
    ],
)
async def test_keys(
    guarded: SimEngine, name: str, method: str, path: str, authorization: str | None
) -> None:
    headers = _JSON | ({"Authorization": authorization} if authorization else {})
    body = json.dumps(COMPLETION | {"max_tokens": 2}).encode() if method == "POST" else b""
    answer = _even(await guarded.exchange(method, path, body, headers))
    recorded = _recorded(name)
    assert answer == recorded


async def test_without_keys_any_key_will_do(engine: SimEngine) -> None:
    headers = _JSON | {"Authorization": "Bearer whatever"}
    answer = await engine.exchange("POST", COMPLETIONS, json.dumps(COMPLETION).encode(), headers)
    assert _even(answer) == _recorded("err-wrong-api-key-no-key-set")


@pytest.mark.parametrize(
    ("name", "path", "data"),
    [
        ("overload-comp-nonstream", COMPLETIONS, COMPLETION),
        ("overload-chat-stream", CHATS, CHAT | {"stream": True}),
    ],
)
async def test_a_full_queue_refuses(
    faulty: SimEngine, name: str, path: str, data: dict[str, Any]
) -> None:
    await faulty.faults(queue_limit=0)
    assert _even(await faulty.post(path, data)) == _recorded(name)


async def test_a_full_prefill_backlog_refuses(start_engine: Start) -> None:
    engine = start_engine(*FLAGS, "--max-num-queued-tokens", "1")
    await engine.faults(freeze=True)
    async with asyncio.TaskGroup() as tasks:
        both = [tasks.create_task(engine.post(COMPLETIONS, COMPLETION)) for _ in range(2)]
        refused, held = await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        await engine.heal()
    assert [_even(task.result()) for task in refused] == [_recorded("overload-queued-tokens")]
    assert [task.result()[:12] for task in held] == [b"HTTP/1.1 200"]


async def test_in_a_burst_some_are_refused_inside_a_200(faulty: SimEngine) -> None:
    """Which request loses is a race, so bursts are sent until one shows it."""
    await faulty.faults(queue_limit=1)
    recorded = _recorded("burst-reject-stream-200")
    async with asyncio.timeout(20):
        while True:
            data = COMPLETION | {"stream": True}
            answers = await asyncio.gather(*(faulty.post(COMPLETIONS, data) for _ in range(8)))
            if recorded in [_even(answer) for answer in answers]:
                return


@pytest.mark.parametrize(
    ("name", "path", "stream"),
    [
        ("drain-new-stream", COMPLETIONS, True),
        ("drain-new-nonstream", COMPLETIONS, False),
        ("drain-new-chat-stream", CHATS, True),
        ("drain-new-chat-nonstream", CHATS, False),
    ],
)
async def test_a_draining_engine_spoils(
    faulty: SimEngine, name: str, path: str, stream: bool
) -> None:
    await faulty.faults(empty_stream=True)
    data = (COMPLETION if path == COMPLETIONS else CHAT) | {"stream": stream}
    assert _even(await faulty.post(path, data)) == _recorded(name)


@pytest.mark.parametrize(
    ("name", "path", "stream"),
    [
        ("sigkill-enginecore-nonstream-0", COMPLETIONS, False),
        ("sigkill-enginecore-stream-8", COMPLETIONS, True),
        ("sigkill-enginecore-chat-0", CHATS, True),
    ],
)
async def test_a_dead_engine_core(faulty: SimEngine, name: str, path: str, stream: bool) -> None:
    data = (COMPLETION if path == COMPLETIONS else CHAT) | {"stream": stream}
    async with asyncio.timeout(20):
        while True:  # until the request was in the engine when its core died
            await faulty.faults(freeze=True)
            answer, _ = await asyncio.gather(faulty.post(path, data), _kill_core(faulty))
            await faulty.heal()
            if _even(answer) == _recorded(name):
                return


async def _kill_core(engine: SimEngine) -> None:
    await asyncio.sleep(0.05)
    await engine.faults(die_mid_stream={"mode": "enginecore"})


async def test_after_sigterm_a_stream_is_open_and_silent(faulty: SimEngine) -> None:
    await faulty.faults(freeze=True)
    reader, writer = await faulty.connect()
    body = json.dumps(COMPLETION | {"stream": True}).encode()
    head = f"POST {COMPLETIONS} HTTP/1.1\r\nHost: t\r\nConnection: close\r\n"
    head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    writer.write(head.encode() + body)
    async with asyncio.timeout(20):
        answer = await reader.readuntil(b"\r\n\r\n")
    assert _even(answer) == _recorded("sigterm-default-stream-8")
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(reader.read(1), 0.3)
    writer.close()
    await writer.wait_closed()


def _names(text: str) -> list[str]:
    """Comment lines as they are, samples without their values and what names this machine."""
    lines = (line if line[:1] == "#" else line.rpartition(" ")[0] for line in text.splitlines())
    return [
        re.sub(r'(block_size|num_gpu_blocks|kv_cache_\w+|version|level)="[^"]*"', r"\1", line)
        for line in lines
    ]


@pytest.mark.parametrize("path", ["/metrics", "/metrics/"])
async def test_the_metrics_of_an_idle_engine(start_engine: Start, path: str) -> None:
    engine = start_engine(*FLAGS)
    answer = await engine.exchange("GET", path)
    head, _, body = answer.decode().partition("\r\n\r\n")
    assert "content-type: text/plain; version=1.0.0; charset=utf-8\r\nvary: Origin" in head
    assert _names(body) == _names((DATA / "metrics-idle.txt").read_text())


async def test_the_metrics_after_use(start_engine: Start) -> None:
    """A handler's HTTP families appear with its first request."""
    engine = start_engine(*FLAGS)
    await engine.exchange("GET", "/v1/models")
    await engine.exchange("GET", "/nope")
    await engine.post("/nope", {})
    for path, data in ((CHATS, CHAT), (COMPLETIONS, COMPLETION)):
        await engine.post(path, data)
        await engine.post(path, data | {"max_tokens": 0})
    body = (await engine.exchange("GET", "/metrics")).decode().partition("\r\n\r\n")[2]
    recorded = (DATA / "metrics-load-waiting.txt").read_text()
    ours_alone = set(_names(body)) - set(_names(recorded))
    theirs_alone = set(_names(recorded)) - set(_names(body))
    assert ours_alone == set()
    not_simulated = ("kv_event_sources", "is_scaling", "inference", "responses", "messages")
    assert [line for line in theirs_alone if not any(n in line for n in not_simulated)] == []
