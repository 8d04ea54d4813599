"""What an agent does with a grant: only what its own file and its own eyes agree to."""

from __future__ import annotations

from typing import cast

import pytest

from agent.remedy import Remedy
from agent.watch import EngineWatch
from trimtab.directives import Restart

UNIT = "vllm@0.service"
KILL = ("systemctl", "--no-ask-password", "--no-block", "kill", "--signal=SIGKILL", UNIT)
START = ("systemctl", "--no-ask-password", "--no-block", "restart", UNIT)


class Manager:
    """Remembers commands, and fails as told."""

    def __init__(self, fails: str = "") -> None:
        self.fails = fails
        self.done: list[tuple[str, ...]] = []

    async def run(self, command: tuple[str, ...]) -> str:
        self.done.append(command)
        return self.fails


class Watch:
    """A watch that has made up its mind."""

    def __init__(self, unit: str = UNIT, problem: str = "") -> None:
        self.unit = unit
        self.problem = problem

    def give_up(self, epoch: int) -> str:
        return self.problem if epoch == 1 else "another start"


def watching(unit: str = UNIT, problem: str = "") -> EngineWatch:
    return cast("EngineWatch", Watch(unit, problem))


async def test_all_of_it_is_killed_and_it_is_started() -> None:
    manager = Manager()
    result = await Remedy(manager.run).restart(Restart("r", 3, 1), watching())
    assert (result.replica, result.epoch, result.ok, result.detail) == ("r", 1, True, "")
    assert manager.done == [KILL, START]


@pytest.mark.parametrize(
    ("grant", "watch", "words"),
    [
        (Restart("r", 3, 1), None, "not watched"),
        (Restart("r", 3, 1), watching(unit=""), "its unit is not in this agent's file"),
        (Restart("r", 3, 1), watching(problem="its agent sees that it is READY"), "READY"),
        (Restart("r", 3, 2), watching(), "another start"),
    ],
)
async def test_nothing_is_done_against_the_agents_own_word(
    grant: Restart, watch: EngineWatch | None, words: str
) -> None:
    manager = Manager()
    result = await Remedy(manager.run).restart(grant, watch)
    assert not result.ok
    assert words in result.detail
    assert manager.done == []


async def test_an_older_term_is_not_obeyed() -> None:
    manager = Manager()
    remedy = Remedy(manager.run)
    assert (await remedy.restart(Restart("r", 4, 1), watching())).ok
    assert "term 4 has granted" in (await remedy.restart(Restart("r", 3, 1), watching())).detail
    assert len(manager.done) == 2


async def test_what_systemd_says_is_told() -> None:
    result = await Remedy(Manager("Access denied").run).restart(Restart("r", 1, 1), watching())
    assert (result.ok, result.detail) == (False, "Access denied")


async def test_a_command_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agent.remedy.SYSTEMCTL", ("/nonexistent/systemctl",))
    result = await Remedy().restart(Restart("r", 1, 1), watching())
    assert result.detail == "/nonexistent/systemctl: No such file or directory"
