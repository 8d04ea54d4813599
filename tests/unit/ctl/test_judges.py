"""Each way to set a fleet up wrongly is named, with the line to change; what is right is not."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from ctl import judges
from ctl.judges import DAY_MS, JUDGES, Case, Certificate, Finding, Level
from tests.fakes.fleet import GPU0, WELL
from trimtab.facts import EngineSetup, FleetFacts, PeerFacts, ProcessFacts
from trimtab.model import LimitSource
from trimtab.views import Fleet

AT_MS = 1_700_000_000_000
ROOMY = ProcessFacts(AT_MS, open_files=40, open_files_limit=262_144)
GOOD = EngineSetup(
    "gpu0",
    seen=True,
    listens=("127.0.0.1",),
    has_flags=True,
    shutdown_timeout_s=300.0,
    max_num_seqs=128,
    scheduling_policy="priority",
    has_api_key=True,
    dev_mode=False,
    open_files_limit=65_536,
)
FACTS = FleetFacts(
    leader=ROOMY,
    store="embedded",
    store_read_s=0.001,
    store_write_s=0.004,
    agents=(PeerFacts("h200a", 0.02, ROOMY),),
    edges=(PeerFacts("edge-a", -0.03, ROOMY),),
    queue_limit=256,
)


def case(fleet: Fleet = WELL, engine: EngineSetup = GOOD, **changes: Any) -> Case:
    """A fleet that is set up well, but for these changes."""
    ours = {name: changes.pop(name) for name in ("certificates", "at_ms") if name in changes}
    values = {"at_ms": AT_MS, **ours}
    facts = replace(FACTS, **changes)
    return Case(fleet, facts, "0.1.0", engines={"gpu0": engine}, **values)


def engine(**changes: Any) -> Case:
    return case(engine=replace(GOOD, **changes))


def replica(**changes: Any) -> Case:
    return case(replace(WELL, replicas=(replace(GPU0, **changes),)))


def peer(**changes: Any) -> tuple[PeerFacts, ...]:
    return (replace(FACTS.edges[0], **changes),)


def process(**changes: Any) -> ProcessFacts:
    return replace(ROOMY, **changes)


# What is wrong: how bad, which check, about whom, in which words, what to change.
WRONG: dict[str, tuple[Case, Level, str, str, str, str]] = {
    "open to all": (
        engine(listens=("0.0.0.0",), has_api_key=False),  # noqa: S104 - it is the mistake
        *(Level.BAD, "exposure", "gpu0", "listens on 0.0.0.0 without an API key", "--host 127."),
    ),
    "unguarded paths": (
        engine(listens=("::", "127.0.0.1")),
        *(Level.WARN, "exposure", "gpu0", "/score, /pooling ask for no key", "--host 127.0.0.1"),
    ),
    "an address without a key": (
        engine(listens=("10.0.0.7",), has_api_key=False),
        *(Level.BAD, "exposure", "gpu0", "listens on 10.0.0.7 without an API key", "firewall"),
    ),
    "dev mode": (
        engine(dev_mode=True),
        *(Level.BAD, "dev mode", "gpu0", "VLLM_SERVER_DEV_MODE is on", "unset VLLM_SERVER_DEV"),
    ),
    "aborts when stopped": (
        engine(shutdown_timeout_s=None),
        *(Level.WARN, "shutdown", "gpu0", "--shutdown-timeout is 0", "--shutdown-timeout 300"),
    ),
    "told to abort": (
        engine(shutdown_timeout_s=0.0),
        *(Level.WARN, "shutdown", "gpu0", "cuts the streams", "--shutdown-timeout 300"),
    ),
    "another batch": (
        replica(max_num_seqs=64, max_num_seqs_source=LimitSource.CONFIG),
        *(Level.BAD, "batch size", "gpu0", "says 64, its command line 128", "max_num_seqs: 128"),
    ),
    "batch unknown": (
        replica(max_num_seqs=256, max_num_seqs_source=LimitSource.ASSUMED),
        *(Level.WARN, "batch size", "gpu0", "taken to be 256", "max_num_seqs: N"),
    ),
    "classes unheeded": (
        case(engine=replace(GOOD, scheduling_policy=""), uses_classes=True),
        *(Level.WARN, "classes", "gpu0", "keys have urgencies", "--scheduling-policy priority"),
    ),
    "keep-alive too short": (
        engine(keep_alive_s=2.0),
        *(Level.BAD, "keep-alive", "gpu0", "after 2 s", "VLLM_HTTP_TIMEOUT_KEEP_ALIVE=5"),
    ),
    "port shared": (
        engine(strangers=1),
        *(Level.BAD, "ports", "gpu0", "listen on the port of http://10.0.0.7:8000", ":8000'"),
    ),
    "edge's files": (
        case(edges=peer(process=process(open_files_limit=512, open_files=40))),
        *(Level.WARN, "files", "edge-a", "may open 512 files, has 40", "unit of trimtab-edge"),
    ),
    "edge's files, nearly all": (
        case(edges=peer(process=process(open_files_limit=512, open_files=500))),
        *(Level.BAD, "files", "edge-a", "and could need 1032", "ulimit -n 262144"),
    ),
    "leader's files": (
        case(leader=process(open_files_limit=128)),
        *(Level.WARN, "files", "cp1", "may open 128 files", "unit of trimtab-controlplane"),
    ),
    "engine's files": (
        engine(open_files_limit=1_024),
        *(Level.WARN, "files", "gpu0", "may open 1024 files", "LimitNOFILE=65536"),
    ),
    "clock of a node": (
        case(agents=(PeerFacts("h200a", 2.5, ROOMY),)),
        *(Level.WARN, "clocks", "h200a", "2.5s ahead of the leader's", "timedatectl set-ntp"),
    ),
    "clock of an edge, far off": (
        case(edges=peer(ahead_s=-90.0)),
        *(Level.BAD, "clocks", "edge-a", "1m30s behind the leader's", "timedatectl set-ntp"),
    ),
    "clock of this machine": (
        case(at_ms=AT_MS + 5_000),
        *(Level.WARN, "clocks", "this machine", "5.0s ahead of", "timedatectl set-ntp"),
    ),
    "slow store": (
        case(store_write_s=0.25),
        *(Level.WARN, "store", "embedded", "a write took 250 ms", "a disk of its own"),
    ),
    "very slow store": (
        case(store_write_s=1.2),
        *(Level.BAD, "store", "embedded", "a write took 1200 ms", "fast fsync"),
    ),
    "no store": (
        case(store="etcd", store_error="no quorum", store_write_s=None),
        *(Level.BAD, "store", "etcd", "it can't be used: no quorum", "its disk"),
    ),
    "certificate not renewed": (
        case(certificates=(Certificate("h200a", DAY_MS),)),
        *(Level.WARN, "certificates", "h200a", "ends in 1d and was not renewed", "trimtab join"),
    ),
    "certificate nearly over": (
        case(certificates=(Certificate("h200a", DAY_MS // 2),)),
        *(Level.BAD, "certificates", "h200a", "ends in 12h", "trimtab join again"),
    ),
    "clients' certificate": (
        case(edges=peer(process=process(certificate_expires_ms=AT_MS + 9 * DAY_MS))),
        *(Level.WARN, "certificates", "edge-a", "clients see ends in 9.0 days", "edge.tls.cert"),
    ),
    "clients' certificate over": (
        case(edges=peer(process=process(certificate_expires_ms=AT_MS - 1))),
        *(Level.BAD, "certificates", "edge-a", "clients see has expired", "edge.tls.cert"),
    ),
    "no GPU readings": (
        case(replace(WELL, agents=(replace(WELL.agents[0], gpu_detail="driver too old"),))),
        *(Level.WARN, "gpus", "h200a", "can't be read: driver too old", "nvidia-smi"),
    ),
    "another edge's version": (
        case(replace(WELL, edges=(replace(WELL.edges[0], edge_version="0.2.0"),))),
        *(Level.WARN, "versions", "edge-a", "runs 0.2.0, and the leader 0.1.0", "upgrade"),
    ),
    "two vLLMs in a pool": (
        case(
            replace(
                WELL,
                replicas=(
                    *(GPU0, replace(GPU0, route=replace(GPU0.route, replica="gpu8"))),
                    replace(GPU0, vllm_version="0.31.0", route=replace(GPU0.route, replica="gpu9")),
                ),
            )
        ),
        *(Level.WARN, "versions", "gpu9", "vLLM 0.31.0, and 0.32.0 in the rest", "the same vLLM"),
    ),
    "a silent edge": (
        case(edges=(PeerFacts("edge-a", error="no answer in 2 s"),)),
        *(Level.WARN, "answers", "edge-a", "no answer in 2 s", "look at its log"),
    ),
    "an agent that is gone": (
        case(replace(WELL, agents=(replace(WELL.agents[0], connected=False),))),
        *(Level.WARN, "answers", "h200a", "is not connected", "systemctl status trimtab-agent"),
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_is_named_and_nothing_else(name: str) -> None:
    seeded, level, check, about, text, change = WRONG[name]
    found = [one for one in judges.judge(seeded) if one.level is not Level.OK]
    assert [(one.level, one.check, one.about) for one in found] == [(level, check, about)]
    assert text in found[0].text
    assert change in found[0].change


def test_every_check_is_seeded_and_told_when_all_is_well() -> None:
    assert {check for _, _, check, *_ in WRONG.values()} == set(JUDGES)
    found = judges.judge(case())
    assert [(one.level, one.check) for one in found] == [(Level.OK, check) for check in JUDGES]


@pytest.mark.parametrize(
    "seeded",
    [
        engine(listens=("10.0.0.7",)),
        engine(listens=("::1",)),
        engine(has_flags=False, shutdown_timeout_s=None, scheduling_policy=""),
        engine(dev_mode=None, keep_alive_s=None, open_files_limit=None),
        engine(keep_alive_s=5.0),
        Case(WELL, FACTS, "0.1.0", AT_MS),
        case(replace(WELL, replicas=(replace(GPU0, vllm_version="0.16.1"),))),
        case(certificates=(Certificate("h200a", 3 * DAY_MS),)),
    ],
    ids=[
        "its own address, with a key",
        "loopback",
        "no command line",
        "no environment",
        "vLLM's default",
        "an engine elsewhere",
        "too old for the flag",
        "renewed in time",
    ],
)
def test_what_is_right_or_can_not_be_seen_is_not_held_against_anybody(seeded: Case) -> None:
    assert [one for one in judges.judge(seeded) if one.level is not Level.OK] == []


def test_an_old_engine_has_no_flag_to_set() -> None:
    old = replace(WELL, replicas=(replace(GPU0, vllm_version="0.16.1"),))
    found = judges.judge(case(old, replace(GOOD, shutdown_timeout_s=None)))
    assert Finding(Level.OK, "shutdown", "fleet", JUDGES["shutdown"][1]) in found
