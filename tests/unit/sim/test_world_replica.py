"""A simulated vLLM server: what its callers see of health and of each fault."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from sim.engine import EngineSpec
from sim.world.loop import Loop
from sim.world.network import Network, NetworkSpec
from sim.world.replica import Attempt, Replica
from sim.world.requests import Job
from trimtab.policy.classify import Failure, Fault

SPEC = EngineSpec(max_num_seqs=4, block_size=64, num_gpu_blocks=1001, max_model_len=4096)


class Caller:
    """Posts attempts and writes down what it hears."""

    name = "e0"

    def __init__(self) -> None:
        self.loop = Loop()
        self.network = Network(self.loop, NetworkSpec(), random.Random(1))
        self.replica = Replica("r0", SPEC, self.loop, self.network, random.Random(1))
        self.heard: list[tuple[str, str]] = []
        self.times: dict[str, float] = {}

    def began(self, attempt: Attempt) -> None:
        self._note(attempt, "began")

    def ended(self, attempt: Attempt) -> None:
        self._note(attempt, "ended")

    def failed(self, attempt: Attempt, failure: Failure) -> None:
        self._note(attempt, f"{failure.fault.name} {failure.status or ''}".strip())

    def post(self, at_s: float, output: int = 100) -> Attempt:
        job = Job(len(self.times), 0, "a", at_s)
        job.prompt_tokens, job.output_tokens = 100, output
        attempt = Attempt(job, "r0", self, at_s)
        self.times[attempt.name] = at_s
        self.loop.at(at_s, self.replica.post, attempt)
        return attempt

    def _note(self, attempt: Attempt, what: str) -> None:
        self.heard.append((attempt.name, what))
        self.times[what] = self.loop.now_s


def test_an_answer_begins_and_ends() -> None:
    caller = Caller()
    attempt = caller.post(1.0)
    caller.loop.run(60.0)
    assert caller.heard == [("0.1", "began"), ("0.1", "ended")]
    assert attempt.over
    first_s = SPEC.step_s(0, 100)
    assert caller.times["began"] == pytest.approx(1.0 + first_s, abs=0.002)
    assert caller.times["ended"] == pytest.approx(1.0 + first_s + 99 * SPEC.step_s(1, 0), abs=0.01)
    assert (caller.replica.useful_tokens, caller.replica.wasted_tokens) == (100, 0)


def test_a_one_token_answer_begins_before_it_ends() -> None:
    caller = Caller()
    for number in range(20):
        caller.post(float(number), output=1)
    caller.loop.run(60.0)
    assert [what for _, what in caller.heard] == ["began", "ended"] * 20


@pytest.mark.parametrize(
    ("break_it", "heard"),
    [
        (lambda r: r.crash(), ["CUT"]),
        (lambda r: r.stop_core(api_too=False), []),
        (lambda r: r.stop_core(api_too=True), []),
    ],
)
def test_who_is_inside_when_it_breaks(
    break_it: Callable[[Replica], None], heard: list[str]
) -> None:
    caller = Caller()
    caller.post(1.0)
    caller.loop.at(2.0, break_it, caller.replica)
    caller.loop.run(60.0)
    assert [what for _, what in caller.heard] == ["began", *heard]
    assert caller.replica.is_stopped
    assert not caller.replica.is_healthy


@pytest.mark.parametrize(
    ("break_it", "heard"),
    [
        (lambda r: r.crash(), ["REFUSED"]),
        (lambda r: r.stop_core(api_too=False), []),
        (lambda r: r.stop_core(api_too=True), []),
        (lambda r: setattr(r, "fail_ratio", 1.0), ["STATUS 500"]),
        (lambda r: setattr(r, "rejects", True), ["STATUS 503"]),
        (lambda r: r.limit_queue(0), ["STATUS 503"]),
        (lambda r: setattr(r, "cut_ratio", 1.0), ["began", "CUT"]),
    ],
)
def test_who_comes_when_it_is_broken(break_it: Callable[[Replica], None], heard: list[str]) -> None:
    caller = Caller()
    caller.replica.cut_after_s = 1.0
    caller.loop.at(0.0, break_it, caller.replica)
    caller.post(1.0, output=1000)
    caller.loop.run(60.0)
    assert [what for _, what in caller.heard] == heard


@pytest.mark.parametrize("api_too", [True, False])
def test_what_stood_still_goes_on(api_too: bool) -> None:
    caller = Caller()
    caller.loop.at(1.5, lambda: caller.replica.stop_core(api_too=api_too))
    caller.loop.at(20.0, caller.replica.resume_core)
    inside, outside = caller.post(1.0), caller.post(2.0)
    caller.loop.run(19.0)
    assert [what for _, what in caller.heard] == ["began"]
    assert caller.replica.last_token_s(inside) < 1.6
    assert caller.replica.last_token_s(outside) == 2.0
    caller.loop.run(60.0)
    assert sorted(caller.heard) == [
        *(("0.1", "began"), ("0.1", "ended")),
        *(("1.1", "began"), ("1.1", "ended")),
    ]


def test_a_cold_start_is_slow_for_a_while() -> None:
    caller = Caller()
    caller.replica.crash()
    caller.replica.start(warming_s=10.0)
    caller.post(1.0)
    caller.loop.run(9.0)
    assert caller.times["began"] == pytest.approx(1.0 + 5 * SPEC.step_s(0, 100), abs=0.002)
    assert caller.replica.is_warming
    caller.loop.run(11.0)
    assert not caller.replica.is_warming
    assert caller.replica.engine.slowdown == 1.0


def test_a_caller_that_leaves_takes_its_request_along() -> None:
    caller = Caller()
    attempt = caller.post(1.0, output=1000)
    caller.loop.at(3.0, caller.replica.abort, attempt)
    caller.loop.run(60.0)
    assert [what for _, what in caller.heard] == ["began"]
    assert caller.replica.in_flight == 0
    assert 50 < caller.replica.wasted_tokens < 200
    assert caller.replica.useful_tokens == 0


def test_nothing_arrives_through_a_cut_network() -> None:
    caller = Caller()
    caller.network.cut("e0", "r0")
    caller.post(1.0)
    caller.loop.run(60.0)
    assert caller.heard == [("0.1", "UNREACHABLE")]
    assert caller.times[Fault.UNREACHABLE.name] == pytest.approx(3.0)


def test_being_slow_is_not_being_sick() -> None:
    caller = Caller()
    caller.replica.set_slow(5.0)
    caller.post(1.0)
    caller.loop.run(60.0)
    assert caller.replica.is_healthy
    assert caller.times["began"] == pytest.approx(1.0 + 5 * SPEC.step_s(0, 100), abs=0.002)
