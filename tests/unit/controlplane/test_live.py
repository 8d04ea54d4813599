"""How another configuration comes into effect, and how it does not."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from controlplane import live as live_module
from controlplane import state
from controlplane.core.events import Configured, Event
from controlplane.core.live import Live
from controlplane.core.placement import Placement
from controlplane.core.records import CONFIGS, ConfigRecord
from controlplane.leader import Tenure
from controlplane.live import (
    BadConfigError,
    LiveConfiguration,
    StaleConfigError,
    UnknownRevisionError,
)
from controlplane.saver import Saver
from controlplane.store.protocol import StoreError
from tests.fakes.store import FakeStore
from trimtab.model import ApiKey, EdgePolicy, Pool
from trimtab.views import LiveConfig

FILE = Live(Placement([Pool("file")]), (ApiKey(b"\x01" * 32, "k"),), EdgePolicy(), "n1")


def config(name: str) -> LiveConfig:
    return LiveConfig((Pool(name),))


def wanted(name: str) -> ConfigRecord:
    return ConfigRecord(config=config(name), actor="op@box", reason="why")


class Desk:
    """A live configuration, its store, and what was told of it."""

    def __init__(self, store: FakeStore | None = None) -> None:
        self.store = store or FakeStore()
        self.saver = Saver(self.store, Tenure())
        self.told: list[Event] = []
        self.live = LiveConfiguration(FILE, self.store, self.saver, self.told.append)

    @property
    def pools(self) -> Sequence[str]:
        """The names of those in effect."""
        return [pool.name for pool in self.live.now.placement.pools]

    async def apply(self, name: str) -> int:
        """Put a configuration of one pool into effect."""
        return await self.live.apply(wanted(name), self.live.record.revision, [])


async def test_what_is_applied_is_stored_then_followed_and_found_again() -> None:
    desk = Desk()
    assert await desk.apply("a") == 1
    assert desk.pools == ["a"]
    assert isinstance(desk.told[-1], Configured)
    assert desk.told[-1].noted[0].fields == {"revision": 1, "actor": "op@box", "reason": "why"}
    again = Desk(desk.store)
    again.live.load((await state.load(desk.store)).config)
    assert (again.pools, again.live.record) == (["a"], desk.live.record)


async def test_the_same_again_is_no_news() -> None:
    desk = Desk()
    assert await desk.live.apply(ConfigRecord(config=desk.live.of(ConfigRecord())), 0, []) == 0
    assert (await desk.apply("a"), await desk.apply("a")) == (1, 1)
    assert await desk.live.apply(ConfigRecord(actor="op"), 1, []) == 2, "back to the file"
    assert desk.pools == ["file"]
    assert await desk.live.apply(ConfigRecord(actor="op"), 2, []) == 2


async def test_a_bad_one_changes_nothing() -> None:
    desk = Desk()
    with pytest.raises(BadConfigError, match="model name a is there twice"):
        await desk.live.apply(ConfigRecord(config=LiveConfig((Pool("a"), Pool("a")))), 0, [])
    many = tuple(ApiKey(bytes([n % 256, n // 256]) * 16, "k" * 200 + str(n)) for n in range(5_000))
    with pytest.raises(BadConfigError, match="bytes: at most"):
        await desk.live.apply(ConfigRecord(config=LiveConfig(keys=many)), 0, [])
    assert (desk.pools, desk.told, desk.store.entries) == (["file"], [], {})


async def test_of_two_at_once_one_wins() -> None:
    desk = Desk()
    both = [desk.live.apply(wanted(name), 0, []) for name in ("a", "b")]
    done = await asyncio.gather(*both, return_exceptions=True)
    assert done[0] == 1
    assert isinstance(done[1], StaleConfigError)
    assert desk.pools == ["a"]


async def test_what_could_not_be_stored_is_not_followed_nor_by_the_next_leader() -> None:
    desk = Desk()
    await desk.apply("a")
    desk.store.error = "disk full"
    with pytest.raises(StoreError, match="disk full"):
        await desk.apply("b")
    assert desk.pools == ["a"]
    desk.store.error = ""
    assert await desk.apply("c") == 2
    await desk.saver.flush()
    assert [record.config for record in await desk.live.kept()] == [config("a"), config("c")]


async def test_the_history_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live_module, "HISTORY_MAX", 3)
    desk = Desk()
    for number in range(6):
        await desk.apply(f"p{number}")
        await desk.saver.flush()
    assert [record.revision for record in await desk.live.kept()] == [4, 5, 6]
    assert (await desk.live.find(5)).config == config("p4")
    assert await desk.live.find(0) == ConfigRecord()
    with pytest.raises(UnknownRevisionError, match="revision 2 is not kept; there are: 4 to 6"):
        await desk.live.find(2)


async def test_an_unreadable_record_is_passed_over(caplog: pytest.LogCaptureFixture) -> None:
    desk = Desk()
    await desk.apply("a")
    desk.saver.save(f"{CONFIGS}{2:010d}", b"{")
    await desk.saver.flush()
    desk.live.load((await state.load(desk.store)).config)
    assert desk.pools == ["a"]
    assert "differ from what was applied" in caplog.text
