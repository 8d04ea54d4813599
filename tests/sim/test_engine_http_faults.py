"""What clients see of each fault, and of leaving, waiting, restarting and dying."""

import asyncio
import json
import re
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from tests.sim.conftest import DEADLINE_S, ROOT, SimEngine, Start, request_bytes

COMPLETIONS = "/v1/completions"
ENDLESS = {"prompt": "x", "max_tokens": 4000, "ignore_eos": True, "stream": True}
SHORT = {"prompt": "x", "max_tokens": 6, "ignore_eos": True}
Stream = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@pytest.fixture(scope="module")
def started(start_engine: Start) -> SimEngine:
    return start_engine("--max-num-seqs", "2", "--speed", "5")


@pytest.fixture
async def engine(started: SimEngine) -> AsyncIterator[SimEngine]:
    yield started
    await started.heal()
    await _until(lambda: _gauges(started), (0, 0))


async def _until(read: Callable[[], Awaitable[object]], wanted: object) -> None:
    async with asyncio.timeout(DEADLINE_S):
        while await read() != wanted:
            pass


async def _metric(engine: SimEngine, name: str) -> float:
    page = (await engine.exchange("GET", "/metrics")).decode()
    found = re.search(rf"^{name}(?:{{[^}}]*}})? (\S+)$", page, re.MULTILINE)
    assert found is not None
    return float(found[1])


async def _gauges(engine: SimEngine) -> tuple[float, float]:
    running = await _metric(engine, "vllm:num_requests_running")
    return running, await _metric(engine, "vllm:num_requests_waiting")


@asynccontextmanager
async def _open(engine: SimEngine, data: dict[str, Any]) -> AsyncIterator[Stream]:
    """A request on its way."""
    reader, writer = await engine.connect()
    body = json.dumps(data).encode()
    headers = {"Content-Type": "application/json"}
    writer.write(request_bytes("POST", COMPLETIONS, body, headers))
    try:
        async with asyncio.timeout(DEADLINE_S):
            yield reader, writer
    finally:
        writer.transport.abort()


async def _refused(engine: SimEngine) -> bool:
    try:
        _, writer = await engine.connect()
    except ConnectionError:
        return True
    writer.transport.abort()
    return False


async def _silent(reader: asyncio.StreamReader) -> bool:
    """Nothing comes, and the connection stays open."""
    try:
        await asyncio.wait_for(reader.read(1), 0.3)
    except TimeoutError:
        return True
    return False


async def _status(engine: SimEngine, path: str = "/health") -> bytes:
    return (await engine.exchange("GET", path))[9:12]


async def test_the_head_comes_while_the_request_waits_and_leaving_frees_the_place(
    engine: SimEngine,
) -> None:
    async with (
        _open(engine, ENDLESS) as (first, leaving),
        _open(engine, ENDLESS) as (second, _),
        _open(engine, ENDLESS) as (waiting, _),
    ):
        for reader in (first, second, waiting):
            assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 OK")
        await _until(lambda: _gauges(engine), (2, 1))
        leaving.write_eof()  # half-closing counts as leaving
        await waiting.readuntil(b"data: ")
        await _until(lambda: _gauges(engine), (2, 0))
    await _until(lambda: _gauges(engine), (0, 0))
    page = await engine.exchange("GET", "/metrics")
    assert b'finished_reason="abort",model_name="sim-8b"} 0.0' in page


async def test_a_slow_reader_does_not_slow_the_engine(start_engine: Start) -> None:
    """More than the sockets' buffers hold is generated while the client reads nothing."""
    engine = start_engine("--speed", "100")
    async with _open(engine, ENDLESS) as (reader, _):
        await reader.readuntil(b"\r\n\r\n")
        reader._transport.pause_reading()  # type: ignore[attr-defined]
        await _until(lambda: _metric(engine, "vllm:generation_tokens_total"), 4000)
        reader._transport.resume_reading()  # type: ignore[attr-defined]
        answer = await reader.readuntil(b"[DONE]\n\n")
    texts = [json.loads(text) for text in re.findall(rb'"text":("[^"]*")', answer)]
    whole = await engine.post(COMPLETIONS, ENDLESS | {"stream": False})
    assert json.loads(whole.partition(b"\r\n\r\n")[2])["choices"][0]["text"] == "".join(texts)


async def test_an_idle_connection_is_closed_after_the_keep_alive(start_engine: Start) -> None:
    engine = start_engine("--keep-alive-s", "0.2")
    reader, writer = await engine.connect()
    for _ in range(2):
        writer.write(request_bytes("GET", "/health", b"", {}))
        assert b"content-length: 0" in await reader.readuntil(b"\r\n\r\n")
    async with asyncio.timeout(DEADLINE_S):
        assert await reader.read() == b""
    writer.close()
    await writer.wait_closed()


async def test_refuse(engine: SimEngine) -> None:
    async with _open(engine, ENDLESS) as (reader, _):
        await reader.readuntil(b"data: ")
        await engine.faults(refuse=True)
        assert await _refused(engine)
        await reader.readuntil(b"data: ")  # who was in stays in
        await engine.faults(refuse=False)
        assert await _status(engine) == b"200"


async def test_hang(engine: SimEngine) -> None:
    async with _open(engine, ENDLESS) as (reader, _):
        await reader.readuntil(b"data: ")
        await engine.faults(hang=True)
        newcomer, writer = await engine.connect()
        writer.write(request_bytes("GET", "/health", b"", {}))
        assert await _silent(newcomer)
        await engine.heal()
        assert (await newcomer.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200")
        await reader.readuntil(b"data: ")
        writer.transport.abort()


async def test_freeze(engine: SimEngine) -> None:
    async with _open(engine, ENDLESS) as (reader, _):
        await reader.readuntil(b"data: ")
        await _until(lambda: _gauges(engine), (1, 0))
        await engine.faults(freeze=True)
        tokens = await _metric(engine, "vllm:generation_tokens_total")
        async with _open(engine, ENDLESS) as (late, _):
            assert (await late.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200")
            assert await _silent(late)
        for path in ("/health", "/v1/models", "/metrics"):
            assert await _status(engine, path) == b"200"
        assert await _metric(engine, "vllm:generation_tokens_total") == tokens
        assert await _gauges(engine) == (1, 0)
        await engine.heal()
        await _until(lambda: _grows(engine, tokens), True)


async def _grows(engine: SimEngine, tokens: float) -> bool:
    return await _metric(engine, "vllm:generation_tokens_total") > tokens


async def test_slow(engine: SimEngine) -> None:
    """Measured by the engine's own histogram, which tells the model's time, not the machine's."""

    async def mean_s() -> float:
        names = [f"vllm:inter_token_latency_seconds_{part}" for part in ("sum", "count")]
        before = [await _metric(engine, name) for name in names]
        await engine.post(COMPLETIONS, SHORT)
        total, count = [await _metric(engine, n) - b for n, b in zip(names, before, strict=True)]
        return total / count

    await engine.faults(slow=20)
    assert await mean_s() >= 20 * 0.021 / 5


async def test_error_rate(engine: SimEngine) -> None:
    await engine.faults(error_rate=0.5)
    answers = [await engine.post(COMPLETIONS, SHORT) for _ in range(30)]
    assert {answer[9:12] for answer in answers} == {b"200", b"500"}


async def test_reject(engine: SimEngine) -> None:
    await engine.faults(reject=True)
    answer = await engine.post(COMPLETIONS, SHORT | {"stream": True})
    assert answer.startswith(b"HTTP/1.1 503")
    assert await _status(engine) == b"200"


async def test_a_limiter_s_answer_instead_of_the_engine_s(start_engine: Start) -> None:
    engine = start_engine("--busy-status", "429")
    await engine.faults(reject=True)
    head, _, body = (await engine.post(COMPLETIONS, SHORT)).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 429 Too Many Requests")
    assert json.loads(body)["error"]["code"] == 429


@pytest.mark.parametrize("tokens", [0, 3])
async def test_errors_in_streams(engine: SimEngine, tokens: int) -> None:
    await engine.faults(error_in_stream=tokens)
    answer = await engine.post(COMPLETIONS, SHORT | {"stream": True})
    assert answer.startswith(b"HTTP/1.1 200")
    assert answer.count(b'"text":') == tokens
    assert answer.count(b'{"error": ') == 1
    assert answer.endswith(b"data: [DONE]\n\n\r\n0\r\n\r\n")


async def test_aborts(engine: SimEngine) -> None:
    await engine.faults(abort_after=3)
    answer = await engine.post(COMPLETIONS, SHORT)
    choice = json.loads(answer.partition(b"\r\n\r\n")[2])["choices"][0]
    assert choice["finish_reason"] == "abort"
    page = await engine.exchange("GET", "/metrics")
    assert b'finished_reason="abort",model_name="sim-8b"} 1.0' in page
    await engine.faults(restart=True)  # the count would be in the way of other tests


async def test_death_of_the_api_process(engine: SimEngine) -> None:
    await engine.faults(die_mid_stream={"after_tokens": 3, "mode": "api"})
    answer = await engine.post(COMPLETIONS, SHORT | {"stream": True})
    assert answer.count(b'"text":') == 3
    assert b"[DONE]" not in answer
    assert not answer.endswith(b"0\r\n\r\n")
    await _until(lambda: _refused(engine), True)
    await engine.heal()
    assert await _status(engine) == b"200"


async def test_death_of_the_engine_core(engine: SimEngine) -> None:
    await engine.faults(die_mid_stream={"after_tokens": 3, "mode": "enginecore"})
    async with _open(engine, SHORT | {"stream": True}) as (reader, _):
        answer = await reader.readuntil(b"[DONE]\n\n\r\n0\r\n\r\n")
    assert answer.count(b'"text":') == 3
    assert b'{"error": {"message": "EngineCore encountered an issue.' in answer
    await _until(lambda: _refused(engine), True)
    await engine.heal()
    assert await _status(engine) == b"200"


async def test_a_dying_engine_core_shows_in_health_before_the_port_closes(
    engine: SimEngine,
) -> None:
    reader, writer = await engine.connect()
    await engine.faults(die_mid_stream={"mode": "enginecore"})
    writer.write(request_bytes("GET", "/health", b"", {}))
    assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 503")
    writer.close()
    await writer.wait_closed()


async def test_a_restart_cuts_and_counts_from_zero(engine: SimEngine) -> None:
    started_s = await _metric(engine, "process_start_time_seconds")
    async with _open(engine, ENDLESS) as (reader, _):
        await reader.readuntil(b"data: ")
        await _until(lambda: _gauges(engine), (1, 0))
        await engine.faults(restart=True)
        rest = await reader.read()
    assert b"[DONE]" not in rest
    assert await _metric(engine, "vllm:generation_tokens_total") == 0
    assert await _gauges(engine) == (0, 0)
    assert await _metric(engine, "process_start_time_seconds") > started_s


async def test_a_cold_start_refuses_first(engine: SimEngine) -> None:
    await engine.faults(cold_start_s=0.5)
    assert await _refused(engine)
    await _until(lambda: _refused(engine), False)
    assert await _status(engine) == b"200"


async def test_control_answers_mistakes_with_a_sentence(engine: SimEngine) -> None:
    control = SimEngine(engine.process, engine.control_port, engine.control_port)
    answer = await control.exchange("POST", "/sim/faults", b'{"slwo": 2}')
    assert answer.startswith(b"HTTP/1.1 400")
    assert b"slwo" in answer
    shown = await control.exchange("GET", "/sim/faults")
    assert json.loads(shown.partition(b"\r\n\r\n")[2])["slow"] == 1.0


async def test_sigterm_ends_it_even_with_streams_open(start_engine: Start) -> None:
    engine = start_engine()
    async with _open(engine, ENDLESS) as (reader, _):
        await reader.readuntil(b"data: ")
        engine.process.terminate()
        assert await asyncio.to_thread(engine.process.wait, DEADLINE_S) == 0
        await reader.read()


def test_an_impossible_engine_is_refused_with_a_sentence() -> None:
    command = [sys.executable, "-m", "sim.engine_http", "--num-gpu-blocks-override", "4"]
    ended = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=DEADLINE_S, check=False
    )
    assert ended.returncode == 1
    assert ended.stderr == "error: the KV cache cannot hold one request of max_model_len tokens\n"
