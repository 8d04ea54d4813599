"""Which configurations may be in effect, and what each says to people."""

from __future__ import annotations

from dataclasses import replace

import pytest

from controlplane.core import live
from controlplane.core.records import ConfigRecord, pack, unpack
from controlplane.core.replica import Replica
from tests.fakes.peers import facts
from trimtab.model import ApiKey, EdgePolicy, Pool, Route
from trimtab.views import ConfigRevision, ConfiguredEngine, LiveConfig

KEY = ApiKey(b"\x01" * 32, "imaging")
ENGINE = ConfiguredEngine("http://h:1", "big", "gpu0")
GOOD = LiveConfig((Pool("big", ("gpt",)),), (ENGINE,), (KEY,))
SERVES_M = Replica("r1", "http://h:9", 0.0, facts=facts(), route=Route("r1", "m", "n", "u", "m"))

BAD: dict[str, tuple[LiveConfig, str]] = {
    "pool without a name": (replace(GOOD, pools=(Pool("big", ("",)),)), "a name is empty"),
    "too many names": (replace(GOOD, pools=(Pool("big", ("a",) * 64),)), "65 names: at most 64"),
    "two pools": (replace(GOOD, pools=(*GOOD.pools, Pool("gpt"))), "model name gpt is there"),
    "an alias of a pool that was found": (
        LiveConfig((Pool("other", ("m",)),), (ConfiguredEngine("http://h:9", "m"),)),
        "there is no pool 'm'",
    ),
    "no such pool": (replace(GOOD, pools=()), "engine http://h:1: there is no pool 'big'"),
    "not a URL": (replace(GOOD, engines=(replace(ENGINE, url="h:1"),)), "is not an http URL"),
    "engine's name": (replace(GOOD, engines=(replace(ENGINE, name="a b"),)), "has spaces"),
    "engine twice": (replace(GOOD, engines=(ENGINE, ENGINE)), "engine URL http://h:1 is there"),
    "no hash": (replace(GOOD, keys=(ApiKey(b"sk-secret", "k"),)), "key 'k': wants a name, a SHA-"),
    "key without a name": (replace(GOOD, keys=(ApiKey(b"\x01" * 32),)), "key ''"),
    "key name twice": (replace(GOOD, keys=(KEY, ApiKey(b"\x02" * 32, "imaging"))), "key name im"),
    "key twice": (replace(GOOD, keys=(KEY, replace(KEY, name="other"))), "is there twice"),
    "no limit": (replace(GOOD, policy=EdgePolicy(queue_limit=0)), "edge: a limit is 0"),
    "many keys": (replace(GOOD, keys=(KEY,) * 10_001), "10001 keys: at most 10000"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_may_not_be_in_effect(name: str) -> None:
    config, said = BAD[name]
    found = live.faults(config, "n", [SERVES_M])
    assert any(said in fault for fault in found), found
    assert "sk-secret" not in "".join(found)


def test_what_may() -> None:
    assert live.faults(GOOD, "n", [SERVES_M]) == []
    assert live.faults(LiveConfig(), "n", [SERVES_M, Replica("r2", "http://h:2", 0.0)]) == []


def test_a_name_that_a_found_pool_has_is_taken() -> None:
    config = LiveConfig((Pool("other", ("m",)),))
    assert live.faults(config, "n", [SERVES_M]) == [], "an alias takes the pool's replicas in"


def test_engines_without_a_name_are_called_after_the_node() -> None:
    config = replace(GOOD, engines=(ConfiguredEngine("http://h:1"), ENGINE))
    now = live.effective(config, "n1")
    assert [(e.name, e.named) for e in now.placement.engines] == [("n1-1", False), ("gpu0", True)]
    assert live.configuration(now) == config


def test_a_record_outlives_versions() -> None:
    record = ConfigRecord(3, GOOD, 1.5, "op@box", "more")
    assert unpack(pack(record), ConfigRecord) == record
    assert b"\x01" * 32 not in pack(record)
    newer = pack(record).replace(b'"aliases"', b'"news":1,"aliases"')
    assert unpack(newer, ConfigRecord) == record
    assert [ConfigRecord(n).key for n in (2, 10)] == sorted(ConfigRecord(n).key for n in (2, 10))


def test_what_people_see() -> None:
    record = ConfigRecord(3, GOOD, 1.5, "op@box", "more")
    seen = live.view(record, GOOD, "cp1")
    assert seen == ConfigRevision(3, 1500, "op@box", "more", pools=1, engines=1, keys=1)
    file = live.view(ConfigRecord(), GOOD, "cp1")
    assert (file.revision, file.is_file, file.file_of) == (0, True, "cp1")
