"""No peer can make us hold more than we mean to."""

from __future__ import annotations

import pytest

from controlplane.core import bounds
from tests.fakes.peers import facts, sample
from trimtab.model import GpuProcess, GpuSample, PoolUse, Report, TenantUse, XidEvent


@pytest.mark.parametrize(
    ("name", "fault"),
    [
        ("gpu0", ""),
        ("узел-1", ""),
        ("", "1 to 128 characters, not 0"),
        ("x" * 129, "1 to 128 characters, not 129"),
        ("a b", "spaces or control characters"),
        ("a\x1b[31m", "spaces or control characters"),
        ("a\n", "spaces or control characters"),
    ],
)
def test_names(name: str, fault: str) -> None:
    said = bounds.name_fault(name)
    assert fault in said
    assert bool(said) == bool(fault)


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({}, ""),
        ({"url": "ftp://h"}, "is not an http URL"),
        ({"url": "http://" + "h" * 600}, "is not an http URL"),
        ({"max_num_seqs": 0}, "max_num_seqs is 0, not 1 to 100000"),
        ({"max_num_seqs": 2**31}, "not 1 to 100000"),
    ],
)
def test_facts(changes: dict[str, object], fault: str) -> None:
    said = bounds.facts_fault(facts("r1", **changes))
    assert fault in said
    assert bool(said) == bool(fault)


def test_a_bad_name_makes_bad_facts() -> None:
    assert "control characters" in bounds.facts_fault(facts("a b"))


def test_long_facts_are_cut() -> None:
    cut = bounds.bounded_facts(
        facts("r1", url="http://h:1/", served_models=("m" * 999,) * 99, vllm_version="v" * 999)
    )
    assert cut.url == "http://h:1"
    assert len(cut.served_models) == 64
    assert len(cut.served_models[0]) == len(cut.vllm_version) == 300
    assert cut.vllm_version.endswith("…")


def test_adapters_that_nobody_could_name_are_left_out() -> None:
    names = ("sql", "", "a" * 257, "a\x1b[31m", "de") + ("many",) * 200
    kept = bounds.bounded_facts(facts("r1", adapters=names)).adapters
    assert kept[:2] == ("sql", "de")
    assert len(kept) <= bounds.ADAPTERS_LIMIT


def test_long_reports_are_cut() -> None:
    gpu = GpuSample(
        0,
        detail="d" * 999,
        xids=(XidEvent(79, 1),) * 99,
        processes=(GpuProcess(1),) * 99,
    )
    engine = sample(reason="r" * 999, gpus=tuple(range(99)))
    cut = bounds.bounded_report(Report(1, (engine,) * 99, (gpu,) * 99, "x" * 999))

    assert len(cut.engines) == len(cut.gpus) == 64
    assert len(cut.engines[0].reason) == len(cut.gpu_detail) == 300
    assert len(cut.engines[0].gpus) == 64
    assert (len(cut.gpus[0].detail), len(cut.gpus[0].xids)) == (300, 8)
    assert len(cut.gpus[0].processes) == 64


def test_an_ordinary_sample_is_left_as_it_is() -> None:
    engine = sample(reason="fine")
    assert bounds.bounded_report(Report(1, (engine,))).engines[0] == engine


def test_an_edges_word_on_a_pool_is_cut_and_can_be_added_up() -> None:
    mad = TenantUse(
        "t" * 999, queued=2**32 - 1, queued_work=-1e300, ages_ms=(1,) * 999, charged_work=-1e300
    )
    cut = bounds.bounded_pool_use(PoolUse("m", queued=2**32 - 1, tenants=(mad,) * 99))
    assert cut.queued == bounds.COUNT_LIMIT
    assert len(cut.tenants) == 64
    use = cut.tenants[0]
    assert (len(use.tenant), len(use.ages_ms)) == (bounds.NAME_LIMIT_CHARS, 64)
    assert (use.queued_work, use.charged_work) == (0.0, -bounds.WORK_LIMIT)
