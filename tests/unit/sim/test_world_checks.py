"""The checks and the figures themselves: each must see what it is there to see."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from sim.world.arrivals import Plan, points
from sim.world.checks import CHECKS, check
from sim.world.history import History, strikes_s
from sim.world.metrics import measure
from sim.world.requests import Fate, Job
from sim.world.scenario import FaultSpec, Scenario, SourceSpec
from sim.world.seen import EdgeSeen, Observation, Refusal, ReplicaSeen, Steering

END_S = 120.0
STEERING = Steering(limit_slots=68, breaker="HEALTHY", ejections=0)
WELL = ReplicaSeen(
    is_healthy=True,
    is_stopped=False,
    slots=64,
    running=30,
    waiting=0,
    tokens=0,
    eligible=1.0,
    steering=STEERING,
)
EDGE = EdgeSeen(
    is_up=True,
    applied=(1, 5),
    queued=0,
    inflight=(30, 30),
    live=(30, 30),
    unstarted=(0, 0),
    leases=(68, 68),
)


def look(now_s: float, *replicas: ReplicaSeen, edge: EdgeSeen = EDGE) -> Observation:
    return Observation(now_s, True, replicas or (WELL, WELL), (edge,))


def every(replica: ReplicaSeen, edge: EdgeSeen = EDGE) -> list[Observation]:
    """Looks all along at one replica that is so, beside one that is well."""
    return [look(0.5 * k, replica, WELL, edge=edge) for k in range(int(2 * END_S))]


def job(number: int, arrived_s: float, **fields: object) -> Job:
    """A job of work 1 that was served in 10 s."""
    made = Job(number, 0, "a", arrived_s)
    made.work, made.submissions, made.attempts = 1.0, 1, 1
    made.first_s, made.ended_s, made.fate = arrived_s + 1.0, arrived_s + 10.0, Fate.DONE
    for name, value in fields.items():
        setattr(made, name, value)
    return made


def history(
    looks: Sequence[Observation] = (),
    jobs: Sequence[Job] = (),
    load: float = 0.5,
    faults: Sequence[FaultSpec] = (),
    **fields: object,
) -> History:
    scenario = Scenario(
        about="x",
        duration_s=END_S,
        sources=(SourceSpec(load=load),),
        faults=tuple(faults),
        calm_from_s=fields.pop("calm_from_s", None),  # type: ignore[arg-type]
    )
    run = History(
        scenario=scenario,
        plans=(Plan(points(load, END_S)),),
        capacities=(1.0, 1.0),
        looks=looks or every(WELL),
        jobs=jobs,
        progress={},
        dispatches=[],
        refusals=[],
        returns=(0, 0),
        double_ends=0,
        late_dispatches=0,
        wasted_tokens=0,
        useful_tokens=0,
    )
    return replace(run, **fields)  # type: ignore[arg-type]


CRASH = FaultSpec(at_s=50.0, kind="crash", replica="r0", for_s=20.0)
LOOP = FaultSpec(at_s=10.0, kind="crash", replica="r0", for_s=5.0, repeat_s=20.0)
GONE = replace(WELL, is_healthy=False, is_stopped=True, eligible=0.0)
RAMPING = Steering(limit_slots=10, breaker="RAMPING", cap_slots=10.0)
LONE = [(0.5 * k, 0) for k in range(int(2 * END_S))]
VARYING = [
    look(0.5 * k, replace(WELL, steering=replace(STEERING, limit_slots=50 + k % 10)), WELL)
    for k in range(int(2 * END_S))
]
BACKWARDS = [look(1.0), look(2.0, edge=replace(EDGE, applied=(1, 4)))]
SICK: dict[str, History] = {
    "i2_overload_ejects_nobody": history(every(replace(WELL, eligible=0.5))),
    "i3_no_healthy_replica_starves": history(dispatches=LONE),
    "i5_credits_are_bounded": history(every(WELL, replace(EDGE, leases=(80, 68)))),
    "i5_engines_queue_little": history(every(replace(WELL, waiting=17))),
    "i6_work_is_conserved": history(every(WELL, replace(EDGE, queued=3))),
    "i8_attempts_are_few": history(jobs=[job(0, 1.0, attempts=4)]),
    "i9_bursts_leave_nothing_behind": history(
        jobs=[job(k, 10.0 + k, first_s=50.0 + k) for k in range(100)], calm_from_s=5.0
    ),
    "i10_the_dead_get_nothing": history(
        faults=[CRASH], dispatches=[(50.0 + 0.1 * k, 0) for k in range(60)]
    ),
    "i10_the_waiting_are_evacuated": history(every(GONE, replace(EDGE, unstarted=(5, 0)))),
    "i11_exposure_is_capped": history(every(replace(WELL, steering=RAMPING))),
    "i12_crash_loops_are_backed_off": history(faults=[LOOP]),
    "i13_refusals_say_when": history(refusals=[Refusal(1.0, 503, None)]),
    "i14_refusals_are_honest": history(returns=(100, 79)),
    "i15_deadlines_are_kept": history(late_dispatches=1),
    "i18_accounts_are_right": history(every(WELL, replace(EDGE, live=(29, 30)))),
    "i20_edges_never_go_back": history(BACKWARDS),
    "i21_silence_ejects_nobody": history(
        faults=[FaultSpec(at_s=1.0, kind="agent_kill", replica="r0")],
        jobs=[job(k, k / 2, work=1.0, fate=Fate.FAILED) for k in range(200)],
    ),
    "i23_limits_come_to_rest": history(VARYING),
}


@pytest.mark.parametrize("name", SICK)
def test_a_check_sees_what_it_is_there_for(name: str) -> None:
    assert CHECKS[name](SICK[name])


def tenants(goodput: float, queued: dict[str, int] | None) -> History:
    sources = (SourceSpec(load=1.8, tenant="flood"), SourceSpec(load=0.2, tenant="light"))
    scenario = Scenario(about="x", duration_s=END_S, sources=sources)
    served = [job(k, 1.0 + k, tenant="light") for k in range(100)]
    for unlucky in served[: round(100 * (1.0 - goodput))]:
        unlucky.fate = Fate.REFUSED
    run = history(every(WELL, replace(EDGE, tenants_queued=queued)), served)
    plans = tuple(Plan(points(source.load, END_S)) for source in sources)
    return replace(run, scenario=scenario, plans=plans)


def test_fairness_is_checked_once_there_are_queues_for_tenants() -> None:
    fair = CHECKS["i16_light_tenants_are_served"]
    assert fair(tenants(0.5, None)) is None
    assert fair(tenants(0.5, {"light": 0})) == ["tenant light gets 50% of its 20%"]
    assert fair(tenants(1.0, {"light": 0})) == []


def test_the_absence_of_the_control_plane_is_compared_with_before() -> None:
    missed = CHECKS["i19_the_control_plane_is_not_missed"]
    fault = FaultSpec(at_s=60.0, kind="controlplane_kill")
    well = [job(k, float(k)) for k in range(120)]
    late = [job(k, float(k), first_s=k + 50.0 * (k >= 60)) for k in range(120)]
    assert missed(history(jobs=well, faults=[fault])) == []
    assert missed(history(jobs=late, faults=[fault])) == ["1.00 served in time before, 0.00 during"]
    assert missed(history(jobs=late)) is None


def test_every_check_is_tried_here() -> None:
    elsewhere = {"i16_light_tenants_are_served", "i19_the_control_plane_is_not_missed"}
    assert {*SICK, *elsewhere} == set(CHECKS)


def test_a_healthy_run_violates_nothing() -> None:
    run = history(jobs=[job(k, 1.0 + k) for k in range(100)])
    assert [name for name, found in check(run).items() if found] == []


def test_what_does_not_apply_is_not_said_to_hold() -> None:
    bare = [replace(seen, edges=()) for seen in every(replace(WELL, steering=Steering()))]
    names = set(check(history(bare)))
    assert "i5_credits_are_bounded" not in names
    assert "i11_exposure_is_capped" not in names
    assert "i23_limits_come_to_rest" not in names
    assert "i8_attempts_are_few" in names


def test_when_faults_strike() -> None:
    assert strikes_s(LOOP, 60.0) == [10.0, 30.0, 50.0]
    assert strikes_s(CRASH, 60.0) == [50.0]
    run = history(faults=[CRASH])
    assert run.disturbances_s == (0.0, 50.0, 70.0)
    assert [run.calm_s(t) for t in (40.0, 55.0, 80.0)] == [40.0, 5.0, 10.0]


# Figures


def test_goodput_counts_work_when_it_is_done_and_only_if_in_time() -> None:
    jobs = [
        job(0, 10.0),  # whole
        job(1, -5.0),  # began at -4, ended at 5: 5 of 9 s inside
        job(2, 10.0, first_s=40.0, ended_s=50.0),  # late for 15 s
        job(3, 10.0, first_s=80.0, ended_s=90.0),  # late for both
        job(4, 10.0, fate=Fate.BROKEN),
        job(5, 100.0, first_s=110.0, ended_s=None, fate=Fate.PENDING),  # a quarter is done
    ]
    figures = measure(history(jobs=jobs, progress={5: 0.25}))
    total = 2.0 * END_S
    assert figures.goodput_60 == pytest.approx((1.0 + 5 / 9 + 1.0 + 0.25) / total)
    assert figures.goodput_15 == pytest.approx((1.0 + 5 / 9 + 0.25) / total)
    assert figures.offered == pytest.approx(5.0 / total)  # who arrived before is not asked for
    assert (figures.done, figures.broken) == (3, 1)


def test_availability_and_ping_pong() -> None:
    out = replace(WELL, eligible=0.0)
    looks = [
        *(look(0.5 * k) for k in range(20)),
        *(look(10.0 + 0.5 * k, out, WELL) for k in range(20)),
        *(look(20.0 + 0.5 * k, WELL, out) for k in range(20)),
        *(look(30.0 + 0.5 * k, GONE, WELL) for k in range(20)),
    ]
    figures = measure(history(looks))
    assert figures.cai == pytest.approx((20 * 1.0 + 40 * 0.5 + 20 * 1.0) / 80)
    per_hour = 3600 / END_S
    assert figures.ppi == pytest.approx(2 * per_hour)  # the sick one's end is no ping-pong
    assert figures.ppi2 == pytest.approx(1 * per_hour)


def test_flips_are_changes_of_who_gets_nearly_all() -> None:
    one, other, both = [0] * 40, [1] * 40, [0, 1] * 20
    to = [*one, *both, *other, *other, *one]
    dispatches = [(0.1 * k, replica) for k, replica in enumerate(to)]
    assert measure(history(dispatches=dispatches)).flips == pytest.approx(2 / (END_S / 60))


def test_fairness_over_replicas_is_per_capacity() -> None:
    tokens = [0, 100, 200]
    looks = [look(50.0 * k, replace(WELL, tokens=n), WELL) for k, n in enumerate(tokens)]
    assert measure(history(looks)).jain == pytest.approx(0.5)
    even = [look(50.0 * k, *[replace(WELL, tokens=n)] * 2) for k, n in enumerate(tokens)]
    assert measure(history(even)).jain == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("waits_s", "recovered_s"),
    [([1.0] * 6, 0.0), ([5.0, 1.0, 5.0, 1.0, 1.0, 1.0], 30.0), ([5.0] * 6, 60.0)],
)
def test_recovery_ends_with_the_last_bad_ten_seconds(
    waits_s: list[float], recovered_s: float
) -> None:
    jobs = [
        job(10 * k + i, 40.0 + 10 * k + i, first_s=40.0 + 10 * k + i + wait_s)
        for k, wait_s in enumerate(waits_s)
        for i in range(10)
    ]
    assert measure(history(jobs=jobs, calm_from_s=40.0)).ttr_s == recovered_s
    assert measure(history(jobs=jobs)).ttr_s is None
