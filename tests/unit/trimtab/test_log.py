"""Every event is one line of JSON, whatever is in it."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from typing import Any

import pytest

from trimtab.runtime.log import JsonFormatter


def line(message: str, fields: dict[str, Any] | None = None, **record: Any) -> dict[str, Any]:
    """What a record reads as; fails unless it is one line of JSON."""
    made = logging.makeLogRecord({"msg": message, "levelname": "WARNING", **record})
    if fields is not None:
        made.fields = fields
    text = JsonFormatter("edge").format(made)
    assert "\n" not in text
    parsed: dict[str, Any] = json.loads(text)
    return parsed


def test_line() -> None:
    parsed = line("replica %s lost", {"replica": "gpu0", "inflight": 3}, args=("gpu0",))
    assert parsed.pop("ts") > 1_600_000_000
    assert parsed == {
        "level": "warning",
        "service": "edge",
        "event": "replica gpu0 lost",
        "replica": "gpu0",
        "inflight": 3,
    }


def test_exception_keeps_its_trace() -> None:
    with pytest.raises(ValueError, match="invalid literal") as error:
        int("first\nsecond")
    parsed = line("broke", exc_info=(error.type, error.value, error.tb))
    assert parsed["trace"].startswith("Traceback")
    assert parsed["trace"].endswith("'first\\nsecond'")


@pytest.mark.parametrize(
    ("value", "logged"),
    [
        (ValueError("why"), "why"),
        (1j, "1j"),
        (float("nan"), None),
        (2**70, 2**70),
        ({1: "a"}, {"1": "a"}),
        ("two\nlines", "two\nlines"),
        ("\ud800", "\ud800"),
        ({"nested": ["\udcff", 1j]}, {"nested": ["\udcff", "1j"]}),
    ],
)
def test_values_that_json_does_not_know(value: object, logged: object) -> None:
    assert line("event", {"value": value})["value"] == logged


def test_configure_sends_all_loggers_to_stderr() -> None:
    program = (
        "import logging; from trimtab.runtime import log; log.configure('agent', 'WARNING');"
        "logging.getLogger('a').info('quiet'); logging.getLogger('b').error('loud')"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout == ""
    assert [json.loads(text)["event"] for text in done.stderr.splitlines()] == ["loud"]


ORDER = """
import importlib, os, sys
class Watch:
    def find_spec(self, name, path=None, target=None):
        if name == "grpc":
            print(os.environ.get("GRPC_VERBOSITY"))
sys.meta_path.insert(0, Watch())
importlib.import_module(sys.argv[1])
import trimtab.runtime.rpc
"""


@pytest.mark.parametrize("binary", ["agent", "controlplane", "ctl", "edge", "standalone"])
def test_grpc_is_silenced_before_it_is_imported(binary: str) -> None:
    """Afterwards it is too late: a line that is no JSON would stand in the log."""
    environment = {key: value for key, value in os.environ.items() if key != "GRPC_VERBOSITY"}
    command = [sys.executable, "-P", "-c", ORDER, f"{binary}.main"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout == "NONE\n"
