"""What an engine was told when it was started."""

from __future__ import annotations

import pytest

from agent.core import flags
from trimtab.facts import EngineSetup

SERVE = ("vllm", "serve", "m", "--port", "8000")
CASES: dict[str, tuple[tuple[str, ...], dict[str, str] | None, EngineSetup]] = {
    "nothing given": (SERVE, {}, EngineSetup("r", True, has_flags=True, dev_mode=False)),
    "all of it": (
        (
            *SERVE,
            *("--shutdown-timeout", "300", "--max_num_seqs=64", "--api-key=sk-1"),
            *("--scheduling-policy", "priority"),
        ),
        {"VLLM_SERVER_DEV_MODE": "1", "VLLM_HTTP_TIMEOUT_KEEP_ALIVE": "2"},
        EngineSetup(
            replica="r",
            seen=True,
            has_flags=True,
            shutdown_timeout_s=300.0,
            max_num_seqs=64,
            scheduling_policy="priority",
            has_api_key=True,
            dev_mode=True,
            keep_alive_s=2.0,
        ),
    ),
    "the last one wins": (
        (*SERVE, "--max-num-seqs", "8", "--max-num-seqs", "9"),
        {"VLLM_SERVER_DEV_MODE": "0"},
        EngineSetup("r", True, has_flags=True, max_num_seqs=9, dev_mode=False),
    ),
    "a key of the environment": (
        SERVE,
        {"VLLM_API_KEY": "sk-1"},
        EngineSetup("r", True, has_flags=True, has_api_key=True, dev_mode=False),
    ),
    "no numbers": (
        (*SERVE, "--shutdown-timeout", "soon", "--max-num-seqs", "-1"),
        {"VLLM_HTTP_TIMEOUT_KEEP_ALIVE": "nan"},
        EngineSetup("r", True, has_flags=True, dev_mode=False),
    ),
    "nothing to read": ((), None, EngineSetup("r", True)),
}


@pytest.mark.parametrize("name", CASES)
def test_what_was_given(name: str) -> None:
    line, environment, expected = CASES[name]
    found = flags.read("r", [line], environment)
    assert found == expected
    assert "sk-1" not in repr(found)
