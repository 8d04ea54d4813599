"""sd_notify from both ends."""

from __future__ import annotations

import asyncio
import pathlib

import pytest

from standalone import notices
from standalone.notices import Notice
from standalone.state import State
from trimtab.runtime.notify import notify


@pytest.mark.parametrize(
    ("datagram", "notice"),
    [
        (b"READY=1", Notice(ready=True)),
        (b"READY=1\nSTATUS=fine = good\n", Notice(ready=True, status="fine = good")),
        (b"STATUS=\x1b[31mred", Notice(status="[31mred")),
        (b"STATUS=" + b"x" * 5000, Notice(status="x" * notices.STATUS_LIMIT_CHARACTERS)),
        (b"READY=0\nWATCHDOG=1", Notice()),
        (b"\xff\xfe nonsense", Notice()),
        (b"", Notice()),
    ],
)
def test_parse(datagram: bytes, notice: Notice) -> None:
    assert notices.parse(datagram) == notice


@pytest.fixture
def path(place: State) -> pathlib.Path:
    """Where to listen; a run that was killed left its socket there."""
    left = place.notify_socket("edge")
    left.touch()
    return left


async def test_what_a_service_says_arrives(
    path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", str(path))
    heard: asyncio.Queue[Notice] = asyncio.Queue(maxsize=10)
    async with notices.listen(path, heard.put_nowait):
        notify(ready=True, status="serving")
        async with asyncio.timeout(5):
            assert await heard.get() == Notice(ready=True, status="serving")
