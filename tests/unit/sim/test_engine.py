"""The engine model: slots, blocks, FIFO, chunked prefill, preemption, aborts, limits, counting."""

from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sim.engine import Engine, EngineSpec, Request, StepResult

SPEC = EngineSpec(
    max_num_seqs=4,
    max_num_batched_tokens=64,
    max_model_len=256,
    block_size=16,
    num_gpu_blocks=101,
    step_base_s=0.010,
    step_per_sequence_s=0.001,
    step_per_prefill_token_s=0.0001,
)
STEPS_MAX = 20_000


def _request(name: str, prompt: int = 10, output: int = 3, **fields: object) -> Request:
    return replace(Request(name, prompt, output), **fields)  # type: ignore[arg-type]


def _run(engine: Engine) -> list[StepResult]:
    """Step until idle, each step when it is due."""
    results = []
    while engine.next_step_at is not None:
        results.append(engine.step(engine.next_step_at))
        assert len(results) < STEPS_MAX
    return results


def _tokens(results: list[StepResult]) -> Counter[str]:
    counts: Counter[str] = Counter()
    for result in results:
        for event in result.tokens:
            counts[event.request_id] += event.n_tokens
    return counts


def test_one_request_gets_its_tokens_at_the_times_of_the_formula() -> None:
    engine = Engine(SPEC)
    assert engine.submit(1.0, _request("a")) is None
    assert engine.next_step_at == 1.0
    tokens, preempted, next_step_at = engine.step(1.0)
    assert (tokens, preempted) == ([], [])
    assert next_step_at == pytest.approx(1.011)  # base + 10 prompt tokens
    tokens, _, next_step_at = engine.step(1.011)
    assert tokens == [("a", 1, None)]
    assert next_step_at == pytest.approx(1.022)  # base + one decoding sequence
    rest = _run(engine)
    assert [result.tokens for result in rest] == [[("a", 1, None)], [("a", 1, "length")]]
    assert engine.next_step_at is None
    assert (engine.in_flight, engine.kv.used) == (0, 0)


def test_a_step_cannot_end_early() -> None:
    engine = Engine(SPEC)
    engine.submit(0.0, _request("a"))
    engine.step(0.0)
    with pytest.raises(ValueError, match="has not ended"):
        engine.step(0.005)


def test_slots_are_limited_and_the_queue_is_first_in_first_out() -> None:
    engine = Engine(SPEC)
    for name in "abcdef":
        engine.submit(0.0, _request(name, prompt=4))
    engine.step(0.0)
    assert (engine.num_running, engine.num_waiting) == (4, 2)
    first_tokens = [e.request_id for result in _run(engine) for e in result.tokens]
    assert list(dict.fromkeys(first_tokens)) == list("abcdef")


def test_a_long_prompt_is_computed_in_chunks_beside_running_ones() -> None:
    engine = Engine(SPEC)
    engine.submit(0.0, _request("short", prompt=4, output=20))
    engine.step(0.0)
    engine.submit(0.001, _request("long", prompt=150, output=2))
    counts = []
    while engine.next_step_at is not None:
        counts.append({event.request_id for event in engine.step(engine.next_step_at).tokens})
    # 63 + 63 + 24 tokens: the short one decodes in each of those steps.
    assert counts[:4] == [{"short"}, {"short"}, {"short"}, {"short", "long"}]


def test_when_blocks_run_out_the_newest_is_preempted_and_later_recomputed() -> None:
    spec = replace(SPEC, num_gpu_blocks=18, max_model_len=256)  # 17 usable blocks, 272 tokens
    engine = Engine(spec)
    for name in "ab":
        engine.submit(0.0, _request(name, prompt=60, output=120))
    results = []
    while engine.counters.num_preemptions == 0 and engine.next_step_at is not None:
        results.append(engine.step(engine.next_step_at))
        if results[-1].preempted:
            assert results[-1].preempted == ["b"]
            assert engine.num_waiting == 1
            assert engine.counters.num_preemptions == 0  # told when its victim yields again
    assert engine.counters.num_preemptions == 1
    assert _tokens(results + _run(engine)) == {"a": 120, "b": 120}
    assert engine.counters.prompt_tokens == 120  # the recomputation is not counted again
    assert engine.counters.histograms["request_num_preemptions"].total == 1


def test_prompts_that_begin_alike_are_computed_once() -> None:
    engine = Engine(SPEC)
    hashes = (1, 2, 3)
    engine.submit(0.0, _request("a", prompt=50, output=1, block_hashes=hashes))
    _run(engine)
    engine.submit(1.0, _request("b", prompt=50, output=1, block_hashes=hashes))
    assert engine.step(1.0).next_step_at == pytest.approx(1.0102)  # 2 of 50 tokens are new
    _run(engine)
    counters = engine.counters
    assert (counters.prefix_cache_queries, counters.prefix_cache_hits) == (100, 48)
    assert (counters.prompt_tokens, counters.prompt_tokens_cached) == (100, 48)
    assert engine.kv.usage_ratio == 0.0


def test_the_last_prompt_token_is_always_computed() -> None:
    engine = Engine(SPEC)
    for start_s in (0.0, 1.0):
        engine.submit(start_s, _request("a", prompt=32, output=1, block_hashes=(1, 2)))
        _run(engine)
    assert engine.counters.prefix_cache_hits == 16


@pytest.mark.parametrize("steps_before", [0, 1, 2, 4])
def test_an_abort_frees_everything_and_counts_nothing(steps_before: int) -> None:
    engine = Engine(SPEC)
    engine.submit(0.0, _request("gone", prompt=100, output=50))
    engine.submit(0.0, _request("stays"))
    for _ in range(steps_before):
        assert engine.next_step_at is not None
        engine.step(engine.next_step_at)
    engine.abort(engine.next_step_at or 0.0, "gone")
    counts = _tokens(_run(engine))
    assert counts["gone"] == 0
    assert engine.counters.request_success == {
        **dict.fromkeys(("abort", "error", "repetition", "stop"), 0),
        "length": 1,
    }
    assert (engine.in_flight, engine.kv.used, engine.gauges.running) == (0, 0, 0)


def test_an_operators_abort_is_counted() -> None:
    engine = Engine(SPEC)
    engine.submit(0.0, _request("a"))
    engine.abort(0.0, "a", counted=True)
    assert engine.counters.request_success["abort"] == 1


def test_aborting_the_unknown_is_nothing() -> None:
    engine = Engine(SPEC)
    engine.abort(0.0, "nobody")
    assert engine.next_step_at is None


def test_gauges_move_only_when_a_step_ends() -> None:
    engine = Engine(SPEC)
    engine.submit(0.0, _request("a"))
    engine.step(0.0)
    assert engine.gauges.running == 0
    engine.step(0.011)
    assert (engine.gauges.running, engine.gauges.kv_usage_ratio) == (1, 0.01)
    engine.submit(0.012, _request("b"))
    assert engine.gauges.waiting == 0
    engine.abort(0.013, "a")
    assert engine.gauges.running == 1
    _run(engine)
    assert (engine.gauges.running, engine.gauges.waiting) == (0, 0)


@pytest.mark.parametrize(
    ("limits", "reason"),
    [
        ({"max_num_queued_reqs": 2}, "max_num_queued_reqs"),
        ({"max_num_queued_tokens": 20}, "max_num_queued_tokens"),
    ],
)
def test_queue_limits_refuse_and_count(limits: dict[str, int], reason: str) -> None:
    engine = Engine(replace(SPEC, **limits))
    for name in "ab":
        assert engine.submit(0.0, _request(name)) is None
    assert engine.rejection() == reason
    assert engine.submit(0.0, _request("c")) == reason
    assert engine.counters.admission_rejections[reason] == 2
    _run(engine)
    assert engine.rejection() is None


def test_several_choices_count_several_fold_against_the_limit() -> None:
    engine = Engine(replace(SPEC, max_num_queued_reqs=3))
    assert engine.rejection(3) is None
    assert engine.rejection(4) == "max_num_queued_reqs"


def test_prompt_tokens_leave_the_prefill_backlog_by_abort_too() -> None:
    engine = Engine(replace(SPEC, max_num_queued_tokens=10))
    engine.submit(0.0, _request("a"))
    assert engine.rejection() == "max_num_queued_tokens"
    engine.abort(0.0, "a")
    assert engine.rejection() is None


def test_times_and_sizes_are_observed_as_vllm_does() -> None:
    engine = Engine(replace(SPEC, max_num_seqs=1))
    for name in "ab":
        engine.submit(0.0, _request(name, finished_reason="stop", max_tokens=7))
    _run(engine)
    sums = {name: h.total for name, h in engine.counters.histograms.items()}
    # a: prefill 11 ms, two decodes of 11 ms; b starts when a is done.
    assert sums["time_to_first_token_seconds"] == pytest.approx(0.011 + 0.044)
    assert sums["inter_token_latency_seconds"] == pytest.approx(4 * 0.011)
    assert sums["request_queue_time_seconds"] == pytest.approx(0.033)
    assert sums["request_prefill_time_seconds"] == pytest.approx(0.022)
    assert sums["request_decode_time_seconds"] == pytest.approx(0.044)
    assert sums["request_inference_time_seconds"] == pytest.approx(0.066)
    assert sums["e2e_request_latency_seconds"] == pytest.approx(0.099)
    assert sums["request_time_per_output_token_seconds"] == pytest.approx(0.022)
    assert sums["iteration_tokens_total"] == 26
    assert sums["request_params_max_tokens"] == 14
    assert engine.counters.request_success["stop"] == 2
    assert (engine.counters.prompt_tokens, engine.counters.generation_tokens) == (20, 6)


def test_a_slowdown_stretches_the_next_steps() -> None:
    engine = Engine(SPEC)
    engine.slowdown = 5.0
    engine.submit(0.0, _request("a"))
    assert engine.step(0.0).next_step_at == pytest.approx(0.055)


def test_presets_are_sound_and_the_default_has_the_measured_speed() -> None:
    large = EngineSpec.h200()
    assert 86 / large.step_s(86, 0) == pytest.approx(1420, rel=0.01)
    demo = EngineSpec.demo().faster(2)
    assert demo.step_s(16, 0) == pytest.approx(EngineSpec.demo().step_s(16, 0) / 2)


@pytest.mark.parametrize(
    "change", [{"num_gpu_blocks": 8}, {"max_num_seqs": 0}, {"max_num_batched_tokens": 0}]
)
def test_impossible_engines_are_refused(change: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=r"KV cache|at least 1"):
        replace(SPEC, **change)


@pytest.mark.parametrize(
    "request_", [_request("a", 0), _request("a", 1, 0), _request("a", 250, 7), _request("used")]
)
def test_impossible_requests_are_refused(request_: Request) -> None:
    engine = Engine(SPEC)
    engine.submit(0.0, _request("used"))
    with pytest.raises(ValueError, match=r"at least one|exceed|in use"):
        engine.submit(0.0, request_)


_ARRIVALS = st.lists(
    st.tuples(
        st.floats(0, 1, allow_nan=False),  # when
        st.integers(1, 120),  # prompt tokens
        st.integers(1, 60),  # output tokens
        st.integers(0, 3),  # which shared prompt
        st.none() | st.floats(0, 2, allow_nan=False),  # aborted how long after
    ),
    max_size=25,
)


def _play(spec: EngineSpec, arrivals: list[tuple[float, int, int, int, float | None]]) -> str:
    """Run arrivals and aborts in time order, checking the invariants; returns a full trace."""
    engine = Engine(spec)
    events: list[tuple[float, int, bool]] = []  # the last says whether it is an abort
    for index, (at_s, *_, abort_s) in enumerate(arrivals):
        events.append((at_s, index, False))
        if abort_s is not None:
            events.append((at_s + abort_s, index, True))
    events.sort()
    trace: list[object] = []
    counts: Counter[str] = Counter()
    ended: dict[str, str] = {}
    aborted: set[str] = set()
    while events or engine.next_step_at is not None:
        if engine.next_step_at is None or (events and events[0][0] < engine.next_step_at):
            at_s, index, is_abort = events.pop(0)
            _, prompt, output, shared, _ = arrivals[index]
            if not is_abort:
                hashes = tuple(shared * 1000 + block for block in range(prompt // spec.block_size))
                engine.submit(at_s, Request(f"{index}", prompt, output, block_hashes=hashes))
            else:
                engine.abort(at_s, f"{index}")
                aborted |= {f"{index}"} - ended.keys()
        else:
            result = engine.step(engine.next_step_at)
            trace.append(result)
            for event in result.tokens:
                counts[event.request_id] += event.n_tokens
                if event.finished_reason is not None:
                    ended[event.request_id] = event.finished_reason
        assert engine.kv.used + engine.kv.idle <= engine.kv.capacity
        assert engine.num_running <= spec.max_num_seqs
        assert engine.num_running + engine.num_waiting == engine.in_flight
        assert len(trace) < STEPS_MAX
    for index, (_, _, output, _, _) in enumerate(arrivals):
        name = f"{index}"
        assert counts[name] == output or (name in aborted and counts[name] < output)
        assert (name in ended) == (name not in aborted)
    assert (engine.in_flight, engine.kv.used) == (0, 0)
    assert engine.counters.generation_tokens == sum(counts.values())
    return repr(trace)


@settings(deadline=None)
@given(arrivals=_ARRIVALS, blocks=st.integers(13, 40))
def test_no_request_and_no_block_is_ever_lost(
    arrivals: list[tuple[float, int, int, int, float | None]], blocks: int
) -> None:
    spec = replace(SPEC, num_gpu_blocks=blocks, max_model_len=180)
    assert _play(spec, arrivals) == _play(spec, arrivals)
