"""The rig tells the truth: a hung engine looks healthy, and a killed one leaves nothing running."""

import json
import urllib.request

import pytest

from tests.real.engine import RealEngine, session_members

Engines = tuple[RealEngine, RealEngine]


def complete(engine: RealEngine, timeout_s: float) -> str:
    body = {"model": engine.model, "prompt": "import os", "max_tokens": 4, "temperature": 0}
    request = urllib.request.Request(  # noqa: S310 - loopback
        f"{engine.url}/v1/completions",
        json.dumps(body).encode(),
        {"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=timeout_s) as answer:  # noqa: S310 - loopback
        return str(json.load(answer)["choices"][0]["text"])


def test_both_engines_give_the_same_text(engines: Engines) -> None:
    first, second = (complete(engine, timeout_s=30) for engine in engines)
    assert first == second != ""


def test_a_hung_core_keeps_health_and_ends_answers(engines: Engines) -> None:
    engine = engines[0]
    engine.sigstop_core()
    assert engine.is_healthy()
    with pytest.raises(TimeoutError):
        complete(engine, timeout_s=1)
    engine.sigcont_core()
    assert complete(engine, timeout_s=30)


def test_a_killed_engine_leaves_nothing(engines: Engines) -> None:
    engine = engines[1]
    session = engine.pids().api
    engine.kill()
    assert not engine.is_healthy()
    assert session_members(session) == []
