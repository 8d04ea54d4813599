"""A supervisor for the length of a block, and an audience that writes down what it is told."""

from __future__ import annotations

import asyncio
import contextlib
import pathlib
import random
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import psutil

from standalone.state import State
from standalone.supervisor import Spec, Supervisor
from trimtab.runtime.tasks import TaskRunner


@dataclass
class Record:
    """The audience."""

    lines: list[str] = field(default_factory=list)

    def died(self, name: str, how: str, wait_s: float, log: pathlib.Path) -> None:
        """A death."""
        self.lines.append(f"{name} {how} {wait_s <= 0.2} {log.name}")

    def back(self, name: str) -> None:
        """A return."""
        self.lines.append(f"{name} back")

    def loaded(self, name: str) -> None:
        """An engine's first time."""
        self.lines.append(f"{name} loaded")

    def given_up(self, why: str) -> None:
        """An engine's last time."""
        self.lines.append(f"given up: {why}")

    def status(self, name: str, text: str) -> None:
        """A status."""
        self.lines.append(f"{name}: {text}")


def ours() -> list[psutil.Process]:
    """Living children of this process."""
    return [p for p in psutil.Process().children(recursive=True) if p.status() != "zombie"]


@contextlib.asynccontextmanager
async def running(place: State, record: Record, *specs: Spec) -> AsyncIterator[asyncio.Event]:
    """A supervisor for the length of a block; gives the event that says that all are up."""
    stop, up = asyncio.Event(), asyncio.Event()
    supervisor = Supervisor(specs, place, random.Random(1), record)
    async with TaskRunner() as tasks:
        _ = tasks.once("supervisor", supervisor.run(stop, up))
        yield up
        stop.set()
