"""A replay of what a simulated fleet met: the same again, and more replicas never harm."""

from __future__ import annotations

import pathlib

import msgspec
import pytest

from ctl.main import main
from sim.whatif.change import Asked
from sim.whatif.fit import fit
from sim.whatif.fleet import Setting
from sim.whatif.main import simulate
from sim.whatif.nearness import judge
from sim.whatif.replay import Replay, measured
from sim.world.client import ClientSpec
from sim.world.scenario import ReplicaSpec, Scenario, SourceSpec
from sim.world.shapes import Shape
from tests.fakes.recording import recorded
from trimtab.recording import Recording, render
from trimtab.whatif import Costs, Figures, Nearness

SHAPE = Shape(prompt_tokens=600, output_tokens=80, cached_ratio=0.0)


def scenario(load: float, edges: int = 1, speed: float = 1.0) -> Scenario:
    """Two small engines, one minute that counts."""
    return Scenario(
        about="arrivals to record",
        duration_s=150.0,
        warmup_s=30.0,
        edges=edges,
        replicas=(ReplicaSpec(slots=8, speed=speed),) * 2,
        sources=(SourceSpec(load=load, shape=SHAPE, client=ClientSpec(retries=0)),),
    )


@pytest.fixture(scope="module")
def overloaded() -> Recording:
    """Of a fleet that has to refuse."""
    return recorded(scenario(1.3, edges=2))


def replayed(what: Recording, replicas: int, costs: Costs) -> Figures:
    one = what.head.replicas[0]
    fleet = tuple(msgspec.structs.replace(one, name=f"r{n}") for n in range(replicas))
    return Replay(what, Setting(fleet, what.head.policy, what.head.edges, costs), 1.0, 7).run()


@pytest.mark.parametrize(("load", "edges", "speed"), [(0.7, 1, 1.0), (1.3, 2, 0.5)])
def test_the_same_fleet_does_the_same_again(load: float, edges: int, speed: float) -> None:
    what = recorded(scenario(load, edges, speed), seed=3)
    seen, model = measured(what), replayed(what, 2, fit(what))
    assert judge(seen, model) == (Nearness.NEAR, [])
    assert model.requests == seen.requests
    assert model.served + model.refused + model.left + model.failed == model.requests
    assert (seen.refused > 0) == (load > 1.0)


def test_more_replicas_never_refuse_more(overloaded: Recording) -> None:
    costs = fit(overloaded)
    found = [replayed(overloaded, number, costs) for number in (1, 2, 3, 4)]
    refused = [figures.refused for figures in found]
    assert refused == sorted(refused, reverse=True)
    assert refused[0] > refused[1] > refused[2] == 0
    tokens = [figures.tokens_per_s for figures in found]
    assert tokens == sorted(tokens)


def test_a_shorter_wait_is_kept_and_refuses_more(overloaded: Recording) -> None:
    found = simulate(render(overloaded), Asked(settings=("queue.budget_s=1",)), seed=1)
    assert found.nearness is Nearness.NEAR
    assert found.changed is not None
    assert found.changed.first_p50_s is not None
    assert found.model.first_p50_s is not None
    assert found.changed.first_p50_s < 0.5 * found.model.first_p50_s
    assert found.changed.refused >= found.model.refused
    again = simulate(render(overloaded), Asked(), seed=1)
    assert (again.model, again.changed) == (found.model, None), "a seed is a run"


def test_a_fleet_that_is_another_by_now_says_nothing(overloaded: Recording) -> None:
    left = msgspec.structs.replace(overloaded.head, replicas=overloaded.head.replicas[:1])
    other = Recording(left, overloaded.arrivals)
    found = simulate(render(other), Asked(replicas="+1"), seed=1)
    assert (found.nearness, found.changed) == (Nearness.OFF, None)
    assert "refused: measured" in found.remarks[0]


def test_from_a_file(
    overloaded: Recording, tmp_path: pathlib.Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "arrivals.jsonl"
    path.write_bytes(render(overloaded))
    words = ["simulate", "--from", str(path)]
    assert main([*words, "--replicas", "+1"]) == 0
    out, err = capfd.readouterr()
    assert out.startswith("With 3 replicas instead of 2: first token p95 ")
    assert "refused" in out.splitlines()[0]
    assert "The model is near what was measured." in out
    assert err == f"replaying {len(overloaded.arrivals)} arrivals ...\n"
    assert main([*words, "--replicas", "some"]) == 2
    assert "ctl: cannot simulate: --replicas some: say how many" in capfd.readouterr().err
