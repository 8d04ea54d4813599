"""The modelled gateways: each rule that decides how they fare."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from sim.engine import EngineSpec
from sim.world import peers
from sim.world.loop import Loop
from sim.world.network import Network, NetworkSpec
from sim.world.peers import Envoy, LiteLlm, Peer
from sim.world.replica import Replica
from sim.world.requests import Call, Job, Reply
from sim.world.trace import Trace
from trimtab.policy.classify import Failure, Fault

SPEC = EngineSpec(max_num_seqs=128, block_size=64, num_gpu_blocks=8193)
BUSY, OVER_LIMIT = Failure(Fault.STATUS, 503), Failure(Fault.STATUS, 429)


class Bench:
    """Engines, one kind of gateway, and a caller that writes down what it hears."""

    def __init__(self, kind: str, replicas: int = 2) -> None:
        self.loop = Loop()
        network = Network(self.loop, NetworkSpec(), random.Random(1))
        self.replicas = {
            f"r{i}": Replica(f"r{i}", SPEC, self.loop, network, random.Random(i))
            for i in range(replicas)
        }
        self.gateways = peers.build(kind, self.loop, self.replicas, random.Random(2), Trace())
        self.heard: Counter[str] = Counter()
        self.jobs: list[Job] = []

    def began(self, call: Call) -> None:
        self.heard["began"] += call.live

    def ended(self, call: Call) -> None:
        self.heard["ended"] += not call.live

    def broke(self, call: Call) -> None:
        self.heard["broke"] += not call.live

    def refused(self, call: Call, reply: Reply) -> None:
        self.heard[f"{reply.status}"] += not call.live

    def ask(self, count: int = 1, output: int = 20, gateway: int = 0) -> None:
        for _ in range(count):
            job = Job(len(self.jobs), 0, "a", self.loop.now_s)
            job.prompt_tokens, job.output_tokens = 100, output
            self.jobs.append(job)
            self.gateways[gateway].submit(Call(job, self, self.loop.now_s, 600.0))

    def break_all(self, attribute: str, value: float | bool) -> None:
        for replica in self.replicas.values():
            setattr(replica, attribute, value)

    def attempts(self) -> list[int]:
        return [job.attempts for job in self.jobs]


@pytest.mark.parametrize("kind", peers.KINDS)
def test_a_healthy_fleet_serves_through_all_of_them(kind: str) -> None:
    bench = Bench(kind)
    bench.ask(40)
    bench.loop.run(60.0)
    assert bench.heard == {"began": 40, "ended": 40}
    assert bench.attempts() == [1] * 40
    assert all(len(replica.posts_s) > 8 for replica in bench.replicas.values())
    assert all(bench.gateways[0].takes(name) for name in bench.replicas)


@pytest.mark.parametrize(
    ("kind", "attempts", "heard"),
    [
        ("shuffle", 1, {"503": 1}),
        ("bounded", 2, {"503": 1}),
        ("envoy", 2, {"503": 1}),
        ("litellm", 10, {"429": 1}),  # at once, until 5 failures have cooled each engine
    ],
)
def test_what_becomes_of_a_request_that_is_refused_everywhere(
    kind: str, attempts: int, heard: dict[str, int]
) -> None:
    bench = Bench(kind)
    bench.break_all("rejects", True)
    bench.ask()
    bench.loop.run(4.0)
    assert bench.heard == heard
    assert bench.attempts() == [attempts]


def litellm(bench: Bench, worker: int = 0) -> LiteLlm:
    gateway = bench.gateways[worker]
    assert isinstance(gateway, LiteLlm)
    return gateway


def test_litellm_cools_on_one_429_for_5_s_in_all_workers_within_a_second() -> None:
    bench = Bench("litellm")
    litellm(bench)._failed("r0", OVER_LIMIT)
    assert not litellm(bench).takes("r0")
    assert litellm(bench).takes("r1")
    assert [worker.takes("r0") for worker in bench.gateways[1:]] == [True] * 3
    bench.loop.run(1.01)
    assert not any(worker.takes("r0") for worker in bench.gateways)
    bench.loop.run(5.01)
    assert all(worker.takes("r0") for worker in bench.gateways)


def test_litellm_counts_in_minutes_and_needs_five() -> None:
    bench = Bench("litellm")
    worker = litellm(bench)
    for _ in range(4):
        worker._failed("r0", BUSY)
    assert worker.takes("r0")
    worker._failed("r0", BUSY)
    assert not worker.takes("r0")
    for _ in range(10):
        worker._succeeded("r1")
    for _ in range(10):
        worker._failed("r1", BUSY)
    assert worker.takes("r1")
    worker._failed("r1", BUSY)
    assert not worker.takes("r1")


def test_litellm_prolongs_a_cooldown_by_what_was_in_flight() -> None:
    bench = Bench("litellm")
    litellm(bench)._failed("r0", OVER_LIMIT)
    bench.loop.run(4.0)
    litellm(bench)._failed("r0", OVER_LIMIT)
    bench.loop.run(8.9)
    assert not litellm(bench).takes("r0")
    bench.loop.run(9.1)
    assert litellm(bench).takes("r0")


@pytest.mark.parametrize(
    ("kind", "attempts", "heard"), [("litellm", 1, {"500": 1}), ("litellm-counted", 2, {})]
)
def test_litellms_first_token_timeout(kind: str, attempts: int, heard: dict[str, int]) -> None:
    bench = Bench(kind)
    for replica in bench.replicas.values():
        replica.stop_core(api_too=False)
    bench.ask()
    bench.loop.run(61.0)
    assert bench.attempts() == [attempts]
    assert bench.heard == heard


def envoy(bench: Bench) -> Envoy:
    gateway = bench.gateways[0]
    assert isinstance(gateway, Envoy)
    return gateway


def fail(gateway: Envoy, replica: str, times: int) -> None:
    for _ in range(times):
        gateway._hosts[replica].active += 1
        gateway._failed(replica, BUSY)


def test_envoy_ejects_one_of_few_after_five_in_a_row_for_30_s() -> None:
    bench = Bench("envoy")
    fail(envoy(bench), "r0", 4)
    assert envoy(bench).takes("r0")
    fail(envoy(bench), "r0", 1)
    assert not envoy(bench).takes("r0")
    fail(envoy(bench), "r1", 5)
    assert envoy(bench).takes("r1")
    bench.loop.run(29.0)
    assert not envoy(bench).takes("r0")
    bench.loop.run(31.0)
    assert envoy(bench).takes("r0")


def test_envoys_ejections_grow() -> None:
    bench = Bench("envoy")
    fail(envoy(bench), "r0", 5)
    bench.loop.run(31.0)
    fail(envoy(bench), "r0", 5)
    bench.loop.run(31.0 + 59.0)
    assert not envoy(bench).takes("r0")
    bench.loop.run(31.0 + 61.0 + peers.ENVOY_SWEEP_S)
    assert envoy(bench).takes("r0")


def test_envoy_prefers_the_one_with_fewer_requests() -> None:
    bench = Bench("envoy")
    envoy(bench)._hosts["r0"].active = 50
    bench.ask(60)
    sent = [len(replica.posts_s) for replica in bench.replicas.values()]
    assert sent[1] > 40


def test_a_call_that_leaves_is_forgotten() -> None:
    bench = Bench("envoy")
    bench.ask(3, output=1000)
    bench.loop.run(1.0)
    for trip in list(envoy(bench)._trips.values()):
        trip.call.live = False
        assert trip.call.cancel is not None
        trip.call.cancel()
    bench.loop.run(2.0)
    assert [replica.in_flight for replica in bench.replicas.values()] == [0, 0]
    assert [host.active for host in envoy(bench)._hosts.values()] == [0, 0]


def test_bounded_bounds_the_engines() -> None:
    bench = Bench("bounded")
    assert [r.spec.max_num_queued_reqs for r in bench.replicas.values()] == [196, 196]
    assert isinstance(bench.gateways[0], Peer)
