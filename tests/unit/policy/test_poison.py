"""policy/poison: killers are stopped at the second engine, and the innocent are left alone."""

from __future__ import annotations

import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trimtab.model import Outcome
from trimtab.policy.classify import Failure, Fault
from trimtab.policy.poison import (
    BLOCK_S,
    LATELY_S,
    LIMIT,
    MEMORY_S,
    SOON_S,
    WELL_S,
    Guard,
    Health,
    Way,
    Witness,
    fingerprint,
    strike,
)

NEVER = float("-inf")
DEAD = "EngineCore encountered an issue"


@pytest.mark.parametrize(
    ("failure", "health", "way"),
    [
        (Failure(Fault.CUT), Health.WELL, Way.DIED),
        (Failure(Fault.CUT), Health.WORKING, Way.DIED),
        (Failure(Fault.CUT), Health.BROKEN, None),
        (Failure(Fault.LOST), Health.WELL, Way.DIED),
        (Failure(Fault.EMPTY), Health.WELL, Way.DIED),
        (Failure(Fault.ABORTED), Health.WELL, Way.DIED),
        (Failure(Fault.STATUS, 500, DEAD), Health.WELL, Way.DIED),
        (Failure(Fault.STATUS, 500, "boom"), Health.WELL, Way.FAILED),
        (Failure(Fault.STATUS, 500, "boom"), Health.WORKING, None),
        (Failure(Fault.MALFORMED), Health.WELL, Way.FAILED),
        (Failure(Fault.REFUSED), Health.WELL, None),
        (Failure(Fault.UNREACHABLE), Health.WELL, None),
        (Failure(Fault.STALE), Health.WELL, Way.DIED),
        (Failure(Fault.SILENT), Health.WELL, None),
        (Failure(Fault.CLIENT_GONE), Health.WELL, None),
        (Failure(Fault.STATUS, 503), Health.WELL, None),
        (Failure(Fault.STATUS, 429), Health.WELL, None),
        (Failure(Fault.STATUS, 400), Health.WELL, None),
        (Failure(Fault.STATUS, 401), Health.WELL, None),
    ],
)
def test_only_what_a_working_engine_did_is_a_strike(
    failure: Failure, health: Health, way: Way | None
) -> None:
    assert strike(failure, health, 10.0, NEVER) is way


def test_a_death_long_after_the_request_came_has_another_cause() -> None:
    assert strike(Failure(Fault.CUT), Health.WELL, 10.0, 10.0 + SOON_S) is Way.DIED
    assert strike(Failure(Fault.CUT), Health.WELL, 10.0, 10.1 + SOON_S) is None


def test_health_is_what_others_got_last() -> None:
    witness = Witness()
    assert witness.health(0.0, streaming=False) is Health.WELL
    witness.observe(Outcome.OK, 10.0)
    witness.observe(Outcome.SOFT, 11.0)
    assert witness.health(12.0, streaming=False) is Health.BROKEN
    witness.observe(Outcome.OK, 13.0)
    assert witness.health(14.0, streaming=False) is Health.WORKING
    assert witness.health(11.1 + LATELY_S, streaming=False) is Health.WELL
    assert witness.health(13.0 + WELL_S, streaming=True) is Health.WORKING
    assert witness.health(13.1 + WELL_S, streaming=True) is Health.BROKEN


@pytest.mark.parametrize("outcome", [Outcome.CLIENT, Outcome.OVERLOAD])
def test_load_and_callers_say_nothing_of_health(outcome: Outcome) -> None:
    witness = Witness()
    witness.observe(outcome, 1.0)
    assert witness.health(1.0, streaming=False) is Health.WELL


def test_two_replicas_block_a_prompt_for_a_minute_and_one_strike_more_blocks_it_again() -> None:
    guard = Guard()
    guard.struck(b"p", Way.DIED, "a", "req_1", 0.0)
    guard.struck(b"p", Way.DIED, "a", "req_2", 1.0)
    assert guard.incident(b"p", 1.0) is None
    guard.struck(b"p", Way.DIED, "b", "req_3", 2.0)
    incident = guard.incident(b"p", 12.0)
    assert incident is not None
    assert (incident.name, incident.way, incident.replicas) == ("req_3", Way.DIED, ("a", "b"))
    assert incident.left_s == BLOCK_S - 10.0
    assert guard.incident(b"q", 12.0) is None
    assert guard.incident(b"p", 2.0 + BLOCK_S) is None
    guard.struck(b"p", Way.DIED, "c", "req_4", 100.0)
    again = guard.incident(b"p", 100.0)
    assert again is not None
    assert again.replicas == ("b", "c")


def test_different_ways_and_old_strikes_do_not_add_up() -> None:
    guard = Guard()
    guard.struck(b"p", Way.DIED, "a", "r", 0.0)
    guard.struck(b"p", Way.FAILED, "b", "r", 1.0)
    assert guard.incident(b"p", 1.0) is None
    guard.struck(b"q", Way.DIED, "a", "r", 0.0)
    guard.struck(b"q", Way.DIED, "b", "r", 1.0 + MEMORY_S)
    assert guard.incident(b"q", 1.0 + MEMORY_S) is None


def test_cases_are_bounded_and_the_oldest_is_forgotten() -> None:
    guard = Guard()
    for n in range(LIMIT + 10):
        guard.struck(n.to_bytes(4, "big"), Way.DIED, "a", "r", 0.0)
    assert len(guard) == LIMIT
    for n in (0, LIMIT + 9):
        guard.struck(n.to_bytes(4, "big"), Way.DIED, "b", "r", 0.0)
    assert guard.incident((0).to_bytes(4, "big"), 0.0) is None
    assert guard.incident((LIMIT + 9).to_bytes(4, "big"), 0.0) is not None


def test_prompts_are_known_by_tenant_path_body_and_secret() -> None:
    one = fingerprint(b"k" * 32, "ann", "/v1/completions", b"{}")
    assert one == fingerprint(b"k" * 32, "ann", "/v1/completions", b"{}")
    others = [
        fingerprint(b"j" * 32, "ann", "/v1/completions", b"{}"),
        fingerprint(b"k" * 32, "bob", "/v1/completions", b"{}"),
        fingerprint(b"k" * 32, "ann", "/v1/chat/completions", b"{}"),
        fingerprint(b"k" * 32, "ann", "/v1/completions", b"{ }"),
    ]
    assert len({one, *others}) == 5


class Engines:
    """Two engines as one edge uses them: one request at a time, retried once on the other."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.guard = Guard()
        self.witness = {"a": Witness(), "b": Witness()}
        self.deaths: Counter[bytes] = Counter()

    def send(self, prompt: bytes, fails: dict[str, Failure | None], first: str) -> bool:
        """Whether the prompt was blocked before anything was tried."""
        self.now_s += 0.5
        if self.guard.incident(prompt, self.now_s):
            return True
        for name in (first, "b" if first == "a" else "a"):
            witness, failure = self.witness[name], fails[name]
            health = witness.health(self.now_s, streaming=False)
            if failure is None:
                witness.observe(Outcome.OK, self.now_s)
                return False
            self.deaths[prompt] += failure.fault is Fault.CUT
            way = strike(failure, health, self.now_s, witness.served_s)
            if way is not None:
                self.guard.struck(prompt, way, name, "r", self.now_s)
            witness.observe(Outcome.SOFT, self.now_s)
            if self.guard.incident(prompt, self.now_s):
                break
        return False


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=5, max_size=200))
def test_of_a_fleet_that_fails_everybody_at_most_the_first_is_blamed(
    plan: list[tuple[bool, bool]],
) -> None:
    engines = Engines()
    for n, (cut, order) in enumerate(plan):
        failure = Failure(Fault.CUT) if cut else Failure(Fault.STATUS, 500)
        engines.send(str(n).encode(), {"a": failure, "b": failure}, "a" if order else "b")
    blamed = [n for n in range(len(plan)) if engines.guard.incident(str(n).encode(), 0.0)]
    assert set(blamed) <= {0}


@given(st.integers(0, 2**32), st.sampled_from([0.05, 0.3, 0.6]))
def test_engines_that_fail_by_chance_block_next_to_nobody(seed: int, ratio: float) -> None:
    engines, dice = Engines(), random.Random(seed)
    blocked = 0
    for n in range(300):
        fails = {
            name: Failure(Fault.STATUS, 500) if dice.random() < ratio else None for name in "ab"
        }
        prompt = str(n).encode()
        engines.send(prompt, fails, dice.choice("ab"))
        blocked += engines.guard.incident(prompt, engines.now_s) is not None
    assert blocked <= 3


@given(st.integers(0, 2**32))
def test_a_killer_among_others_kills_twice(seed: int) -> None:
    engines, dice = Engines(), random.Random(seed)
    dies: dict[str, Failure | None] = {"a": Failure(Fault.CUT), "b": Failure(Fault.CUT)}
    lives: dict[str, Failure | None] = {"a": None, "b": None}
    sent = 0
    for n in range(100):  # 50 s: within one block
        is_killer = dice.random() < 0.3
        sent += is_killer
        prompt = b"killer" if is_killer else str(n).encode()
        was_blocked = engines.send(prompt, dies if is_killer else lives, dice.choice("ab"))
        assert was_blocked == (is_killer and sent > 1)
    assert engines.deaths[b"killer"] <= 2
