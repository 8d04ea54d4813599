"""What goes wrong in a chaos run, and when: a deck of faults, shuffled, one after another.

Rules: pure; a fault has one place where it happens and an end, and is followed by a calm in which
the fleet must recover; a run that is longer than the deck deals it again in another order.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal

Place = Literal["engine", "every engine", "wire", "agent", "controlplane", "edge", "callers"]
CALM_S = 5.0
FIRST_S = 15.0  # all is well until then


@dataclass(frozen=True, slots=True)
class Fault:
    """One kind of trouble."""

    title: str
    place: Place
    lasts_s: float
    how: str = ""
    """`killed`, `frozen`: the process; of a wire and of callers, see there."""
    order: Mapping[str, object] = field(default_factory=dict)
    """Of an engine: what to post to it."""
    parting: Mapping[str, object] = field(default_factory=dict)
    """What to post in the end, beside that all is well again."""


@dataclass(frozen=True, slots=True)
class Strike:
    """A fault at a time, at one of the three."""

    at_s: float
    fault: Fault
    victim: int

    @property
    def healed_s(self) -> float:
        """When it ends."""
        return self.at_s + self.fault.lasts_s


_AT = {"after_tokens": 6}
DECK = (
    Fault("engine: kill -9, started again", "engine", 6.0, "killed"),
    Fault("engine: kill -9, again when it is back", "engine", 2.0, "killed"),
    Fault("engine: SIGSTOP, its API too", "engine", 12.0, "frozen"),
    Fault("engine: its core hangs behind a live API", "engine", 12.0, order={"freeze": True}),
    Fault("engine: four times slower", "engine", 12.0, order={"slow": 4.0}),
    Fault("engine: restarted, cold for 4 s", "engine", 1.0, parting={"cold_start_s": 4.0}),
    Fault("engine: 503 to all", "engine", 8.0, order={"reject": True}),
    Fault("engine: 503 above 4 in it", "engine", 10.0, order={"queue_limit": 4}),
    Fault("every engine: 503 above 6 in it", "every engine", 8.0, order={"queue_limit": 6}),
    Fault("engine: 500 to one in ten", "engine", 10.0, order={"error_rate": 0.1}),
    Fault("engine: 500 to all", "engine", 8.0, order={"error_rate": 1.0}),
    Fault("every engine: 500 to all", "every engine", 5.0, order={"error_rate": 1.0}),
    Fault("engine: an error in every stream", "engine", 8.0, order={"error_in_stream": 6}),
    Fault('engine: ends every answer with "abort"', "engine", 8.0, order={"abort_after": 6}),
    Fault("engine: streams with nothing in them", "engine", 8.0, order={"empty_stream": True}),
    Fault("engine: dies in a stream", "engine", 6.0, order={"die_mid_stream": _AT}),
    Fault(
        "engine: its core dies in a stream",
        "engine",
        6.0,
        order={"die_mid_stream": {**_AT, "mode": "enginecore"}},
    ),
    Fault("engine: refuses connections, streams silent",
          "engine", 8.0, order={"refuse": True, "freeze": True}),
    Fault("wire: all connections reset, three times", "wire", 6.0, "reset"),
    Fault("wire: bytes of answers are garbled", "wire", 8.0, "garble"),
    Fault("wire: half-open, nothing passes", "wire", 10.0, "hold"),
    Fault("wire: 300 ms late", "wire", 10.0, "delay"),
    Fault("agent: kill -9", "agent", 8.0, "killed"),
    Fault("agent: SIGSTOP", "agent", 8.0, "frozen"),
    Fault("control plane: kill -9", "controlplane", 8.0, "killed"),
    Fault("control plane: SIGSTOP", "controlplane", 10.0, "frozen"),
    Fault("edge: SIGSTOP for 2 s", "edge", 2.0, "frozen"),
    Fault("callers: 2.5 times as many", "callers", 8.0, "burst"),
    Fault("callers: 60 come at once, and leave soon", "callers", 3.0, "storm"),
    Fault("callers: 12 prompts of 6,000 tokens", "callers", 6.0, "flood"),
)  # fmt: skip


def schedule(seed: int, length_s: float) -> list[Strike]:
    """What happens in a run of this length, which ends in a calm."""
    dice = random.Random(seed)  # noqa: S311 - must repeat
    strikes: list[Strike] = []
    at_s = FIRST_S
    for fault in itertools.chain.from_iterable(_decks(dice)):
        if at_s + fault.lasts_s + CALM_S > length_s:
            return strikes
        strikes.append(Strike(at_s, fault, dice.randrange(3)))
        at_s += fault.lasts_s + CALM_S
    raise AssertionError("decks never end")


def _decks(dice: random.Random) -> Iterator[list[Fault]]:
    while True:
        yield dice.sample(DECK, len(DECK))
