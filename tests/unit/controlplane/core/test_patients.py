"""Whom the leader takes for an engine that is of no use, and whom nobody may restart."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from controlplane.core.events import AgentGone, IntentSet
from controlplane.core.patients import Patients
from controlplane.core.records import Wish
from tests.fakes.peers import facts
from tests.unit.controlplane.core.test_breakers import AGENT, Fleet
from tests.unit.controlplane.core.test_unanswered import silent
from trimtab.model import EngineState, GpuSample, GpuState, Intent, ProbeResult
from trimtab.policy.breaker import Hold
from trimtab.policy.remedy import Patient

UNIT = "vllm@0.service"


class Ward(Fleet):
    """Two replicas that may be restarted, and who looks at them."""

    def __init__(self) -> None:
        super().__init__("r1", "r2")
        self.patients = Patients()
        self.connect()
        for number, name in enumerate(self.samples):
            self.say(facts(name, url=f"http://h:{number + 1}", unit=UNIT))
        self.live(1.0)

    def look(self, name: str = "r1") -> Patient:
        registry = self.registry
        nodes = registry.agents.by_node
        found = self.patients.look(registry.replicas.values(), nodes, 2.0, self.now_s)
        return next(patient for patient in found if patient.name == name)


def stall(ward: Ward, no_progress_s: float = 70.0) -> None:
    """As its agent tells it."""
    ms = round(1000 * no_progress_s)
    ward.set("r1", EngineState.STALLED, no_progress_ms=ms, running=3, reason="nothing moves")
    ward.live(1.0)


def test_who_is_well_serves() -> None:
    patient = Ward().look()
    assert (patient.useless_s, patient.serves, patient.barred) == (0.0, True, "")


def test_a_stalled_engine_is_of_no_use_for_as_long_as_nothing_moved() -> None:
    ward = Ward()
    stall(ward, 5.0)
    assert ward.look().useless_s == 0.0, "it may be a long step"
    stall(ward)
    patient = ward.look()
    assert (patient.useless_s, patient.serves) == (70.0, False)
    assert patient.why == "nothing moves, for 70 s"


def test_in_its_first_steps_it_is_given_longer() -> None:
    ward = Ward()
    ward.set("r1", EngineState.WARMING)
    ward.live(1.0)
    stall(ward, 90.0)
    assert ward.look().useless_s == 15.0


def test_one_that_hung_while_idle_is_of_no_use_once_a_probe_got_nothing_either() -> None:
    ward = Ward()
    ward.probes_end = None
    silent(ward, "r1")
    ward.live(11.0)
    assert ward.look().useless_s == 0.0, "requests alone may be wrong"
    ward.live(6.0)
    ward.say(ProbeResult(ward.probes()[-1].probe_id, "r1", ok=False))
    patient = ward.look()
    assert 5.0 < patient.useless_s < 8.0
    assert "neither requests nor a probe" in patient.why
    ward.probes_end = True
    ward.live(20.0)
    assert ward.look().useless_s == 0.0


def cordon(ward: Ward) -> None:
    ward.handle(IntentSet("r1", Wish(Intent.CORDONED)))


def pause(ward: Ward) -> None:
    ward.registry.replicas["r1"].hold = Hold.PAUSED


def hold(ward: Ward) -> None:
    ward.registry.replicas["r1"].hold = Hold.OPEN


def lose_agent(ward: Ward) -> None:
    ward.handle(AgentGone(AGENT))


def forget_unit(ward: Ward) -> None:
    ward.say(replace(facts("r1", url="http://h:1")))


@pytest.mark.parametrize(
    ("happen", "words"),
    [
        (cordon, "an operator has it cordoned"),
        (pause, "ctl pause"),
        (hold, "an operator holds its breaker open"),
        (lose_agent, "its agent is not heard"),
        (forget_unit, "its agent knows no unit of it"),
    ],
)
def test_what_bars_a_restart(happen: Any, words: str) -> None:
    ward = Ward()
    stall(ward)
    happen(ward)
    assert words in ward.look().barred


@pytest.mark.parametrize("state", [EngineState.DEAD, EngineState.STARTING, EngineState.SLEEPING])
def test_other_troubles_are_no_stall(state: EngineState) -> None:
    ward = Ward()
    ward.set("r1", state, no_progress_ms=99_000)
    ward.live(1.0)
    assert ward.look().useless_s == 0.0


def test_a_lost_gpu_is_not_mended_by_a_restart() -> None:
    ward = Ward()
    ward.gpus = (GpuSample(0, state=GpuState.LOST),)
    ward.set("r1", EngineState.STALLED, no_progress_ms=99_000, gpus=(0,))
    ward.live(1.0)
    assert ward.look().useless_s == 0.0
