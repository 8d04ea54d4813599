"""What is said, and that what can be pasted works."""

from __future__ import annotations

import io
import json
import pathlib
import shlex

import pytest

from standalone import banner
from standalone.banner import Console
from standalone.config import Plan
from standalone.discover import Found, Kind
from standalone.state import State
from trimtab.runtime.config import Config, Key

URL = "http://127.0.0.1:8000"
PLACE = State(pathlib.Path("/s t"))


@pytest.mark.parametrize(
    ("listen", "url"),
    [
        ("127.0.0.1:4000", "http://127.0.0.1:4000/v1"),
        ("0.0.0.0:5000", "http://127.0.0.1:5000/v1"),
        ("[::]:5000", "http://[::1]:5000/v1"),
        ("[fe80::1]:5000", "http://[fe80::1]:5000/v1"),
        ("gpu1:80", "http://gpu1:80/v1"),
    ],
)
def test_endpoint(listen: str, url: str) -> None:
    assert banner.endpoint(listen) == url


def test_the_curl_line_survives_a_shell() -> None:
    words = shlex.split(banner.curl("http://h:1/v1", "sk-tt-a_b-c", "it's a model"))
    assert words[:3] == ["curl", "-sS", "http://h:1/v1/chat/completions"]
    assert words[4] == "Authorization: Bearer sk-tt-a_b-c"
    assert json.loads(words[-1])["model"] == "it's a model"


def test_rows_say_what_is_known() -> None:
    base = Config(keys=(Key(name="imaging", sha256="0" * 64),))
    known = dict(banner.rows(Plan(base, PLACE.root, True), PLACE, "http://h:1/v1", "sk-k", "m"))
    assert known["key"] == "sk-k"
    assert "sk-k" in known["try"]
    assert known["watch"].endswith("ctl status")
    assert "page" not in known
    base = Config(keys=base.keys, controlplane_metrics="127.0.0.1:4002")
    unknown = dict(banner.rows(Plan(base, PLACE.root, False), PLACE, "http://h:1/v1", "", ""))
    assert unknown["page"] == "http://127.0.0.1:4002/"
    assert unknown["key"] == "those of the configuration: imaging"
    assert unknown["try"] == "no model is ready yet: the next line shows why"
    assert unknown["watch"].endswith("--server 'unix:/s t/control.sock' status")


def test_what_was_found_is_listed() -> None:
    found = [
        Found(URL, Kind.VLLM, "0.32.0", ("a", "b")),
        Found(URL, Kind.LOCKED, "0.32.0"),
        Found(URL, Kind.OTHER),
        Found(URL, Kind.REFUSED),
        Found(URL, Kind.SILENT),
    ]
    assert banner.found_lines(found) == [
        f"found {URL}: vLLM 0.32.0, serves a, b",
        f"found {URL}: vLLM 0.32.0, wants a key",
        f"left alone {URL}: it answers, but not like vLLM",
    ]


@pytest.mark.parametrize(
    ("kind", "has_key", "text"),
    [
        (Kind.VLLM, False, ""),
        (Kind.REFUSED, False, f"nobody listens at {URL}: going on"),
        (Kind.SILENT, False, f"{URL} does not answer within a second: going on"),
        (Kind.OTHER, False, f"{URL} answers, but not like vLLM: going on"),
        (Kind.LOCKED, False, f"{URL} wants a key: set TRIMTAB_UPSTREAM_KEY"),
        (Kind.LOCKED, True, f"{URL} does not take the key in TRIMTAB_UPSTREAM_KEY"),
    ],
)
def test_a_named_engine_that_does_not_answer(kind: Kind, has_key: bool, text: str) -> None:
    warning = banner.warning(Found(URL, kind), has_key)
    assert warning.startswith(text)
    assert bool(warning) == bool(text)


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        """It is."""
        return True


def speak(stream: io.StringIO) -> str:
    """A short life of a console."""
    console = Console(stream)
    console.warn("careful")
    console.ready(1.23, [("key", "k"), ("endpoint", "e")])
    console.status("agent", "not shown")
    for text in ("serving 1", "serving 1", "serving 2"):
        console.status("edge", text)
        console.show_status()
    console.died("edge", "was killed by SIGKILL", 0.2, pathlib.Path("/s/edge.log"))
    console.back("edge")
    return stream.getvalue()


def test_a_file_gets_plain_lines() -> None:
    assert speak(io.StringIO()).splitlines() == [
        "! careful",
        "ready in 1.2 s",
        "  key       k",
        "  endpoint  e",
        "Ctrl-C ends everything in order",
        "serving 1",
        "serving 2",
        "! edge was killed by SIGKILL: starting it again in 0.2 s (/s/edge.log)",
        "edge is back",
    ]


def test_a_terminal_gets_colour_and_one_status_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    said = speak(Terminal())
    assert said.startswith("\x1b[33m! careful\x1b[0m\n")
    assert "\r\x1b[Kserving 1\r\x1b[Kserving 2\r\x1b[K\x1b[33m! edge was" in said


def test_no_color_is_obeyed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b[33m" not in speak(Terminal())
