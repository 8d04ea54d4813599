"""sd_notify's datagrams, as a manager gets them."""

from __future__ import annotations

import asyncio
import os
import pathlib
import socket
from collections.abc import Iterator
from typing import TypedDict

import pytest

from trimtab.runtime.notify import notify, stay_alive, watchdog_s
from trimtab.runtime.tasks import TaskRunner


class Said(TypedDict, total=False):
    """The arguments of notify."""

    ready: bool
    stopping: bool
    status: str
    more_s: float


@pytest.fixture(params=["path", "abstract"])
def manager(
    request: pytest.FixtureRequest, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[socket.socket]:
    """A manager's socket, by path or by abstract name."""
    name = f"@trimtab-test-{os.getpid()}" if request.param == "abstract" else f"{tmp_path}/notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(name.replace("@", "\0"))
        sock.settimeout(5)
        monkeypatch.setenv("NOTIFY_SOCKET", name)
        yield sock


@pytest.mark.parametrize(
    ("said", "datagram"),
    [
        (Said(ready=True), b"READY=1"),
        (Said(ready=True, status="2 engines"), b"READY=1\nSTATUS=2 engines"),
        (Said(stopping=True), b"STOPPING=1"),
        (Said(stopping=True, more_s=90.5), b"STOPPING=1\nEXTEND_TIMEOUT_USEC=90500000"),
        (Said(status="grün"), "STATUS=grün".encode()),
        (Said(status="a\nREADY=1"), b"STATUS=a READY=1"),
    ],
)
def test_datagram(manager: socket.socket, said: Said, datagram: bytes) -> None:
    notify(**said)
    assert manager.recv(1_000) == datagram


def test_nothing_to_say_sends_nothing(manager: socket.socket) -> None:
    notify()
    notify(status="then this")
    assert manager.recv(1_000) == b"STATUS=then this"


@pytest.mark.parametrize("address", ["", "/nonexistent/notify"])
def test_no_manager_is_no_error(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", address)
    notify(ready=True)
    monkeypatch.delenv("NOTIFY_SOCKET")
    notify(ready=True)


def test_a_manager_that_does_not_read_holds_nobody_up(manager: socket.socket) -> None:
    for _ in range(int(pathlib.Path("/proc/sys/net/unix/max_dgram_qlen").read_text()) + 2):
        notify(status="more")
    assert manager.recv(1_000) == b"STATUS=more"


@pytest.mark.parametrize(
    ("period_us", "meant_for", "expected_s"),
    [
        ("30000000", "", 30.0),
        ("30000000", "own", 30.0),
        ("30000000", "1", None),
        ("", "", None),
        ("0", "", None),
        ("soon", "", None),
    ],
)
def test_the_watchdog_is_fed_if_it_is_ours(
    period_us: str, meant_for: str, expected_s: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", period_us)
    monkeypatch.setenv("WATCHDOG_PID", meant_for.replace("own", str(os.getpid())))
    assert watchdog_s() == expected_s


async def test_the_loop_feeds_the_watchdog(
    manager: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", "30000")
    async with TaskRunner() as tasks:
        tasks.forever("watchdog", stay_alive())
        for _ in range(3):
            assert await asyncio.to_thread(manager.recv, 1_000) == b"WATCHDOG=1"
