"""Is there a vLLM? Asks an address what it is; never more than a second, all addresses at once.

What looks like vLLM: `GET /version` names a version, and `GET /v1/models` lists models owned by
vllm, or wants a key. Judging the answers is pure.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

import aiohttp
import msgspec

PORTS = range(8000, 8008)
TIMEOUT_S = 1.0


class Kind(Enum):
    """What answers at an address."""

    VLLM = "vLLM"
    LOCKED = "vLLM that wants a key"
    OTHER = "something else"
    SILENT = "no answer"
    REFUSED = "nobody"


@dataclass(frozen=True, slots=True)
class Found:
    """What an address turned out to be."""

    url: str
    kind: Kind
    version: str = ""
    models: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Answer:
    """An HTTP answer, as far as it matters here."""

    status: int
    body: bytes = b""


class _Version(msgspec.Struct):
    version: str


class _Model(msgspec.Struct):
    id: str
    owned_by: str = ""


class _Models(msgspec.Struct):
    data: list[_Model]


class _Readiness(msgspec.Struct):
    open_replicas: int


def judge(url: str, version: Answer, models: Answer) -> Found:
    """Make out what gave these answers to /version and /v1/models."""
    try:
        name = msgspec.json.decode(version.body, type=_Version).version
        if models.status in {401, 403}:
            return Found(url, Kind.LOCKED, name)
        listed = msgspec.json.decode(models.body, type=_Models).data
    except msgspec.DecodeError:
        return Found(url, Kind.OTHER)
    if version.status != 200 or models.status != 200 or not listed:
        return Found(url, Kind.OTHER)
    if listed[0].owned_by != "vllm":
        return Found(url, Kind.OTHER)
    return Found(url, Kind.VLLM, name, tuple(model.id for model in listed))


async def look(urls: Sequence[str], key: str = "") -> list[Found]:
    """Ask all these base URLs, at once."""
    timeout = aiohttp.ClientTimeout(total=TIMEOUT_S)
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    async with aiohttp.ClientSession(timeout=timeout, headers=headers) as session:
        return await asyncio.gather(*(_ask(session, url.rstrip("/")) for url in urls))


async def has_rotation(base_url: str) -> bool:
    """Whether our own endpoint has a replica to send to now."""
    timeout = aiohttp.ClientTimeout(total=TIMEOUT_S)
    try:
        async with aiohttp.ClientSession(timeout=timeout) as session:
            answer = await _get(session, f"{base_url.removesuffix('/v1')}/readyz")
        return msgspec.json.decode(answer.body, type=_Readiness).open_replicas > 0
    except (aiohttp.ClientError, TimeoutError, msgspec.DecodeError):
        return False


async def served(base_url: str, key: str) -> tuple[str, ...]:
    """The models that an endpoint lists now; none when it does not answer as it should."""
    timeout = aiohttp.ClientTimeout(total=TIMEOUT_S)
    headers = {"Authorization": f"Bearer {key}"}
    try:
        async with aiohttp.ClientSession(timeout=timeout, headers=headers) as session:
            answer = await _get(session, f"{base_url}/models")
        return tuple(model.id for model in msgspec.json.decode(answer.body, type=_Models).data)
    except (aiohttp.ClientError, TimeoutError, msgspec.DecodeError):
        return ()


async def _ask(session: aiohttp.ClientSession, url: str) -> Found:
    try:
        version = await _get(session, f"{url}/version")
        return judge(url, version, await _get(session, f"{url}/v1/models"))
    except (aiohttp.ClientConnectorError, ConnectionError):
        return Found(url, Kind.REFUSED)
    except TimeoutError:
        return Found(url, Kind.SILENT)
    except aiohttp.ClientError:
        return Found(url, Kind.OTHER)


async def _get(session: aiohttp.ClientSession, url: str) -> Answer:
    async with session.get(url, allow_redirects=False) as response:
        return Answer(response.status, await response.read())
