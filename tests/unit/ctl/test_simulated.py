"""What a simulation found, as people see it, and what `ctl simulate` refuses before it begins."""

from __future__ import annotations

import msgspec
import pytest

from ctl.main import main
from ctl.options import Format
from ctl.screen import Screen
from ctl.simulated import document, told
from tests.unit.ctl.test_golden import compare
from trimtab.whatif import Costs, Figures, Found, Nearness

MEASURED = Figures(
    requests=108_412,
    served=106_240,
    refused=2_168,
    left=0,
    failed=4,
    first_p50_s=1.4,
    first_p95_s=9.21,
    first_p99_s=12.04,
    whole_p50_s=11.2,
    whole_p95_s=48.6,
    tokens_per_s=8_410.0,
    busy_ratio=0.97,
)
MODEL = msgspec.structs.replace(MEASURED, served=106_000, refused=2_412, failed=0, first_p95_s=9.1)
CHANGED = msgspec.structs.replace(MODEL, served=108_412, refused=0, first_p95_s=2.3)
FOUND = Found(
    pool="gpt-oss-120b",
    began_ms=1_790_000_000_000,
    span_s=3600.0,
    replicas=4,
    edges=2,
    nearness=Nearness.NEAR,
    remarks=(),
    change=("5 replicas instead of 4",),
    measured=MEASURED,
    model=MODEL,
    changed=CHANGED,
    costs=Costs(
        base_s=0.015, per_sequence_s=0.0005, per_prefill_token_s=3e-5, answers=4_000, varied=True
    ),
    took_s=18.2,
)
CASES = {
    "near": FOUND,
    "rough": msgspec.structs.replace(
        FOUND,
        nearness=Nearness.ROUGH,
        remarks=("edges do not remember the first 20 min of that time",),
        changed=MODEL,
    ),
    "as-it-is": msgspec.structs.replace(FOUND, change=(), changed=None),
    "off": msgspec.structs.replace(
        FOUND,
        nearness=Nearness.OFF,
        remarks=("refused: measured 2.0 %, in the model 60.1 %",),
        model=msgspec.structs.replace(MODEL, refused=65_156, first_p50_s=None),
        changed=None,
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_one_screen(name: str) -> None:
    compare(f"simulate/{name}", told(CASES[name], Screen().table))


def test_for_programs() -> None:
    compare("simulate/json", document(FOUND, Format.JSON))
    compare("simulate/yaml", document(FOUND, Format.YAML))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("simulate --last 3h", '--last "3h": give a time up to 2h, like 10m or 1h'),
        ("simulate --last 0m", '--last "0m"'),
        ("simulate -o csv", "--output here is one of table, json, yaml, not csv"),
        ("simulate m --from f", "--from FILE takes neither --save nor a model: both are in it"),
        ("simulate --from /nowhere/f", "cannot read /nowhere/f"),
        ("simulate --from /dev/null", "cannot simulate: it is no recording of arrivals"),
    ],
)
def test_what_is_refused(words: str, said: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(words.split()) != 0
    assert said in capfd.readouterr().err
