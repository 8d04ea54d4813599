"""Callers of a chaos run: each asks once, knows what the answer must be, and notes how it ended.

Rules: no retries, so every end is seen; the simulated model's text is a function of its prompt, so
each answer is compared with what it must be, also the part that a broken one had; a stream has a
proper end only with its finish reason, its usage, [DONE] and the end of its HTTP body.
"""

from __future__ import annotations

import asyncio
import enum
import json
import random
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import aiohttp

from bench.chaos.fleet import KEY, MODEL, capacity_tokens_s
from sim.openai_request import render_chat
from sim.text import Limits, write
from trimtab.runtime.clock import now_s

TOKENS = (20, 60)
SLOW_TOKENS = 150
PATIENCE_S = 45.0  # told to the edge, as SDKs do
NEVER_S = 70.0  # an end that has not come by then never comes
BURST = 2.5
_FLOOD_WORDS = 6_000


class Manner(enum.Enum):
    """How a caller behaves."""

    PATIENT = "patient"
    LEAVES = "leaves before the end"
    SLOW_READER = "reads slowly"
    SLOW_SENDER = "sends its body slowly"


MANNERS = (Manner.PATIENT, Manner.LEAVES, Manner.SLOW_READER, Manner.SLOW_SENDER)
SHARES = (0.8, 0.13, 0.03, 0.04)


class End(enum.Enum):
    """How a request ended for its caller."""

    WHOLE = "whole"
    REFUSED = "refused"  # a status that is none of success
    TOLD = "told"  # an error event, then a cut: an honest end of a stream that broke
    LEFT = "left"
    CUT = "cut"  # a stream that was cut without a word
    NO_ANSWER = "no answer"
    NEVER = "never"
    LIE = "lie"  # what looks whole, and is not


@dataclass(slots=True)
class Ask:
    """One request."""

    number: int
    prompt: str
    tokens: int
    stream: bool
    chat: bool
    manner: Manner
    leaves_s: float = 0.0
    began_s: float = 0.0
    ended_s: float = 0.0
    end: End = End.NEVER
    status: int = 0
    what: str = ""
    """The error's code, or what is wrong."""
    request_id: str = ""

    @property
    def caller_id(self) -> str:
        """By what its record is found."""
        return f"chaos-{self.number}"

    def body(self) -> dict[str, Any]:
        """What to send."""
        said: dict[str, Any] = {"model": MODEL, "max_tokens": self.tokens, "ignore_eos": True}
        if self.chat:
            said["messages"] = [{"role": "user", "content": self.prompt}]
        else:
            said["prompt"] = self.prompt
        if self.stream:
            said |= {"stream": True, "stream_options": {"include_usage": True}}
        return said

    def expected(self) -> str:
        """The one right answer."""
        body = self.body()
        prompt = render_chat(body) if self.chat else self.prompt.encode()
        return "".join(write(prompt, Limits(self.tokens, ignore_eos=True)).pieces)


@dataclass(slots=True)
class Heard:
    """What came of a stream."""

    text: str = ""
    finish: str | None = None
    made_tokens: int | None = None
    done: bool = False
    error: str = ""
    rest: bytes = b""

    def take(self, chunk: bytes) -> None:
        """More bytes."""
        *events, self.rest = (self.rest + chunk).split(b"\n\n")
        for event in events:
            data = event.removeprefix(b"data: ")
            if data == b"[DONE]":
                self.done = True
            elif not data.startswith(b":"):
                self._event(json.loads(data))

    def _event(self, event: dict[str, Any]) -> None:
        if "error" in event:
            self.error = str(event["error"]["code"])
        for choice in event.get("choices", ()):
            self.text += choice.get("text") or choice.get("delta", {}).get("content") or ""
            self.finish = choice["finish_reason"] or self.finish
        if event.get("usage"):
            self.made_tokens = event["usage"]["completion_tokens"]

    def flaw(self, ask: Ask) -> str:
        """Why this is no whole answer, if it looks like one."""
        if self.error:
            return "a clean end after an error"
        if not self.done or self.finish != "length":
            return f"a clean end of a part ({self.finish}, [DONE]: {self.done})"
        if self.text != ask.expected():
            return "another text"
        if self.made_tokens != ask.tokens:
            return f"usage of {self.made_tokens} for {ask.tokens} tokens"
        return ""


@dataclass(slots=True)
class Crowd:
    """All callers."""

    http: aiohttp.ClientSession
    url: str
    load: float
    seed: int
    asks: list[Ask] = field(default_factory=list)
    crowding: float = 1.0
    """How many times as many come."""
    stopped: bool = False

    async def run(self) -> None:
        """Come one after another until told to stop; returns when all have ended."""
        dice = random.Random(self.seed)  # noqa: S311 - must repeat
        mean = (1 - SHARES[2]) * sum(TOKENS) / 2 + SHARES[2] * SLOW_TOKENS
        rate = self.load * capacity_tokens_s() / mean
        async with asyncio.TaskGroup() as group:
            while not self.stopped:
                await asyncio.sleep(dice.expovariate(rate * self.crowding))
                _ = group.create_task(self.ask(self._next(dice)))

    async def trouble(self, how: str, lasts_s: float) -> None:
        """What callers do to a fleet, for so long."""
        dice = random.Random(f"{self.seed} {how} {len(self.asks)}")  # noqa: S311
        if how == "burst":
            self.crowding = BURST
            await asyncio.sleep(lasts_s)
            self.crowding = 1.0
            return
        async with asyncio.TaskGroup() as group:
            for _ in range(60 if how == "storm" else 12):
                ask = self._next(dice)
                if how == "storm":
                    ask.manner, ask.leaves_s = Manner.LEAVES, dice.uniform(0.1, 1.0)
                else:
                    ask.prompt = " ".join([f"{ask.number}", *["word"] * _FLOOD_WORDS])
                _ = group.create_task(self.ask(ask))

    async def fill(self, count: int) -> list[Ask]:
        """So many patient ones at once."""
        dice = random.Random(self.seed)  # noqa: S311
        asks = [self._next(dice) for _ in range(count)]
        async with asyncio.TaskGroup() as group:
            for ask in asks:
                ask.manner, ask.tokens = Manner.PATIENT, TOKENS[1]
                _ = group.create_task(self.ask(ask))
        return asks

    def _next(self, dice: random.Random) -> Ask:
        manner = dice.choices(MANNERS, SHARES)[0]
        slow = manner is Manner.SLOW_READER
        tokens = SLOW_TOKENS if slow else dice.randint(*TOKENS)
        number = len(self.asks)
        stream, chat = slow or dice.random() < 0.7, dice.random() < 0.5
        prompt = f"Question {number} of seed {self.seed}?"
        ask = Ask(number, prompt, tokens, stream, chat, manner, dice.uniform(0.1, 2.5))
        self.asks.append(ask)
        return ask

    async def ask(self, ask: Ask) -> None:
        """Ask, and note how it ends."""
        ask.began_s = now_s()
        try:
            async with asyncio.timeout(NEVER_S):
                try:
                    leaves_s = ask.leaves_s if ask.manner is Manner.LEAVES else None
                    async with asyncio.timeout(leaves_s):
                        await self._ask(ask)
                except TimeoutError:
                    ask.end = End.LEFT
        except TimeoutError:
            ask.end = End.NEVER
        except aiohttp.ClientError as error:
            ask.end, ask.what = End.NO_ANSWER, type(error).__name__
        except (ValueError, KeyError, TypeError) as error:
            ask.end, ask.what = End.LIE, f"unreadable: {error!r}"[:200]
        ask.ended_s = now_s()

    async def _ask(self, ask: Ask) -> None:
        body = json.dumps(ask.body()).encode()
        slowly = ask.manner is Manner.SLOW_SENDER
        async with self.http.post(
            f"{self.url}/v1/{'chat/completions' if ask.chat else 'completions'}",
            data=_dripping(body) if slowly else body,
            headers={
                "authorization": f"Bearer {KEY}",
                "content-type": "application/json",
                "x-request-id": ask.caller_id,
                "x-stainless-read-timeout": f"{PATIENCE_S:g}",
            },
        ) as answer:
            ask.status, ask.request_id = answer.status, answer.headers.get("x-request-id", "")
            if answer.status != 200:
                ask.end, ask.what = End.REFUSED, (await answer.json())["error"]["code"]
            elif ask.stream:
                await _hear(answer, ask)
            else:
                _judge(await answer.json(), ask)


async def _dripping(body: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(body), len(body) // 3):
        yield body[start : start + len(body) // 3]
        await asyncio.sleep(0.3)


async def _hear(answer: aiohttp.ClientResponse, ask: Ask) -> None:
    heard = Heard()
    try:
        async for chunk in answer.content.iter_any():
            heard.take(chunk)
            if ask.manner is Manner.SLOW_READER:
                await asyncio.sleep(0.1)
    except aiohttp.ClientError:
        heard.take(b"".join(answer.content._buffer))  # noqa: SLF001 - unread when it was cut
        ask.end, ask.what = (End.TOLD, heard.error) if heard.error else (End.CUT, "")
    else:
        ask.what = heard.flaw(ask)
        ask.end = End.LIE if ask.what else End.WHOLE
    if not ask.expected().startswith(heard.text):
        ask.end, ask.what = End.LIE, "another text, in part"


def _judge(answer: dict[str, Any], ask: Ask) -> None:
    """A plain answer."""
    choice = answer["choices"][0]
    text = choice["message"]["content"] if ask.chat else choice["text"]
    heard = Heard(text, choice["finish_reason"], answer["usage"]["completion_tokens"], done=True)
    ask.what = heard.flaw(ask)
    ask.end = End.LIE if ask.what else End.WHOLE
