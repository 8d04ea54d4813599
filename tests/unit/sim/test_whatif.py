"""sim/whatif: what is typed, how fast engines were, how near the model is, who comes again."""

from __future__ import annotations

import msgspec
import pytest

from sim.whatif.change import Asked, change
from sim.whatif.fit import fit
from sim.whatif.nearness import judge
from sim.whatif.replay import measured, return_ratio, wishes
from trimtab.recording import Arrival, End, Head, Policy, Recording, Replica, Tenant
from trimtab.whatif import Figures, Nearness

HEAD = Head(
    pool="m",
    began_ms=1,
    span_s=100.0,
    replicas=(Replica(name="r0", max_num_seqs=64), Replica(name="r1", max_num_seqs=32)),
    tenants=(Tenant("a"), Tenant("b")),
)


def arrival(at_s: float = 0.0, end: End = End.SERVED, **changes: object) -> Arrival:
    tokens = {End.SERVED: 10, End.REJECTED: 1}.get(end, 0)
    one = Arrival(at_s, 0, 100, tokens, end, True, 0, 0.0, 0.5 if tokens else None, 2.0)
    return msgspec.structs.replace(one, **changes)


@pytest.mark.parametrize(
    ("asked", "slots", "policy", "load", "words"),
    [
        (Asked(), [64, 32], Policy(), 1.0, ()),
        (Asked(replicas="2"), [64, 32], Policy(), 1.0, ()),
        (Asked(replicas="+1"), [64, 32, 64], Policy(), 1.0, ("3 replicas instead of 2",)),
        (Asked(replicas="-1"), [64], Policy(), 1.0, ("1 replica instead of 2",)),
        (Asked(replicas="4"), [64, 32, 64, 64], Policy(), 1.0, ("4 replicas instead of 2",)),
        (
            Asked(max_num_seqs="128", load="x1.5"),
            [128, 128],
            Policy(),
            1.5,
            ("--max-num-seqs 128 instead of 32 and 64", "1.5 times the requests"),
        ),
        (
            Asked(settings=("queue.budget_s=3", "edge.queue_limit=9", "hedge=true")),
            [64, 32],
            Policy(queue_wait_s=27.0, queue_limit=9, hedge=True),
            1.0,
            (
                "queue_wait_s 27 instead of 45",
                "queue_limit 9 instead of 256",
                "hedge true instead of false",
            ),
        ),
        (Asked(settings=("hedge=false",)), [64, 32], Policy(), 1.0, ("hedge as it is",)),
    ],
)
def test_what_is_asked_for(
    asked: Asked, slots: list[int], policy: Policy, load: float, words: tuple[str, ...]
) -> None:
    made = change(asked, HEAD)
    assert [replica.max_num_seqs for replica in made.replicas] == slots
    assert (made.policy, made.load, made.words) == (policy, load, words)


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        (Asked(replicas="-2"), "--replicas -2: .* 2 serve now"),
        (Asked(replicas="+0"), "--replicas"),
        (Asked(replicas="two"), "--replicas two"),
        (Asked(max_num_seqs="0"), "--max-num-seqs 0: say a whole number, 1 to 100000"),
        (Asked(load="x0"), "--load x0: say a factor above 0 and up to 10"),
        (Asked(load="1e3"), "--load 1e3"),
        (Asked(settings=("limit=3",)), "--set limit=3: what can be set is queue_limit,"),
        (Asked(settings=("queue_wait_s=",)), "--set queue_wait_s=: could not convert"),
        (Asked(settings=("queue_wait_s=-1",)), "--set queue_wait_s=-1: Expected .float. > 0"),
        (Asked(settings=("queue_wait_s=nan",)), "--set queue_wait_s=nan: "),
        (Asked(settings=("hedge=1",)), "--set hedge=1: say true or false"),
    ],
)
def test_what_cannot_be_simulated(asked: Asked, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        change(asked, HEAD)


def test_too_little_says_nothing() -> None:
    with pytest.raises(ValueError, match="only 3 answers of 8 tokens and more"):
        fit(Recording(HEAD, [arrival(n) for n in range(3)]))


FIGURES = Figures(
    requests=1000,
    served=950,
    refused=50,
    left=0,
    failed=0,
    first_p50_s=1.0,
    first_p95_s=4.0,
    first_p99_s=5.0,
    whole_p50_s=10.0,
    whole_p95_s=20.0,
    tokens_per_s=1000.0,
    busy_ratio=0.5,
)


@pytest.mark.parametrize(
    ("model", "nearness", "words"),
    [
        ({}, Nearness.NEAR, []),
        ({"first_p95_s": 4.2, "tokens_per_s": 1050.0, "refused": 70}, Nearness.NEAR, []),
        (
            {"refused": 100},
            Nearness.ROUGH,
            ["refused: measured 5.0 %, in the model 10.0 %"],
        ),
        (
            {"tokens_per_s": 1200.0, "first_p95_s": 17.0},
            Nearness.OFF,
            [
                "tokens/s: measured 1e+03, in the model 1.2e+03",
                "first tokens, p95 in s: measured 4, in the model 17",
            ],
        ),
        ({"first_p50_s": None}, Nearness.NEAR, []),
        ({"tokens_per_s": 0.0}, Nearness.OFF, ["tokens/s: measured 1e+03, in the model 0"]),
    ],
)
def test_how_near_it_is(model: dict[str, float], nearness: Nearness, words: list[str]) -> None:
    assert judge(FIGURES, msgspec.structs.replace(FIGURES, **model)) == (nearness, words)


def test_who_comes_in_a_replay() -> None:
    recorded = [
        arrival(1.0),
        arrival(2.0, End.REFUSED),
        arrival(3.0, End.REFUSED, retry=1),
        arrival(4.0, End.REJECTED),
        arrival(5.0, End.LEFT),
        arrival(6.0, End.LEFT, output_tokens=4),
        arrival(7.0, End.FAILED, output_tokens=3),
    ]
    found = wishes(Recording(HEAD, recorded), 1.0, seed=1)
    assert [(w.at_s, w.output_tokens, w.leaves_after_s) for w in found] == [
        (1.0, 10, None),
        (2.0, 10, None),  # as long as others' answers
        (5.0, 10, 2.0),
        (6.0, 4, None),  # it had what it wanted
        (7.0, 10, None),
    ]
    assert return_ratio(recorded) == pytest.approx(1 / 3)
    assert len(wishes(Recording(HEAD, [arrival()] * 1000), 2.5, seed=1)) == pytest.approx(2500, 0.1)


def test_what_was_measured_counts_wishes_not_submissions() -> None:
    recorded = [
        arrival(-1.0),
        arrival(1.0, first_s=0.25),
        arrival(2.0, End.REFUSED),
        arrival(3.0, End.REFUSED, retry=1),
        arrival(4.0, retry=2, is_stream=False, first_s=None),
        arrival(5.0, End.LEFT),
        arrival(6.0, End.REJECTED),
        arrival(101.0),
    ]
    seen = measured(Recording(HEAD, recorded))
    counts = (seen.requests, seen.served, seen.refused, seen.left, seen.failed)
    assert counts == (3, 2, 0, 1, 0)
    assert (seen.first_p95_s, seen.whole_p95_s, seen.tokens_per_s) == (0.25, 2.0, 0.2)


def test_figures_of_nothing() -> None:
    seen = measured(Recording(HEAD, []))
    assert (seen.requests, seen.first_p50_s, seen.refused_ratio) == (0, None, 0.0)
