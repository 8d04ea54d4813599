"""The rig tells the truth: equal engines answer alike, and a hung one looks healthy."""

import openai
import pytest

from tests.real.engine import MODEL, RealEngine

Engines = tuple[RealEngine, RealEngine]


def complete(engine: RealEngine, timeout_s: float) -> str:
    with openai.OpenAI(base_url=f"{engine.url}/v1", api_key="none", max_retries=0) as client:
        answer = client.completions.create(
            model=MODEL, prompt="import os", max_tokens=4, temperature=0, timeout=timeout_s
        )
    return answer.choices[0].text


def test_both_engines_give_the_same_text(engines: Engines) -> None:
    first, second = (complete(engine, timeout_s=30) for engine in engines)
    assert first == second != ""


def test_a_hung_core_keeps_health_and_ends_answers(engines: Engines) -> None:
    engine = engines[0]
    engine.sigstop_core()
    assert engine.is_healthy()
    with pytest.raises(openai.APITimeoutError):
        complete(engine, timeout_s=1)
    engine.sigcont_core()
    assert complete(engine, timeout_s=30)
