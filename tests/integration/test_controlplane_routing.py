"""Agents report, edges are told: over real gRPC, with a real store."""

from __future__ import annotations

import pathlib
from collections.abc import AsyncIterator

import grpc
import pytest

from tests.fakes.peers import facts, fake_agent, fake_edge, sample
from tests.fakes.running_control_plane import config, running
from tests.fakes.wait import until
from trimtab.model import (
    ApiKey,
    Cohort,
    Credits,
    Delta,
    EdgeHello,
    EngineSample,
    EngineState,
    Outcome,
    OutcomeCount,
    Pool,
    Probe,
    Refused,
    ReplicaUse,
    Serving,
    Snapshot,
)
from trimtab.runtime.tasks import TaskRunner


@pytest.fixture
async def target(tmp_path: pathlib.Path) -> AsyncIterator[str]:
    keys = (ApiKey(b"\x01" * 32, "k"),)
    async with running(config(tmp_path, pools=(Pool("m", ("alias",)),), keys=keys)) as address:
        yield address


async def test_a_reporting_engine_becomes_an_open_route_with_room(target: str) -> None:
    async with fake_agent(target) as agent, fake_edge(target) as edge:
        await until(lambda: bool(edge.updates))
        await agent.serve("r1")
        await edge.until_serving("r1", Serving.OPEN)
        await until(lambda: edge.slots("r1") > 0)

    assert edge.slots("r1") == 16 + 4
    assert edge.credits.credits[0].weight == 1.0
    assert edge.snapshot.pools == (Pool("m", ("alias",)),)
    assert edge.snapshot.keys == (ApiKey(b"\x01" * 32, "k"),)
    (route,) = edge.snapshot.routes
    assert (route.pool, route.node, route.served_as) == ("m", "n1", "m")
    assert route.max_model_len_tokens == 4096
    assert isinstance(edge.updates[0].body, Snapshot)
    assert edge.of_kind(Delta), "a change after the snapshot travels as a difference"


async def test_versions_and_nonces_only_grow(target: str) -> None:
    async with fake_agent(target) as agent, fake_edge(target) as edge:
        await agent.serve("r1")
        await until(lambda: len(edge.updates) >= 6)

    order = [(update.term, update.version) for update in edge.updates]
    assert order == sorted(set(order))
    assert [update.nonce for update in edge.updates] == list(range(1, len(edge.updates) + 1))


async def test_credits_come_again_and_again_as_a_sign_of_life(target: str) -> None:
    async with fake_edge(target) as edge:
        await until(lambda: len(edge.of_kind(Credits)) >= 4)
    assert len(edge.of_kind(Snapshot, Delta)) == 1


@pytest.mark.parametrize(
    ("bad", "serving"),
    [
        (sample(state=EngineState.DEAD, reason="connection refused"), Serving.LOST),
        (sample(state=EngineState.STALLED, no_progress_ms=3_500), Serving.CLOSED),
        (sample(state=EngineState.STALLED, no_progress_ms=12_000), Serving.LOST),
    ],
    ids=["dead", "stalled", "hung"],
)
async def test_a_bad_report_takes_the_room_away_at_once(
    target: str, bad: EngineSample, serving: Serving
) -> None:
    async with fake_agent(target) as agent, fake_edge(target) as edge:
        await agent.serve("r1")
        await edge.until_serving("r1", Serving.OPEN)
        await agent.report(bad)
        await edge.until_serving("r1", serving)
        await until(lambda: edge.slots("r1") == 0)


async def test_a_stall_that_ends_in_time_gives_all_room_back_at_once(target: str) -> None:
    async with fake_agent(target) as agent, fake_edge(target) as edge:
        await agent.serve("r1")
        await edge.until_serving("r1", Serving.OPEN)
        await agent.report(sample(state=EngineState.STALLED, no_progress_ms=3_500))
        await edge.until_serving("r1", Serving.CLOSED)
        await agent.report(sample())
        await edge.until_serving("r1", Serving.OPEN)
        await until(lambda: edge.slots("r1") == 20)


async def test_a_restarted_engine_is_probed_and_gets_its_room_in_steps(target: str) -> None:
    async with fake_agent(target) as agent, fake_edge(target) as edge:
        agent.probes_end = True
        await agent.serve("r1")
        await edge.until_serving("r1", Serving.OPEN)
        await agent.report(sample(state=EngineState.DEAD, reason="connection refused"))
        await edge.until_serving("r1", Serving.LOST)
        async with TaskRunner() as runner:
            reports = runner.once("reports", agent.keep_reporting(sample(epoch=2)))
            await edge.until_serving("r1", Serving.OPEN)
            assert [type(told) for told in agent.directives] == [Probe]
            await until(lambda: edge.slots("r1") == 5)
            await until(lambda: edge.slots("r1") == 7)
            assert edge.reason("r1") == "ramping: its probes were answered; engine READY"
            reports.cancel()


async def test_a_restarted_engine_that_answers_no_probe_stays_out(target: str) -> None:
    async with fake_agent(target) as agent, fake_edge(target) as edge:
        agent.probes_end = False
        await agent.serve("r1")
        await edge.until_serving("r1", Serving.OPEN)
        await agent.report(sample(epoch=2))
        await until(lambda: edge.reason("r1").startswith("ejected: a probe failed"))
        assert edge.serving("r1") is Serving.CLOSED
        assert edge.slots("r1") == 0


async def test_one_that_fails_what_edges_send_is_ejected_and_overload_is_not(target: str) -> None:
    async with fake_agent(target) as agent, fake_edge(target) as edge:
        await agent.serve("r1", "r2", "r3")
        await edge.until_serving("r2", Serving.OPEN)
        uses = [
            ReplicaUse("r1", cohorts=(Cohort(0, 20, (OutcomeCount(Outcome.OVERLOAD, 20),)),)),
            ReplicaUse("r2", cohorts=(Cohort(0, 20, (OutcomeCount(Outcome.SOFT, 20),)),)),
            ReplicaUse("r3", cohorts=(Cohort(0, 20, (OutcomeCount(Outcome.OK, 20),)),)),
        ]
        await edge.report(uses)
        await edge.until_serving("r2", Serving.CLOSED)
        assert edge.reason("r2").startswith("ejected: it fails nearly every request")
        assert [edge.serving(name) for name in ("r1", "r3")] == [Serving.OPEN, Serving.OPEN]


async def test_a_lost_agent_takes_nothing_away(target: str) -> None:
    async with fake_edge(target) as edge:
        async with fake_agent(target) as agent:
            await agent.serve("r1")
            await edge.until_serving("r1", Serving.OPEN)
        await until(lambda: "disconnected" in edge.reason("r1"))
        await until(lambda: "over 2 s ago" in edge.reason("r1"))
        assert edge.serving("r1") is Serving.OPEN
        assert edge.slots("r1") == 20


async def test_an_agent_that_says_bye_takes_nothing_away(target: str) -> None:
    async with fake_edge(target) as edge:
        async with fake_agent(target) as agent:
            await agent.serve("r1")
            await edge.until_serving("r1", Serving.OPEN)
            await agent.leave()
        await until(lambda: "left (test over)" in edge.reason("r1"))
        assert edge.serving("r1") is Serving.OPEN


async def test_edges_share_the_room_and_get_it_back(target: str) -> None:
    async with fake_agent(target) as agent, fake_edge(target, "e1") as first:
        await agent.serve("r1")
        await until(lambda: first.slots("r1") == 20)
        async with fake_edge(target, "e2") as second, fake_edge(target, "e3") as third:
            edges = (first, second, third)
            await until(lambda: sorted(edge.slots("r1") for edge in edges) == [6, 7, 7])
        await until(lambda: first.slots("r1") == 20)


async def test_an_edge_that_does_not_ack_gets_only_the_newest_afterwards(target: str) -> None:
    async with fake_agent(target) as agent, fake_edge(target, "slow", acks=False) as slow:
        await until(lambda: len(slow.updates) == 2)  # one snapshot, one credits: no more un-acked
        async with fake_edge(target, "quick") as quick:
            for number in range(5):
                await agent.serve(f"r{number}")
                await quick.until_serving(f"r{number}", Serving.OPEN)
        assert len(slow.updates) == 2

        slow.acks = True
        for update in list(slow.updates):
            await slow.answer(update)
        await slow.until_serving("r4", Serving.OPEN)

    assert len(slow.of_kind(Snapshot, Delta)) == 2, "one difference holds all that was missed"


async def test_a_nack_is_answered_with_a_full_snapshot(target: str) -> None:
    async with fake_agent(target) as agent, fake_edge(target) as edge:
        await until(lambda: bool(edge.of_kind(Snapshot)))
        edge.refusal = "no such base"
        await agent.serve("r1")
        await until(lambda: bool(edge.of_kind(Delta)))
        edge.refusal = ""
        await edge.until_serving("r1", Serving.OPEN)

    kinds = [type(update.body) for update in edge.of_kind(Snapshot, Delta)]
    assert kinds[:3] == [Snapshot, Delta, Snapshot]


async def test_an_edge_that_refuses_everything_is_not_flooded(target: str) -> None:
    async with fake_edge(target, refusal="never") as edge:
        await until(lambda: len(edge.of_kind(Snapshot)) >= 3)
        first, second, third = (update.nonce for update in edge.of_kind(Snapshot)[:3])
    assert first < second < third
    assert len(edge.updates) <= 12


async def test_strangers_are_told_what_to_do(target: str) -> None:
    async with fake_agent(target, "n1", "one") as first, fake_agent(target, "n1", "two") as second:
        await until(lambda: second.error is not None or first.error is not None)
        refused = first if first.error is not None else second
        assert refused.error is not None
        assert "another agent runs for node n1" in str(refused.error.details())
        assert refused.error.code() is grpc.StatusCode.FAILED_PRECONDITION


async def test_one_replica_has_one_owner(target: str) -> None:
    async with fake_agent(target, "n1") as owner, fake_edge(target) as edge:
        await owner.serve("r1")
        await edge.until_serving("r1", Serving.OPEN)
        async with fake_agent(target, "n2") as thief:
            await thief.say(facts("r1"))
            await thief.report(sample("r1", EngineState.DEAD), sample("r9"))
            await until(lambda: len(thief.directives) >= 3)
            assert edge.serving("r1") is Serving.OPEN

    texts = [directive.reason for directive in thief.directives if isinstance(directive, Refused)]
    assert texts == [
        "facts refused: replica r1 belongs to node n1; replica names are unique",
        "sample refused: replica r1 belongs to node n1",
        "sample refused: send EngineFacts for r9 first",
    ]


async def test_two_edges_with_one_name_are_told(target: str) -> None:
    async with fake_edge(target, "e1") as first:
        await until(lambda: bool(first.updates))
        async with fake_edge(target, hello=EdgeHello("e1", instance="other")) as second:
            await until(lambda: second.error is not None)
            assert second.error is not None
            assert "another edge is called e1" in str(second.error.details())
        assert first.error is None
