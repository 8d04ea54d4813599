"""Users of the official openai client who ask all the time, and what they saw when.

Rules: retries of the client are off, so that every failure is seen; half of the users stream; a
user stays with one edge, as without a load balancer in front, until all are told to move to one.
"""

from __future__ import annotations

import asyncio
import itertools
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import openai

from trimtab.runtime import clock

TOKENS = 60
PAUSE_S = (0.05, 0.75)  # after an answer or a refusal; drawn, so that users are not in step
TIMEOUT_S = 60.0


@dataclass(frozen=True, slots=True)
class Ask:
    """One request's end."""

    edge: int
    ended_s: float
    error: str
    """Empty: a whole answer."""


@dataclass(slots=True)
class Load:
    """The users and their memory."""

    endpoints: Sequence[str]
    key: str
    model: str
    tokens: int = TOKENS
    asks: list[Ask] = field(default_factory=list)
    _stopped: bool = False
    _moved_to: int | None = None

    async def run(self, users: int) -> None:
        """Ask until told to stop."""
        async with asyncio.TaskGroup() as group:
            for number in range(users):
                _ = group.create_task(self._user(number))

    def move(self, edge: int) -> None:
        """From its next request on everybody asks this one edge."""
        self._moved_to = edge

    def stop(self) -> None:
        """Let every user finish."""
        self._stopped = True

    def between(self, from_s: float, to_s: float, edge: int | None = None) -> list[Ask]:
        """Those that ended in a stretch of time."""
        return [
            ask
            for ask in self.asks
            if from_s <= ask.ended_s < to_s and (edge is None or ask.edge == edge)
        ]

    async def _user(self, number: int) -> None:
        dice = random.Random(number)  # noqa: S311 - pauses
        edge = number % len(self.endpoints)
        stream = number // len(self.endpoints) % 2 == 0
        async with openai.AsyncOpenAI(
            base_url=self.endpoints[edge], api_key=self.key, max_retries=0, timeout=TIMEOUT_S
        ) as client:
            while not self._stopped:
                if self._moved_to is not None:
                    edge = self._moved_to
                    client.base_url = self.endpoints[edge]
                error = await self._ask(client, f"user {number}", stream=stream)
                self.asks.append(Ask(edge, clock.now_s(), error))
                await asyncio.sleep(dice.uniform(*PAUSE_S))

    async def _ask(self, client: openai.AsyncOpenAI, prompt: str, *, stream: bool) -> str:
        """Ask once; what went wrong."""
        kind = "stream" if stream else "plain"
        try:
            finished = await (self._stream if stream else self._plain)(client, prompt)
        except openai.APIConnectionError:
            return f"{kind}: no connection"
        except openai.APIError as error:
            return f"{kind}: {error.code or type(error).__name__}"
        return "" if finished == "length" else f"{kind}: cut off"

    async def _stream(self, client: openai.AsyncOpenAI, prompt: str) -> str | None:
        finished = None
        async for chunk in await client.completions.create(
            model=self.model, prompt=prompt, max_tokens=self.tokens, stream=True,
            extra_body={"ignore_eos": True},
        ):  # fmt: skip
            finished = chunk.choices[0].finish_reason
        return finished

    async def _plain(self, client: openai.AsyncOpenAI, prompt: str) -> str | None:
        whole = await client.completions.create(
            model=self.model, prompt=prompt, max_tokens=self.tokens, extra_body={"ignore_eos": True}
        )
        return whole.choices[0].finish_reason


def errors(asks: Sequence[Ask]) -> Counter[str]:
    """What went wrong, how often."""
    return Counter(ask.error for ask in asks if ask.error)


def longest_gap_s(asks: Sequence[Ask], from_s: float, to_s: float) -> float:
    """The longest time in which nobody got a whole answer."""
    moments = sorted(ask.ended_s for ask in asks if not ask.error and from_s <= ask.ended_s < to_s)
    edges = [from_s, *moments, to_s]
    return max(later - earlier for earlier, later in itertools.pairwise(edges))
