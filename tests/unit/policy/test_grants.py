"""policy/grants: no more than the limit is ever given, and what there is goes to the oldest."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from trimtab.model import TenantUse
from trimtab.policy import grants
from trimtab.policy.grants import PREPAID_MAX, Demand, Leases, Room

Table = Mapping[str, Mapping[str, float]]


def grant(
    before: Table, rooms: dict[str, Room], edges: dict[str, Demand], counters: dict[str, float]
) -> dict[str, dict[str, float]]:
    """The next leases by replica and edge."""
    known = tuple(dict.fromkeys(edge for row in before.values() for edge in row))
    rows = {name: [row[edge] for edge in known] for name, row in before.items()}
    leases = grants.finish(grants.granting(Leases(known, rows), rooms, edges, counters))
    return {name: dict(zip(leases.edges, row, strict=True)) for name, row in leases.rows.items()}


def whole(row: Mapping[str, float], replica: str) -> dict[str, int]:
    """By edge."""
    edges = list(row)
    order = sorted(range(len(edges)), key=edges.__getitem__)
    return dict(zip(edges, grants.whole([*row.values()], replica, order), strict=True))


def demand(running: int = 0, ages_ms: tuple[int, ...] = (), replica: str = "r") -> Demand:
    waiting = (TenantUse("t", queued=len(ages_ms), ages_ms=ages_ms),) if ages_ms else ()
    return Demand({replica: running}, waiting)


def test_an_edge_alone_has_everything() -> None:
    assert grant({}, {"r": Room(20.0)}, {"e": demand()}, {}) == {"r": {"e": 20.0}}


def test_room_that_nobody_needs_is_spread_over_all() -> None:
    leases: dict[str, dict[str, float]] = {}
    for _ in range(3):  # at once, also for a leader that has just begun, and it stays so
        leases = grant(leases, {"r": Room(20.0)}, {"busy": demand(8), "quiet": demand()}, {})
        assert leases["r"] == {"busy": 14.0, "quiet": 6.0}


def test_what_a_quiet_edge_does_not_use_goes_to_the_one_where_many_wait() -> None:
    before = {"r": {"busy": 10.0, "quiet": 10.0}}
    edges = {"busy": demand(10, (500,) * 30), "quiet": demand(2)}
    leases = grant(before, {"r": Room(20.0)}, edges, {})
    assert leases["r"] == {"busy": 18.0, "quiet": 2.0}


def test_a_slot_that_frees_goes_to_the_oldest_whichever_edge_had_it() -> None:
    before = {"r": {"young": 10.0, "old": 10.0}}
    edges = {"young": demand(9, (100, 90)), "old": demand(10, (5_000, 4_000))}
    leases = grant({"r": {"young": 9.0, "old": 10.0}}, {"r": Room(20.0)}, edges, {})
    assert leases["r"] == {"young": 9.0, "old": 11.0}
    leases = grant(before, {"r": Room(20.0, ending=1.0)}, edges, {})
    assert leases["r"]["old"] == pytest.approx(10.5)
    assert leases["r"]["young"] == pytest.approx(9.5)


def test_a_lease_comes_back_in_fractions_that_add_up() -> None:
    """.05 of a slot collected each tick is a slot after 20; rounding at each tick forgets it."""
    leases = {"r": {"young": 16.0, "old": 16.0}}
    old = demand(16, (9_000,) * 9)
    for _ in range(30):
        edges = {"young": demand(16, (10,)), "old": old}
        leases = grant(leases, {"r": Room(32.0, ending=0.05)}, edges, {})
    assert whole(leases["r"], "r") == {"young": 15, "old": 16}, "what ends is not young's any more"
    leases = grant(leases, {"r": Room(32.0)}, {"young": demand(15, (10,)), "old": old}, {})
    assert whole(leases["r"], "r")["old"] == 17


@pytest.mark.parametrize("limit", [0.0, 3.0, 10.0])
def test_a_limit_that_falls_takes_back_what_is_not_in_use_first(limit: float) -> None:
    before = {"r": {"full": 10.0, "idle": 10.0}}
    edges = {"full": demand(10, (100,)), "idle": demand(0, (100,) * 9)}
    leases = grant(before, {"r": Room(limit)}, edges, {})
    assert leases["r"]["idle"] == 0.0
    assert sum(leases["r"].values()) <= limit


def test_room_over_many_replicas_is_shared_in_proportion() -> None:
    edges = {"a": Demand({}, (TenantUse("t", queued=30, ages_ms=(900,) * 30),)), "b": Demand({})}
    leases = grant({}, {"big": Room(20.0), "small": Room(5.0)}, edges, {})
    assert leases["big"]["a"] == pytest.approx(20.0)
    assert leases["small"]["a"] == pytest.approx(5.0)


class Plant:
    """One engine and its edges: reports a tick old, edges that take all they may, jobs that end."""

    def __init__(self, runs: int, edges: int, seed: int) -> None:
        self.dice = random.Random(seed)
        self.runs = runs
        self.inflight = {f"e{number}": 0 for number in range(edges)}
        self.reported = dict(self.inflight)
        self.leases: dict[str, dict[str, float]] = {}
        self.worst = 0

    def tick(self, limit: float, ends: float) -> int:
        """One period; how many wait in the engine then."""
        edges = {name: demand(n, (1_000,) * 500) for name, n in self.reported.items()}
        self.leases = grant(self.leases, {"r": Room(limit, ends)}, edges, {})
        for name, slots in whole(self.leases["r"], "r").items():
            self.inflight[name] = max(self.inflight[name], slots)
        self.reported = dict(self.inflight)
        running = min(self.runs, sum(self.inflight.values()))
        for _ in range(int(ends * running / self.runs + self.dice.random())):
            names = [name for name, n in self.inflight.items() for _ in range(n)]
            self.inflight[self.dice.choice(names)] -= 1
        self.worst = max(self.worst, sum(self.inflight.values()) - self.runs)
        return sum(self.inflight.values()) - self.runs


@pytest.mark.parametrize("edges", [1, 4, 8, 40])
@pytest.mark.parametrize("ends", [0.2, 0.9, 3.0, 30.0])
def test_the_engines_queue_does_not_run_away(edges: int, ends: float) -> None:
    """The ratchet: room clamped at zero before what is expected to end is added grew it above 1000,
    since reports are late and slots are given before they are free."""
    plant = Plant(runs=64, edges=edges, seed=3)
    waiting = [plant.tick(68.0, ends) for _ in range(600)]
    assert plant.worst <= 4 + PREPAID_MAX
    assert min(waiting[100:]) >= -max(ends + 1, 4), "nor does it starve"


def test_a_limit_that_falls_is_worked_off() -> None:
    plant = Plant(runs=64, edges=8, seed=5)
    for _ in range(50):
        plant.tick(68.0, 3.0)
    plant.runs = 30
    waiting = [plant.tick(34.0, 3.0) for _ in range(60)]
    assert waiting[0] > 30
    assert max(waiting[30:]) <= 4 + PREPAID_MAX


@given(st.dictionaries(st.text("abc", min_size=1, max_size=3), st.floats(0, 50), max_size=20))
def test_whole_numbers_keep_the_sum(leases: dict[str, float]) -> None:
    told = whole(leases, "r")
    assert sum(told.values()) == pytest.approx(sum(leases.values()), abs=1.0)
    assert sum(told.values()) <= sum(leases.values()) + 1e-6
    assert all(abs(told[edge] - slots) <= 1.0 for edge, slots in leases.items())


def test_equal_remainders_do_not_always_favour_the_same_edge() -> None:
    leases = dict.fromkeys(["a", "b", "c"], 1 / 3)
    lucky = Counter(
        max(told, key=told.__getitem__)
        for told in (whole(leases, f"r{number}") for number in range(60))
    )
    assert min(lucky[edge] for edge in leases) >= 5


class GrantsMachine(RuleBasedStateMachine):
    """I5, after any history of arrivals, ends, limits, edges that come and go, and late reports."""

    @initialize(edges=st.integers(1, 6))
    def begin(self, edges: int) -> None:
        self.limits = {"a": 10.0, "b": 5.0}
        self.ending = 0.0
        self.queued = {f"e{number}": 0 for number in range(edges)}
        self.running = {(edge, name): 0 for edge in self.queued for name in self.limits}
        self.reported = dict(self.running)
        self.told = dict(self.running)
        self.leases: dict[str, dict[str, float]] = {}
        self.joined = edges

    @rule(edge=st.integers(0, 20), count=st.integers(0, 30))
    def arrive(self, edge: int, count: int) -> None:
        names = sorted(self.queued)
        self.queued[names[edge % len(names)]] += count

    @rule()
    def dispatch(self) -> None:
        for key, slots in self.told.items():
            taken = min(self.queued[key[0]], max(0, slots - self.running[key]))
            self.queued[key[0]] -= taken
            self.running[key] += taken

    @rule(keep=st.floats(0, 1))
    def end(self, keep: float) -> None:
        self.running = {key: int(n * keep) for key, n in self.running.items()}

    @rule(name=st.sampled_from("ab"), limit=st.floats(0, 30), ending=st.floats(0, 20))
    def steer(self, name: str, limit: float, ending: float) -> None:
        self.limits[name], self.ending = limit, ending

    @rule()
    def join(self) -> None:
        self.joined += 1
        edge = f"e{self.joined}"
        self.queued[edge] = 0
        for name in self.limits:
            self.running[edge, name] = self.reported[edge, name] = self.told[edge, name] = 0

    @rule()
    def leave(self) -> None:
        if len(self.queued) > 1:
            edge = min(self.queued)
            del self.queued[edge]
            for name in self.limits:
                del self.running[edge, name], self.reported[edge, name], self.told[edge, name]

    @rule()
    def report(self) -> None:
        self.reported = dict(self.running)

    @rule()
    def tick(self) -> None:
        rooms = {name: Room(limit, self.ending) for name, limit in self.limits.items()}
        edges = {
            edge: Demand(
                {name: self.reported[edge, name] for name in self.limits},
                (TenantUse("t", queued=queued, ages_ms=(5,) * min(queued, 4)),),
            )
            for edge, queued in self.queued.items()
        }
        self.leases = grant(self.leases, rooms, edges, {})
        for name, limit in self.limits.items():
            running = sum(self.reported[edge, name] for edge in self.queued)
            used = sum(
                max(self.leases[name][edge], self.reported[edge, name]) for edge in self.queued
            )
            assert used <= max(limit + PREPAID_MAX, running) + 1e-6
            assert sum(self.leases[name].values()) <= limit + 1e-6
            for edge, slots in whole(self.leases[name], name).items():
                self.told[edge, name] = slots

    @invariant()
    def nothing_is_negative(self) -> None:
        assert all(slots >= 0 for slots in getattr(self, "told", {}).values())


TestGrantsMachine = GrantsMachine.TestCase
