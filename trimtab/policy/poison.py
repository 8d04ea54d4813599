"""A prompt that breaks engines is stopped after the second one.

Rules. A strike is an attempt that failed before its first byte by the engine's doing. Strikes of
one kind on two replicas block the same prompt of the same tenant for BLOCK_S; one more strike later
blocks it again. The kinds are never added up: the engine died of it (HARD, or its connection was
cut), or answered with an error and lived (SOFT).

Innocent prompts are on engines that die, too, and a broken engine fails everything. So a strike
needs an engine that had taken the request: what was refused, pushed back, timed out or lost on the
way says nothing. (A kept-alive connection that closed may be a quick death: it counts.) And it
needs one that was at work when the request came: the newest that others got of it was an answer,
and not long ago if answers were under way. So nothing that comes to an engine that fails or stands
still for everybody is struck, but for what came before the first sign of it.

A death counts within SOON_S of the request: after later signs of life its cause is another. Errors
count only on engines that failed nobody else lately: where chance fails a third of all, a ninth
would be blocked. A death does not need that, because the third engine is worth more than a prompt.
To be blocked, an innocent one must meet two engines just before their ends: that is rare unless it
travels with a killer, and two dead engines need longer than BLOCK_S to be back.

Prompts are known by a keyed hash and never kept; the oldest of LIMIT cases is forgotten first, each
one MEMORY_S after its last strike. Each edge has its own guard.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from dataclasses import dataclass, field
from enum import Enum, IntEnum, auto

from trimtab.model import Outcome
from trimtab.policy.classify import Failure, Fault, classify

REPLICAS_MAX = 2
BLOCK_S = 60.0
MEMORY_S = 600.0
LIMIT = 1_024
WELL_S = 2.0  # without a byte of any stream under way: it may stand still
SOON_S = 10.0  # a prompt is computed first, but may wait for its turn and be long
FAILURES = frozenset({Outcome.SOFT, Outcome.HARD, Outcome.PATH, Outcome.UNKNOWN})
LATELY_S = 60.0  # an older failure says little


class Way(Enum):
    """How engines fail on prompts."""

    DIED = auto()
    FAILED = auto()


class Health(IntEnum):
    """What a request that comes to a replica finds there."""

    BROKEN = auto()
    WORKING = auto()  # and yet it failed somebody lately
    WELL = auto()


@dataclass(slots=True)
class Witness:
    """What others get from one replica."""

    served_s: float = float("-inf")
    failed_s: float = float("-inf")

    def observe(self, outcome: Outcome, now_s: float) -> None:
        """An attempt ended so."""
        if outcome is Outcome.OK:
            self.served_s = now_s
        elif outcome in FAILURES:
            self.failed_s = now_s

    def health(self, now_s: float, *, streaming: bool) -> Health:
        """What a request that comes now finds; `streaming`: answers are under way."""
        failed = now_s - self.failed_s <= LATELY_S
        silent = streaming and now_s - self.served_s > WELL_S
        if silent or (failed and self.failed_s >= self.served_s):
            return Health.BROKEN
        return Health.WORKING if failed else Health.WELL


def strike(failure: Failure, health: Health, started_s: float, served_s: float) -> Way | None:
    """What an attempt that failed before its first byte says against its prompt, if anything.

    `health`: of the replica at its start; `served_s`: when others last got something of it.
    """
    outcome = Outcome.HARD if failure.fault is Fault.STALE else classify(failure)
    if health is Health.BROKEN or outcome not in {Outcome.SOFT, Outcome.HARD}:
        return None
    if failure.fault is Fault.REFUSED or failure.status in {401, 403}:  # not taken; our own key
        return None
    if outcome is Outcome.SOFT and failure.fault is not Fault.CUT:
        return Way.FAILED if health is Health.WELL else None
    return Way.DIED if served_s - started_s <= SOON_S else None


def fingerprint(secret: bytes, tenant: str, path: str, body: bytes) -> bytes:
    """By what a prompt is known: useless without the secret."""
    head = f"{len(tenant)} {tenant}{path}\n".encode()
    return hashlib.blake2b(head + body, key=secret, digest_size=16).digest()


@dataclass(frozen=True, slots=True)
class Incident:
    """Why a prompt is blocked, and for how long still."""

    name: str
    way: Way
    replicas: tuple[str, ...]
    left_s: float


@dataclass(slots=True)
class _Case:
    name: str
    strikes: dict[Way, list[str]] = field(default_factory=dict)
    struck_s: float = 0.0
    way: Way | None = None
    """Set once it was blocked."""


class Guard:
    """The cases of one edge."""

    def __init__(self) -> None:
        self._cases: OrderedDict[bytes, _Case] = OrderedDict()

    def __len__(self) -> int:
        return len(self._cases)

    def struck(self, prompt: bytes, way: Way, replica: str, name: str, now_s: float) -> None:
        """A strike; `name` is what the incident is called when it is the deciding one."""
        case = self._cases.get(prompt)
        if case is None or now_s - case.struck_s > MEMORY_S:
            case = self._cases[prompt] = _Case(name)
        self._cases.move_to_end(prompt)
        if len(self._cases) > LIMIT:
            self._cases.popitem(last=False)
        replicas = case.strikes.setdefault(way, [])
        if replica not in replicas:
            replicas.append(replica)
        case.struck_s = now_s
        if len(replicas) >= REPLICAS_MAX:
            case.way, case.name = way, name
            del replicas[:-REPLICAS_MAX]

    def incident(self, prompt: bytes, now_s: float) -> Incident | None:
        """Why this prompt must not run now."""
        case = self._cases.get(prompt)
        if case is None or case.way is None or now_s - case.struck_s >= BLOCK_S:
            return None
        left_s = BLOCK_S - (now_s - case.struck_s)
        return Incident(case.name, case.way, tuple(case.strikes[case.way]), left_s)
