"""The small parts of the virtual world: time, network, arrivals, shapes, scenario files."""

from __future__ import annotations

import random

import pytest

from sim.engine import EngineSpec
from sim.world.arrivals import Plan, Point, Square, points, times
from sim.world.loop import Loop
from sim.world.network import KEEPALIVE_S, RETRANSMIT_S, Network, NetworkSpec, Stream
from sim.world.scenario import parse
from sim.world.shapes import Shape, worth

SCENARIO = "{about: x, duration_s: 10, sources: [{load: 0.5}]}"


class Fixed:
    """Dice that always show the same."""

    def __init__(self, value: float) -> None:
        self.value = value

    def random(self) -> float:
        return self.value


def test_events_happen_in_order_of_time_and_then_of_planning() -> None:
    loop, seen = Loop(), list[tuple[float, str]]()
    for when_s, name in ((2.0, "c"), (1.0, "a"), (2.0, "d"), (1.5, "b")):
        loop.at(when_s, lambda name=name: seen.append((loop.now_s, name)))
    loop.at(1.0, loop.after, 0.5, lambda: seen.append((loop.now_s, "e")))
    loop.at(1.0, loop.at, 0.0, lambda: seen.append((loop.now_s, "late")))
    loop.run(1.99)
    assert seen == [(1.0, "a"), (1.0, "late"), (1.5, "b"), (1.5, "e")]
    loop.run(5.0)
    assert seen[4:] == [(2.0, "c"), (2.0, "d")]
    assert loop.now_s == 5.0


@pytest.mark.parametrize(
    ("spec", "dice", "lag_s", "expected_s"),
    [
        (NetworkSpec(data_s=0.1, jitter=0.5), 0.0, 0.0, 0.1),
        (NetworkSpec(data_s=0.1, jitter=0.5), 0.8, 0.0, 0.14),
        (NetworkSpec(data_s=0.1, jitter=0.0, loss=0.9), 0.8, 0.0, 0.1 + RETRANSMIT_S),
        (NetworkSpec(data_s=0.1, jitter=0.0), 0.0, 0.3, 0.4),
    ],
)
def test_delays(spec: NetworkSpec, dice: float, lag_s: float, expected_s: float) -> None:
    network = Network(Loop(), spec, Fixed(dice))
    network.lag_s["e0"] = lag_s
    assert network.data_delay_s("e0", "r0") == pytest.approx(expected_s)


def test_a_stream_keeps_its_order_though_delays_vary() -> None:
    loop = Loop()
    stream = Stream(Network(loop, NetworkSpec(jitter=9.0), random.Random(1)), "e0", "cp")
    seen: list[int] = []
    for number in range(50):
        loop.at(0.001 * number, stream.up, seen.append, number)
    loop.run(10.0)
    assert seen == list(range(50))


@pytest.mark.parametrize(("healed_s", "arrives"), [(3.0, True), (KEEPALIVE_S + 3.0, False)])
def test_a_partition_delays_and_then_ends_a_stream(healed_s: float, arrives: bool) -> None:
    loop = Loop()
    network = Network(loop, NetworkSpec(), random.Random(1))
    stream = Stream(network, "e0", "cp")
    seen: list[str] = []
    stream.on_end = (lambda: seen.append("client"), lambda: seen.append("server"))
    network.cut("e0", "cp")
    loop.at(1.0, stream.up, seen.append, "message")
    loop.at(1.0 + healed_s, network.heal, "cp", "e0")
    loop.run(30.0)
    assert seen == (["message"] if arrives else ["client", "server"])
    assert stream.open is arrives


def test_load_over_time() -> None:
    steps = (Point(at_s=0, load=0.5), Point(at_s=10, load=2.0), Point(at_s=20, load=1.0, ramp=True))
    plan = Plan(points(steps, 30.0))
    assert [plan.at(t) for t in (0.0, 9.9, 10.0, 15.0, 20.0, 29.0)] == [
        *(0.5, 0.5, 2.0, 1.5),
        *(1.0, 1.0),
    ]
    square = Plan(points(Square(low=0.1, high=3.0, low_s=20.0, high_s=10.0), 100.0))
    assert [square.at(t) for t in (0.0, 19.9, 20.0, 29.9, 30.0, 55.0)] == [
        *(0.1, 0.1, 3.0, 3.0),
        *(0.1, 3.0),
    ]
    assert Plan(points((Point(at_s=5.0, load=1.0),), 9.0)).at(0.0) == 0.0


def test_arrivals_follow_the_plan() -> None:
    plan = Plan(points((Point(at_s=0, load=0.5), Point(at_s=500, load=2.0)), 1000.0))
    found = list(times(plan, 4.0, 1000.0, random.Random(1)))
    early = sum(1 for at_s in found if at_s < 500.0)
    assert early == pytest.approx(0.5 * 4.0 * 500, rel=0.1)
    assert len(found) - early == pytest.approx(2.0 * 4.0 * 500, rel=0.05)
    assert found == sorted(found)
    assert list(times(Plan(points(0.0, 9.0)), 4.0, 9.0, random.Random(1))) == []


def test_what_a_saturated_engine_does_is_what_its_formula_says() -> None:
    spec, shape = EngineSpec.h200(), Shape(sigma=0.0, cached_ratio=0.0)
    cost = worth(spec, shape)
    per_token_s = spec.step_base_s / spec.max_num_seqs + spec.step_per_sequence_s
    seconds = per_token_s * 855 + spec.step_per_prefill_token_s * 1522
    assert cost.rate_per_s == pytest.approx(1.0 / seconds, rel=0.02)
    assert cost.work(1522, 855) == pytest.approx(1.0 / cost.rate_per_s)


def test_lengths_have_the_mean_that_was_asked_for() -> None:
    shape, dice = Shape(output_tokens=150.0), random.Random(1)
    lengths = [shape.output(dice.gauss(0.0, 1.0)) for _ in range(20_000)]
    assert sum(lengths) / len(lengths) == pytest.approx(150.0, rel=0.03)
    assert min(lengths) >= 1
    assert shape.prompt(20.0) == shape.prompt_max_tokens
    assert shape.shared_blocks(1000, 64) == shape.shared_blocks(1050, 64)[:7]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (SCENARIO.replace("about", "abuot"), "unknown field `abuot`"),
        (SCENARIO.replace("0.5", "high"), r"\$.sources"),
        (SCENARIO.replace("10,", "10, faults: [{at_s: 1, kind: boom}],"), "Invalid enum value"),
        (
            SCENARIO.replace("10,", "10, faults: [{at_s: 1, kind: crash, replica: r9}],"),
            "crash at 1.0 s: no such part: r9",
        ),
        (SCENARIO.replace("10,", "-1,"), "duration_s"),
    ],
)
def test_scenario_mistakes_are_told_with_their_place(text: str, words: str) -> None:
    assert parse(SCENARIO).edges == 1
    with pytest.raises(ValueError, match=words):
        parse(text)
