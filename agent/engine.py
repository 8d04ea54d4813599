"""One engine's HTTP API, as its agent uses it.

Rules: every call has a time limit and every answer a size limit; what can go wrong is a value, not
an exception; no redirects, proxies or cookies; the engine's API key goes to /v1 only. One
kept-alive connection carries /metrics; /health takes a new one each time, because an engine that
shuts down may serve old connections long after its port refuses new ones.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Annotated, TypeVar

import aiohttp
import msgspec

from agent.core.exposition import TEXT_LIMIT_BYTES
from trimtab.model import Outcome
from trimtab.policy.classify import Failure, Fault, classify

TIMEOUT_S = 5.0
"""Beyond what a starved engine needs to answer (2 s were seen). Silence is judged long before, but
asking anew too early would throw away the answer that proves the engine alive."""
KEEP_ALIVE_S = 3.0
"""Below the 5 s after which vLLM closes an idle connection."""
MODELS_LIMIT = 64
ADAPTERS_LIMIT = 128  # as the proto promises
TEXT_LIMIT_CHARS = 256
T = TypeVar("T")
Tokens = Annotated[int, msgspec.Meta(ge=1, le=2**53)]


@dataclass(frozen=True, slots=True)
class Answered:
    """A whole answer, whatever its status."""

    status: int
    body: bytes


@dataclass(frozen=True, slots=True)
class Refused:
    """No connection could be made."""


@dataclass(frozen=True, slots=True)
class Silent:
    """A connection, but no whole answer in time."""

    detail: str


Result = Answered | Refused | Silent


@dataclass(frozen=True, slots=True)
class Probed:
    """How a probe ended, and what was wrong; a full engine and an unfit probe are no failures."""

    outcome: Outcome
    detail: str = ""


class Model(msgspec.Struct, frozen=True):
    """An entry of /v1/models; a LoRA adapter names the model it belongs to as its parent."""

    id: str
    max_model_len: Tokens | None = None
    parent: str | None = None


class _Models(msgspec.Struct, frozen=True):
    data: list[Model]


class _Version(msgspec.Struct, frozen=True):
    version: str


class _Choice(msgspec.Struct, frozen=True):
    finish_reason: str | None = None


class _Completion(msgspec.Struct, frozen=True):
    choices: list[_Choice]


class EngineClient:
    """Asks one engine."""

    def __init__(
        self,
        kept: aiohttp.ClientSession,
        fresh: aiohttp.ClientSession,
        url: str,
        api_key: str,
        timeout_s: float,
    ) -> None:
        self._kept = kept
        self._fresh = fresh
        self._url = url
        self._timeout_s = timeout_s
        self._key_headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}

    async def metrics(self) -> Result:
        """The /metrics page."""
        return await self._ask("GET", "/metrics")

    async def health(self) -> Result:
        """What /health says to somebody new."""
        return await self._ask("GET", "/health", session=self._fresh)

    async def models(self) -> tuple[Model, ...]:
        """What it serves: models, the one it was started with first, then their LoRA adapters.

        Empty when it does not say. What adapters are made of, a path, is not read.
        """
        result = await self._ask("GET", "/v1/models", headers=self._key_headers)
        listing = _decode(result, _Models)
        if listing is None:
            return ()
        named = [m for m in listing.data if 0 < len(m.id) <= TEXT_LIMIT_CHARS]
        models = [m for m in named if not m.parent]
        adapters = [m for m in named if m.parent]
        return (*models[:MODELS_LIMIT], *adapters[:ADAPTERS_LIMIT])

    async def version(self) -> str:
        """vLLM's version; empty when it does not say."""
        answer = _decode(await self._ask("GET", "/version"), _Version)
        return answer.version[:TEXT_LIMIT_CHARS] if answer else ""

    async def probe(self, model: str, timeout_s: float) -> Probed:
        """Ask for one token."""
        result = await self._ask(
            "POST",
            "/v1/completions",
            headers=self._key_headers,
            json={"model": model, "prompt": "Hello", "max_tokens": 1, "temperature": 0},
            timeout_s=timeout_s,
        )
        if isinstance(result, Refused):
            return Probed(classify(Failure(Fault.REFUSED)), "refused")
        if isinstance(result, Silent):
            return Probed(classify(Failure(Fault.SILENT)), result.detail)
        completion = _decode(result, _Completion)
        if completion is None:
            return Probed(_blame(result), f"HTTP {result.status}")
        # During its drain vLLM answers 200 with nothing in it, or with an abort.
        if any(choice.finish_reason not in {None, "abort"} for choice in completion.choices):
            return Probed(Outcome.OK)
        return Probed(classify(Failure(Fault.EMPTY)), "an answer without a token")

    async def _ask(
        self,
        method: str,
        path: str,
        *,
        headers: Mapping[str, str] | None = None,
        json: object = None,
        timeout_s: float | None = None,
        session: aiohttp.ClientSession | None = None,
    ) -> Result:
        timeout_s = timeout_s or self._timeout_s
        try:
            async with (session or self._kept).request(
                method,
                self._url + path,
                headers=headers,
                json=json,
                allow_redirects=False,
                timeout=aiohttp.ClientTimeout(total=timeout_s),
            ) as response:
                body = await _bounded(response)
                return Answered(response.status, body)
        except TimeoutError:
            return Silent(f"no answer in {timeout_s:g} s")
        except aiohttp.ClientConnectorError:
            return Refused()
        except (aiohttp.ClientError, OSError) as error:
            return Silent(type(error).__name__)


@asynccontextmanager
async def connect(
    url: str, api_key: str, timeout_s: float = TIMEOUT_S
) -> AsyncIterator[EngineClient]:
    """A client with connections of its own, so that engines can't hold up each other."""
    kept = aiohttp.TCPConnector(limit=4, keepalive_timeout=KEEP_ALIVE_S)
    fresh = aiohttp.TCPConnector(limit=1, force_close=True)
    async with _session(kept) as kept_session, _session(fresh) as fresh_session:
        yield EngineClient(kept_session, fresh_session, url, api_key, timeout_s)


def _session(connector: aiohttp.TCPConnector) -> aiohttp.ClientSession:
    return aiohttp.ClientSession(
        connector=connector,
        cookie_jar=aiohttp.DummyCookieJar(),
        headers={"User-Agent": "trimtab-agent", "Accept-Encoding": "identity"},
        auto_decompress=False,
    )


async def _bounded(response: aiohttp.ClientResponse) -> bytes:
    body = bytearray()
    async for chunk in response.content.iter_any():
        body += chunk
        if len(body) > TEXT_LIMIT_BYTES:
            raise aiohttp.ClientPayloadError
    return bytes(body)


def _blame(answer: Answered) -> Outcome:
    if answer.status == 200:
        return Outcome.SOFT  # it is no completion
    if answer.status in {401, 403}:
        return Outcome.UNKNOWN  # the edges' key may be another
    return classify(Failure(Fault.STATUS, answer.status, answer.body.decode(errors="replace")))


def _decode(result: Result, shape: type[T]) -> T | None:
    if not isinstance(result, Answered) or result.status != 200:
        return None
    try:
        return msgspec.json.decode(result.body, type=shape)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
