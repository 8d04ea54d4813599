"""Taking the configuration anew: what is said of it, to people and to the manager."""

from __future__ import annotations

import asyncio
import logging
import os
import pathlib
import signal
import socket
from collections.abc import Sequence

import pytest

from tests.fakes.wait import until
from trimtab.runtime.reload import Reloading
from trimtab.runtime.service import ConfigError
from trimtab.runtime.tasks import TaskRunner


async def test_a_reload_is_told_from_its_beginning_to_its_end(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    results: list[Sequence[str] | ConfigError] = [
        ConfigError("t.yaml:1:1  error\n1 error. Nothing was applied."),
        ["listen"],
    ]
    told: list[bool] = []

    async def take() -> Sequence[str]:
        await asyncio.sleep(0)
        if isinstance(found := results[len(told)], ConfigError):
            raise found
        return found

    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(f"{tmp_path}/notify")
        manager.setblocking(False)
        monkeypatch.setenv("NOTIFY_SOCKET", f"{tmp_path}/notify")
        reloading = Reloading(take, told.append, "serving")
        async with TaskRunner() as runner:
            runner.forever("reload", reloading.run())
            os.kill(os.getpid(), signal.SIGHUP)
            await until(lambda: told == [False])
            bad = "configuration not taken: t.yaml:1:1 error 1 error. Nothing was applied."
            assert reloading.problem == bad
            os.kill(os.getpid(), signal.SIGHUP)
            await until(lambda: told == [False, True])
        assert not reloading.problem
        notices = [manager.recv(1_000).decode().split("\n") for _ in range(4)]
    begin, end, again, well = notices
    assert begin[0] == again[0] == "RELOADING=1"
    assert begin[1].removeprefix("MONOTONIC_USEC=").isdecimal()
    assert end == ["READY=1", f"STATUS={bad}"]
    assert well == ["READY=1", "STATUS=serving"]
    messages = [(r.levelname, r.message, vars(r)["fields"]) for r in caplog.records]
    assert messages[0][:2] == ("ERROR", "configuration not taken; nothing changed")
    assert messages[1] == ("INFO", "configuration reloaded", {"needs_restart": "listen"})
