"""The reader of /metrics against real pages, old names, garbage and the official parser."""

from __future__ import annotations

import math
import pathlib
from collections import defaultdict

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from agent.core import exposition
from agent.core.exposition import Reading, parse
from trimtab.policy.progress import Vitals

DATA = pathlib.Path(__file__).parents[2] / "data" / "vllm"
PAGES = ("idle", "load-waiting", "kv-full-preempt", "dp2-idle", "dp2-load")
Samples = dict[str, list[tuple[dict[str, str], float]]]


def page(name: str) -> str:
    return (DATA / f"metrics-{name}.txt").read_text()


def official(text: str) -> Samples:
    """Everything on the page, as prometheus_client reads it."""
    samples: Samples = defaultdict(list)
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            samples[sample.name].append((sample.labels, sample.value))
    return samples


def total(samples: Samples, name: str) -> int | None:
    values = [value for _, value in samples.get(name, [])]
    return int(sum(values)) if values else None


@pytest.mark.parametrize("name", PAGES)
def test_agrees_with_the_official_parser(name: str) -> None:
    reading, samples = parse(page(name)), official(page(name))
    usage = [value for _, value in samples.get(exposition.KV_USAGE[0], [])]
    assert reading.vitals == Vitals(
        running=total(samples, exposition.RUNNING),
        waiting=total(samples, exposition.WAITING),
        kv_cache_usage_ratio=sum(usage) / len(usage) if usage else None,
        prompt_tokens=total(samples, exposition.PROMPT_TOKENS),
        generation_tokens=total(samples, exposition.GENERATION_TOKENS),
        steps=total(samples, exposition.STEPS),
        finished=total(samples, exposition.FINISHED),
    )
    assert reading.preemptions == total(samples, exposition.PREEMPTIONS)
    assert reading.rejections == total(samples, exposition.REJECTIONS)
    assert reading.prefix_queries_tokens == total(samples, exposition.PREFIX_QUERIES[0])
    assert reading.prefix_hits_tokens == total(samples, exposition.PREFIX_HITS[0])
    started = samples.get(exposition.START_TIME)
    assert reading.start_time_s == (started[0][1] if started else None)


@pytest.mark.parametrize("name", PAGES)
@pytest.mark.parametrize("base", [exposition.TTFT[0], exposition.ITL[0]])
def test_histograms_agree_with_the_official_parser(name: str, base: str) -> None:
    samples = official(page(name))
    buckets: dict[float, int] = defaultdict(int)
    for labels, value in samples[f"{base}_bucket"]:
        buckets[float(labels["le"])] += int(value)
    reading = parse(page(name))
    histogram = reading.ttft if base == exposition.TTFT[0] else reading.itl
    assert histogram is not None
    assert dict(zip(histogram.le_s, histogram.cumulative, strict=True)) == buckets
    assert histogram.le_s[-1] == math.inf
    assert histogram.cumulative[-1] == total(samples, f"{base}_count")
    assert histogram.sum_s == pytest.approx(sum(v for _, v in samples[f"{base}_sum"]))


def test_kv_cache_size() -> None:
    assert parse(page("idle")).kv_cache_tokens == 8192 * 128
    assert parse(page("kv-full-preempt")).kv_cache_tokens == 64 * 32
    assert parse(page("dp2-idle")).kv_cache_tokens == 2 * 8192 * 128


def test_two_engines_that_made_no_step_export_no_gauges() -> None:
    vitals = parse(page("dp2-idle")).vitals
    assert (vitals.running, vitals.waiting, vitals.kv_cache_usage_ratio) == (None, None, None)
    assert (vitals.generation_tokens, vitals.steps) == (0, 0)


OLD = """\
vllm:gpu_cache_usage_perc{model_name="m"} 0.25
vllm:gpu_prefix_cache_queries_total{model_name="m"} 200.0
vllm:gpu_prefix_cache_hits_total{model_name="m"} 50.0
vllm:time_per_output_token_seconds_bucket{le="0.01",model_name="m"} 3.0
vllm:time_per_output_token_seconds_bucket{le="+Inf",model_name="m"} 5.0
vllm:time_per_output_token_seconds_sum{model_name="m"} 0.5
vllm:cache_config_info{block_size="16",num_gpu_blocks="100"} 1.0
"""


def test_names_of_old_versions() -> None:
    reading = parse(OLD)
    assert reading.vitals.kv_cache_usage_ratio == 0.25
    assert (reading.prefix_queries_tokens, reading.prefix_hits_tokens) == (200, 50)
    assert reading.itl == exposition.Histogram((0.01, math.inf), (3, 5), 0.5)
    assert reading.kv_cache_tokens == 1600
    assert reading.is_vllm


def test_a_version_with_both_names_is_not_counted_twice() -> None:
    new = OLD.replace("gpu_cache", "kv_cache").replace("gpu_prefix", "prefix")
    new = new.replace("time_per_output_token", "inter_token_latency")
    assert parse(OLD + new) == parse(new) == parse(new + OLD)


LINES: dict[str, tuple[str, Reading]] = {
    "absent": ("", Reading(Vitals())),
    "no labels": ("vllm:num_requests_running 3.0", Reading(Vitals(running=3))),
    "a timestamp": ("vllm:num_requests_running{} 3.0 1795233705990", Reading(Vitals(running=3))),
    "windows line ends": ("vllm:num_requests_running{} 3.0\r", Reading(Vitals(running=3))),
    "a brace in a label": (
        'vllm:num_requests_running{model_name="a} 9"} 3.0',
        Reading(Vitals(running=3)),
    ),
    "not a number": ("vllm:num_requests_running{} NaN", Reading(Vitals())),
    "infinite": ("vllm:num_requests_running{} +Inf", Reading(Vitals())),
    "negative": ("vllm:num_requests_running{} -1.0", Reading(Vitals())),
    "larger than any wire": ("vllm:generation_tokens_total{} 1e300", Reading(Vitals())),
    "torn": ('vllm:num_requests_running{engine="0', Reading(Vitals())),
    "no value": ("vllm:num_requests_running{}", Reading(Vitals())),
    "created": ('vllm:prompt_tokens_created{engine="0"} 1.79e+09', Reading(Vitals())),
    "by reason": (
        'vllm:num_requests_waiting_by_reason{reason="capacity"} 4.0',
        Reading(Vitals()),
    ),
    "a ratio above one": (
        "vllm:kv_cache_usage_perc{} 1.0000001",
        Reading(Vitals(kv_cache_usage_ratio=1.0)),
    ),
    "awake": ('vllm:engine_sleep_state{sleep_state="awake"} 1.0', Reading(Vitals())),
    "asleep": (
        'vllm:engine_sleep_state{sleep_state="awake"} 0.0\n'
        'vllm:engine_sleep_state{sleep_state="weights_offloaded"} 1.0',
        Reading(Vitals(), asleep=True),
    ),
    "one of two asleep": (
        'vllm:engine_sleep_state{engine="0",sleep_state="awake"} 0.0\n'
        'vllm:engine_sleep_state{engine="1",sleep_state="awake"} 1.0',
        Reading(Vitals()),
    ),
    "KV size not known yet": (
        'vllm:cache_config_info{block_size="16",num_gpu_blocks="None"} 1.0',
        Reading(Vitals()),
    ),
    "bucket without a bound": ("vllm:time_to_first_token_seconds_bucket{} 1.0", Reading(Vitals())),
}


@pytest.mark.parametrize("name", LINES)
def test_line(name: str) -> None:
    text, expected = LINES[name]
    assert parse(text) == expected


def test_a_page_that_is_not_vllm() -> None:
    assert not parse("process_start_time_seconds 1.5\nup 1\n").is_vllm


def test_an_endless_page_is_cut() -> None:
    filler = "#" * exposition.TEXT_LIMIT_BYTES
    assert parse(f"{filler}\n{OLD}") == Reading(Vitals())


@given(st.text(alphabet=st.sampled_from('vllm:num_requests_running{}="le, 019.eE+-\nNaInf#')))
@example("vllm:num_requests_running{} 0x10")
@example('vllm:cache_config_info{num_gpu_blocks="1e999",block_size="nan"}')
def test_garbage_is_harmless(text: str) -> None:
    check_sane(parse("\n".join(("vllm:num_requests_running" + line) for line in text.split("\n"))))
    check_sane(parse(text))


@given(st.data())
def test_a_damaged_page_is_harmless(data: st.DataObject) -> None:
    text = page("load-waiting")
    start = data.draw(st.integers(0, len(text)))
    end = start + data.draw(st.integers(0, 2000))
    check_sane(parse(text[:start] + data.draw(st.text(max_size=20)) + text[end:]))


def check_sane(reading: Reading) -> None:
    """Nothing that the wire could not carry, or that never equals itself."""
    assert reading == reading  # noqa: PLR0124  # NaN would differ
    vitals = reading.vitals
    for count in (vitals.running, vitals.generation_tokens, reading.kv_cache_tokens):
        assert count is None or 0 <= count <= exposition.COUNT_MAX
    assert vitals.kv_cache_usage_ratio is None or 0.0 <= vitals.kv_cache_usage_ratio <= 1.0
