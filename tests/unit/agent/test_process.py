"""Finding the engine's processes, on real ones."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from aiohttp.test_utils import unused_port

from agent import process

LISTEN = """
import socket, subprocess, sys
server = socket.create_server(("127.0.0.1", 0))
child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
print(server.getsockname()[1], child.pid, flush=True)
input()
"""
WAIT = "print('up', flush=True); input()"
# A parent that looks like `vllm serve` by its command line, with the listener as its child.
SERVE = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {LISTEN!r}])"


@contextmanager
def running(code: str, *arguments: str) -> Iterator[tuple[int, list[int]]]:
    """A Python process, and the numbers on the first line that it prints."""
    with subprocess.Popen(
        [sys.executable, "-c", code, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        first = child.stdout.readline().split()
        try:
            yield child.pid, [int(word) for word in first if word.isdecimal()]
        finally:
            child.stdin.write("\n")
            child.stdin.close()


def test_finds_the_listener_its_children_and_its_flag() -> None:
    with running(LISTEN, "--max-num-seqs=12") as (pid, (port, child)):
        found = process.find(port)
        assert found is not None
        assert (found.pid, found.max_num_seqs) == (pid, 12)
        assert found.pids == {pid, child}


def test_sees_where_it_listens_and_what_it_was_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLLM_SERVER_DEV_MODE", "1")
    monkeypatch.setenv("SECRET_OF_SOMEBODY", "x")
    with running(LISTEN, "--shutdown-timeout", "0") as (_, (port, _child)):
        found = process.find(port)
        assert found is not None
        assert (found.listens, found.strangers) == (("127.0.0.1",), 0)
        assert found.environment == {"VLLM_SERVER_DEV_MODE": "1"}
        assert found.lines[0][-2:] == ("--shutdown-timeout", "0")
        assert found.open_files_limit is not None
        assert found.open_files_limit > 0


def test_looks_for_the_flag_above_the_listener() -> None:
    with running(SERVE, "vllm", "serve", "--max-num-seqs", "24") as (parent, (port, child)):
        found = process.find(port)
        assert found is not None
        assert found.pid != parent
        assert found.pids == {parent, found.pid, child}
        assert found.max_num_seqs == 24


def test_nobody_listens() -> None:
    assert process.find(unused_port()) is None


def test_a_process_that_will_listen() -> None:
    port = unused_port()
    assert not process.loading(port, None)
    with running(WAIT, "--port", str(port)) as (pid, _):
        assert process.loading(port, None)
        assert not process.loading(port + 1, None)
        itself = process.EngineProcess(pid, 0.0, frozenset({pid}), None)
        assert not process.loading(port, itself)
        later = process.EngineProcess(1, 1e12, frozenset({1}), None)
        assert not process.loading(port, later)
        earlier = process.EngineProcess(1, 1.0, frozenset({1}), None)
        assert process.loading(port, earlier)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ([], None),
        ([""], None),
        (["--max-num-seqs", "8"], 8),
        (["--max-num-seqs=8"], 8),
        (["--max_num_seqs", "8"], 8),
        (["--max-num-seqs", "8", "--max-num-seqs", "9"], 9),
        (["--max-num-seqs"], None),
        (["--max-num-seqs", "many"], None),
        (["--max-num-seqs", "0"], None),
        (["--max-num-seqs", "-1"], None),
        (["--max-num-seqs", "9" * 40], process.NUMBER_LIMIT),
        (["--max-num-seqs-extra", "8"], None),
    ],
)
def test_max_num_seqs(line: list[str], expected: int | None) -> None:
    assert process._max_num_seqs(line) == expected


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (["/opt/vllm/bin/vllm", "serve", "m"], 8000),
        (["python", "-m", "vllm.entrypoints.openai.api_server"], 8000),
        (["vllm", "serve", "m", "--port", "8001"], 8001),
        (["python", "/opt/vllm/tool.py"], None),
    ],
)
def test_port(line: list[str], expected: int | None) -> None:
    assert process._port(line) == expected


@pytest.mark.parametrize(
    ("host", "expected"),
    [("127.0.0.1", True), ("localhost", True), ("::1", True), ("192.0.2.1", False), ("", False)],
)
def test_is_local(host: str, expected: bool) -> None:
    assert process.is_local(host) is expected
