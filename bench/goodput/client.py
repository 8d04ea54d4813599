"""A client as people have it: the official Python SDK's manners, many at once, in an open loop.

Manners (openai-python 2 and 3): two retries of connection errors, timeouts, 408, 409, 429 and 5xx;
`x-should-retry` decides when it is there; `retry-after-ms` and `retry-after` are obeyed up to
120 s, and above that it gives up; else 0.5 s doubling to 8 s, less up to a quarter. A stream
that has begun is never retried. Timeouts are the SDK's default, scaled like everything here.
"""

from __future__ import annotations

import asyncio
import enum
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import msgspec

from bench.goodput.scenario import SDK_TIMEOUT_S, Arrival
from trimtab.runtime.clock import now_s
from trimtab.runtime.tasks import TaskRunner

MODEL = "bench"
KEY = "sk-bench-4f1d0c6a9e7b42538c51"  # LiteLLM refuses to start with a weaker one
LIGHT_KEY = "sk-bench-light-90b2c7d15e8f"
_RETRIES = 2
_RETRIED = frozenset({408, 409, 429})
_REFUSALS = frozenset({429, 503, 529})
_RETRY_AFTER_MAX_S = 120.0
_CONNECT_TIMEOUT_S = 5.0


class End(enum.Enum):
    """How a request ended for its client, after all its tries."""

    FINISHED = "finished"
    REFUSED = "refused"  # told that there is no room: 429, 503, 529
    FAILED = "failed"  # any other answer that is none, or no connection
    ERROR_EVENT = "error event"  # a stream that said that it failed
    BROKEN = "broken stream"  # a stream that stopped without a word
    TIMEOUT = "timeout"  # silence for longer than the client's patience
    UNFINISHED = "unfinished"  # still going when the run was over


@dataclass(slots=True)
class Outcome:
    """One request as its client saw it; times are seconds into the run."""

    arrival: Arrival
    end: End = End.UNFINISHED
    tries: int = 0
    status: int = 0
    token_times_s: list[float] = field(default_factory=list)
    refusals_with_advice: int = 0  # answers that refused and said when to come back
    refusals_without: int = 0


class _Delta(msgspec.Struct):
    content: str | None = None


class _Choice(msgspec.Struct):
    delta: _Delta
    finish_reason: str | None = None


class _Event(msgspec.Struct):
    choices: list[_Choice] = []
    error: Any = None


_DECODER = msgspec.json.Decoder(_Event)


class Client:
    """Asks one endpoint, or any of several."""

    def __init__(
        self,
        session: aiohttp.ClientSession,
        base_urls: Sequence[str],
        dice: random.Random,
        keys: Mapping[str, str] | None = None,
    ) -> None:
        """`keys`: by tenant, those that have one of their own."""
        self._session = session
        self._keys = keys or {}
        self._urls = [f"{base_url}/v1/chat/completions" for base_url in base_urls]
        self._dice = dice

    async def load(self, arrivals: Sequence[Arrival], drain_s: float) -> list[Outcome]:
        """Send each request at its time, however the others fare; the run's second 0 is now."""
        started_s = now_s()
        outcomes = [Outcome(arrival) for arrival in arrivals]
        async with TaskRunner() as tasks:
            asks = []
            for outcome in outcomes:
                await asyncio.sleep(max(0.0, started_s + outcome.arrival.at_s - now_s()))
                asks.append(tasks.once("ask", self.ask(outcome, started_s)))
            _, late = await asyncio.wait(asks, timeout=drain_s) if asks else ((), ())
            for ask in late:
                ask.cancel()
        return outcomes

    async def ask(self, outcome: Outcome, started_s: float) -> None:
        """One request and its retries."""
        for retry in range(_RETRIES + 1):
            outcome.tries += 1
            wait_s = await self._try(outcome, started_s, retry)
            if wait_s is None or retry == _RETRIES:
                return
            await asyncio.sleep(wait_s)

    async def _try(self, outcome: Outcome, started_s: float, retry: int) -> float | None:
        """One try; says how long to wait for the next, or None for no next."""
        outcome.end, begun = End.FAILED, False
        try:
            async with self._session.post(
                self._dice.choice(self._urls),
                json=_body(outcome.arrival),
                headers=_headers(retry, self._keys.get(outcome.arrival.tenant, KEY)),
            ) as response:
                outcome.status = response.status
                if response.status != 200:
                    await response.read()
                    return self._refused(outcome, response.headers, retry)
                begun = True
                await _read(response, outcome, started_s)
        except TimeoutError:
            outcome.end = End.TIMEOUT
        except (aiohttp.ClientError, OSError):
            if outcome.end is not End.ERROR_EVENT:  # told, then cut: an honest end
                outcome.end = End.BROKEN if begun else End.FAILED
        except asyncio.CancelledError:
            outcome.end = End.UNFINISHED
            raise
        return None if begun else backoff_s(retry, self._dice)

    def _refused(self, outcome: Outcome, headers: Mapping[str, str], retry: int) -> float | None:
        advice_s = advised_wait_s(headers)
        if outcome.status in _REFUSALS:
            outcome.end = End.REFUSED
            outcome.refusals_with_advice += advice_s is not None
            outcome.refusals_without += advice_s is None
        if not should_retry(outcome.status, headers):
            return None
        if advice_s is None or advice_s <= 0:
            return backoff_s(retry, self._dice)
        return advice_s if advice_s <= _RETRY_AFTER_MAX_S else None


def should_retry(status: int, headers: Mapping[str, str]) -> bool:
    """The SDK's rule."""
    said = headers.get("x-should-retry")
    if said in {"true", "false"}:
        return said == "true"
    return status in _RETRIED or status >= 500


def advised_wait_s(headers: Mapping[str, str]) -> float | None:
    """What the server says of when to come back; dates are not read, nobody here sends one."""
    for name, unit_s in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        try:
            return float(headers[name]) * unit_s
        except (KeyError, ValueError):
            continue
    return None


def backoff_s(retry: int, dice: random.Random) -> float:
    """The SDK's own wait."""
    return min(0.5 * 2.0**retry, 8.0) * (1 - 0.25 * dice.random())


def session() -> aiohttp.ClientSession:
    """Connections for a whole crowd."""
    timeout = aiohttp.ClientTimeout(
        total=None, sock_connect=_CONNECT_TIMEOUT_S, sock_read=SDK_TIMEOUT_S
    )
    connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=5.0)
    return aiohttp.ClientSession(connector=connector, timeout=timeout)


def _headers(retry: int, key: str) -> dict[str, str]:
    return {
        "Authorization": f"Bearer {key}",
        "x-stainless-retry-count": str(retry),
        "x-stainless-read-timeout": f"{SDK_TIMEOUT_S:.0f}",
    }


def _body(arrival: Arrival) -> dict[str, object]:
    return {
        "model": MODEL,
        "messages": [{"role": "user", "content": arrival.prompt}],
        "max_tokens": arrival.output_tokens,
        "ignore_eos": True,
        "stream": True,
    }


async def _read(response: aiohttp.ClientResponse, outcome: Outcome, started_s: float) -> None:
    """Take the stream to its end, and judge the end."""
    outcome.end = End.BROKEN
    rest = b""
    async for chunk in response.content.iter_any():
        at_s = now_s() - started_s
        *events, rest = (rest + chunk.replace(b"\r\n", b"\n")).split(b"\n\n")
        for event in events:
            for line in event.split(b"\n"):
                if line.startswith(b"data:") and not line.endswith(b"[DONE]"):
                    take(line[5:], outcome, at_s)


def take(data: bytes, outcome: Outcome, at_s: float) -> None:
    """One event of a stream. An end is BROKEN until there is a better word for it."""
    try:
        event = _DECODER.decode(data)
    except msgspec.MsgspecError:
        return
    if event.error is not None:
        outcome.end = End.ERROR_EVENT
    for choice in event.choices:
        if choice.delta.content:
            outcome.token_times_s.append(at_s)
        if choice.finish_reason in {"length", "stop"} and outcome.end is End.BROKEN:
            outcome.end = End.FINISHED
