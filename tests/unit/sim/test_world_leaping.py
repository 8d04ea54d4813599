"""The leaping engine against the stepping one: equal in every time, token, block and counter."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sim.engine import Engine, EngineSpec, Request
from sim.world.leaping import LeapingEngine, News

ROOMY = EngineSpec(
    max_num_seqs=6,
    max_num_batched_tokens=64,
    max_model_len=256,
    block_size=8,
    num_gpu_blocks=401,
    step_base_s=0.0101,
    step_per_sequence_s=0.0013,
    step_per_prefill_token_s=0.00017,
)
TIGHT = EngineSpec(
    max_num_seqs=6,
    max_num_batched_tokens=24,
    max_model_len=96,
    block_size=4,
    num_gpu_blocks=40,
    max_num_queued_reqs=12,
    step_base_s=0.0101,
    step_per_sequence_s=0.0013,
    step_per_prefill_token_s=0.00017,
)


class Stepped:
    """The stepping engine with the leaping one's interface, and what it says compared."""

    def __init__(self, spec: EngineSpec) -> None:
        self.engine = Engine(spec)
        self.seen: set[str] = set()

    def advance(self, until_s: float) -> list[News]:
        news = []
        while (now_s := self.engine.next_step_at) is not None and now_s <= until_s:
            for request_id, _, reason in self.engine.step(now_s).tokens:
                is_first = request_id not in self.seen
                self.seen.add(request_id)
                if is_first or reason:
                    news.append(News(now_s, request_id, is_first, reason))
        return news


def state_of_leaping(engine: LeapingEngine) -> dict[str, object]:
    return {
        "next": engine.step_ends_at,
        "gauges": engine.gauges,
        "places": (engine.in_flight, engine.num_running, engine.num_waiting),
        "blocks": (engine.kv.used, engine.kv.idle),
        "tokens": (engine.prompt_tokens, engine.prompt_tokens_cached, engine.generation_tokens),
        "prefix": (engine.prefix_cache_queries, engine.prefix_cache_hits),
        "preemptions": engine.num_preemptions,
        "success": engine.request_success,
        "rejections": engine.admission_rejections,
        "steps": engine.steps,
        "ttft": engine.ttft.counts,
        "itl": engine.itl.counts,
    }


def state_of_stepping(engine: Engine) -> dict[str, object]:
    counters = engine.counters
    return {
        "next": engine.next_step_at,
        "gauges": engine.gauges,
        "places": (engine.in_flight, engine.num_running, engine.num_waiting),
        "blocks": (engine.kv.used, engine.kv.idle),
        "tokens": (
            counters.prompt_tokens,
            counters.prompt_tokens_cached,
            counters.generation_tokens,
        ),
        "prefix": (counters.prefix_cache_queries, counters.prefix_cache_hits),
        "preemptions": counters.num_preemptions,
        "success": counters.request_success,
        "rejections": counters.admission_rejections,
        "steps": counters.histograms["iteration_tokens_total"].count,
        "ttft": counters.histograms["time_to_first_token_seconds"].counts,
        "itl": counters.histograms["inter_token_latency_seconds"].counts,
    }


submits = st.tuples(st.just("submit"), st.integers(1, 48), st.integers(1, 40), st.integers(0, 6))
aborts = st.tuples(st.just("abort"), st.integers(0, 200))
slows = st.tuples(st.just("slow"), st.sampled_from([1.0, 3.0, 0.5]))
thaws = st.tuples(st.just("thaw"), st.floats(0.0, 0.4))
waits = st.tuples(st.just("wait"), st.floats(0.0, 0.5))
plans = st.lists(st.one_of(submits, submits, aborts, slows, thaws, waits, waits), max_size=60)


@settings(max_examples=300, deadline=None)
@given(spec=st.sampled_from([ROOMY, TIGHT]), plan=plans)
def test_leaping_equals_stepping(spec: EngineSpec, plan: list[tuple[object, ...]]) -> None:
    run_both(spec, plan)


def run_both(spec: EngineSpec, plan: list[tuple[object, ...]]) -> None:
    stepped, leaping = Stepped(spec), LeapingEngine(spec)
    now_s, serial = 0.0, 0
    for action, *numbers in [*plan, ("wait", 1000.0)]:
        if action == "wait":
            now_s += float(numbers[0])  # type: ignore[arg-type]
        elif action == "thaw":  # the core stood still for a while
            now_s += float(numbers[0])  # type: ignore[arg-type]
            leaping.thaw(now_s)
            if stepped.engine.next_step_at is not None:
                stepped.engine.next_step_at = max(now_s, stepped.engine.next_step_at)
        elif action == "slow":
            leaping.slowdown = stepped.engine.slowdown = float(numbers[0])  # type: ignore[arg-type]
        elif action == "abort":
            leaping.abort(now_s, f"{numbers[0]}")
            stepped.engine.abort(now_s, f"{numbers[0]}")
        else:
            prompt, output, shared = numbers
            hashes = tuple(range(min(int(shared), int(prompt) // spec.block_size)))  # type: ignore[call-overload]
            request = Request(f"{serial}", int(prompt), int(output), block_hashes=hashes)  # type: ignore[call-overload]
            serial += 1
            assert leaping.submit(now_s, request) == stepped.engine.submit(now_s, request)
        foreseen_s = leaping.next_news_s()
        expected = stepped.advance(now_s)
        assert leaping.advance(now_s) == expected
        if expected and foreseen_s is not None:
            assert foreseen_s <= expected[0].at_s
        assert state_of_leaping(leaping) == state_of_stepping(stepped.engine)
    assert leaping.in_flight == 0
    assert leaping.itl.total == pytest.approx(
        stepped.engine.counters.histograms["inter_token_latency_seconds"].total
    )


def test_news_is_foreseen_to_the_instant() -> None:
    engine = LeapingEngine(ROOMY)
    for number in range(9):
        engine.submit(0.0, Request(f"{number}", 10 + number, 20 + 7 * number))
    heard = []
    looks = 0
    while (at_s := engine.next_news_s()) is not None:
        looks += 1
        for news in engine.advance(at_s):
            assert news.at_s == at_s
            heard.append(news)
    assert len(heard) == 18
    assert looks < 40 < engine.steps


def test_a_full_cache_preempts_as_the_stepping_engine_does() -> None:
    plan = [("submit", 40, 40, 0)] * 6
    run_both(TIGHT, [*plan, ("wait", 0.3), ("abort", 2), ("wait", 1.0)])
    engine = LeapingEngine(TIGHT)
    for number in range(6):
        engine.submit(0.0, Request(f"{number}", 40, 40))
    engine.advance(1000.0)
    assert engine.num_preemptions > 0


def test_what_an_aborted_request_had_got() -> None:
    engine = LeapingEngine(ROOMY)
    engine.submit(0.0, Request("a", 10, 40))
    assert engine.abort(0.0, "a") == 0
    engine.submit(0.0, Request("b", 10, 40))
    engine.advance(0.2)
    got = engine.generated("b")
    assert got > 5
    assert engine.abort(0.2, "b") == got
    assert (engine.in_flight, engine.kv.used) == (0, 0)


def test_a_budget_that_decoders_can_use_up_is_refused() -> None:
    with pytest.raises(ValueError, match="must exceed"):
        LeapingEngine(EngineSpec(max_num_seqs=64, max_num_batched_tokens=64))
