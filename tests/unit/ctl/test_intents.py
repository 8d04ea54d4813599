"""Cordon, uncordon and drain: guarded, told, undone; Ctrl-C ends the watching only."""

from __future__ import annotations

import signal
import subprocess
import sys
from dataclasses import replace

import pytest

from ctl.exits import Exit
from ctl.intents import impacts
from ctl.main import main
from tests.fakes.admin import FakeAdmin
from tests.fakes.fleet import FLEET, GPU0, GPU1, GPU3
from trimtab.model import Intent, Serving
from trimtab.views import EdgeView, Fleet, ReplicaView

PEER = replace(GPU0, route=replace(GPU0.route, replica="peer", node="h200b"))
CLOSED = replace(
    GPU0,
    route=replace(GPU0.route, serving=Serving.CLOSED),
    intent=Intent.DRAINING,
    inflight=0,
)
PAIR = Fleet(replicas=(CLOSED, PEER), edges=(EdgeView("edge-a", report_age_ms=0),))
BOTH = replace(PAIR, replicas=(GPU0, PEER))


@pytest.mark.parametrize(
    ("replica", "others", "empties"),
    [
        (GPU0, (), [True]),
        (GPU0, (PEER,), [False]),
        (GPU0, (GPU1,), [True]),  # its peer is lost
        (GPU0, (GPU3,), [True]),  # open, but another pool's
        (GPU1, (), []),  # closed already: nothing gets worse
    ],
)
def test_impacts(
    replica: ReplicaView, others: tuple[ReplicaView, ...], empties: list[bool]
) -> None:
    found = impacts(Fleet(replicas=(replica, *others)), [replica])
    assert [one.leaves_nobody for one in found] == empties


def test_an_impact_counts_who_will_wait() -> None:
    (found,) = impacts(BOTH, [GPU0])
    assert (found.before, found.after, found.inflight) == (256, 128, 196)
    assert found.line().endswith("196 requests run now, so about 68 will wait")


@pytest.mark.parametrize(
    ("words", "code"),
    [
        ("cordon gpu0", Exit.CONFLICT),  # the last of its pool
        ("cordon gpu0 --yes", Exit.CONFLICT),  # is more than a yes
        ("drain node h200a --confirm gpu0", Exit.CONFLICT),  # another name
        ("cordon gpu0 --dry-run", Exit.OK),
        ("drain node h200a --dry-run", Exit.OK),
        ("uncordon gpu2 --dry-run", Exit.OK),
        ("drain pool m", Exit.USAGE),
        ("cordon edge edge-a", Exit.USAGE),
        ("drain edge e1", Exit.NOT_FOUND),
        ("drain replica gpu0 gpu1", Exit.USAGE),
        ("cordon node h300", Exit.NOT_FOUND),
        ("drain gpu0 --deadline soon --confirm gpu0", Exit.USAGE),
    ],
)
def test_what_sends_nothing(words: str, code: Exit, admin: FakeAdmin) -> None:
    assert main(["-s", admin.target, *words.split()]) == code
    assert admin.steer.intents == []


def test_a_yes_is_not_asked_of_nobody(admin: FakeAdmin, capsys: pytest.CaptureFixture[str]) -> None:
    admin.show(BOTH)
    assert main(["-s", admin.target, "cordon", "gpu0"]) == Exit.USAGE
    assert "say --yes. Nothing was changed." in capsys.readouterr().err
    assert main(["-s", admin.target, "cordon", "gpu0", "--yes", "--if-revision", "412"]) == Exit.OK
    (sent,) = admin.steer.intents
    assert sent.order.if_revision == 412


def test_a_node_is_all_its_replicas_at_once(
    admin: FakeAdmin, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["-s", admin.target, "cordon", "node", "h200b", "--confirm", "h200b"]
    assert main(words) == Exit.OK
    (sent,) = admin.steer.intents
    assert list(sent.replicas) == ["gpu2", "gpu3"]
    assert "Undo: ctl uncordon node h200b" in capsys.readouterr().err


def test_drain_ends_when_edges_confirm(
    admin: FakeAdmin, capsys: pytest.CaptureFixture[str]
) -> None:
    admin.show(PAIR)
    assert main(["-s", admin.target, "drain", "gpu0", "--reason", "fan"]) == Exit.OK
    streams = capsys.readouterr()
    assert streams.out.startswith("gpu0: DRAINING -> DRAINING (revision 413)\ngpu0: empty after ")
    assert "waiting for edges to confirm: edge-a" in streams.err
    assert "Undo: ctl uncordon replica gpu0" in streams.err
    (sent,) = admin.steer.intents
    assert (list(sent.replicas), Intent(sent.intent)) == (["gpu0"], Intent.DRAINING)
    assert sent.order.reason == "fan"
    assert sent.order.actor


def test_a_deadline_ends_the_waiting(admin: FakeAdmin, capsys: pytest.CaptureFixture[str]) -> None:
    admin.show(replace(PAIR, replicas=(replace(CLOSED, inflight=61), PEER)))
    assert main(["-s", admin.target, "drain", "gpu0", "--deadline", "1s"]) == Exit.TIMED_OUT
    said = capsys.readouterr().err
    assert "not empty after 1.0s: gpu0 has 61 in flight. It goes on draining." in said
    assert main(["-s", admin.target, "drain", "gpu0", "--detach"]) == Exit.OK


def test_ctrl_c_stops_the_watching_not_the_drain(admin: FakeAdmin) -> None:
    admin.show(replace(PAIR, replicas=(replace(CLOSED, inflight=61), PEER)))
    words = [sys.executable, "-m", "ctl", "-s", admin.target, "drain", "gpu0"]
    with subprocess.Popen(
        words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if "61 in flight" in line and "waiting" in line:
                break
        process.send_signal(signal.SIGINT)
        rest = process.stderr.read()
    assert process.returncode == Exit.INTERRUPTED
    assert "gpu0 goes on draining" in rest
    assert "Traceback" not in rest
    assert [Intent(asked.intent) for asked in admin.steer.intents] == [Intent.DRAINING]


def test_watching_get_ends_quietly_on_ctrl_c(admin: FakeAdmin) -> None:
    admin.show(FLEET)
    words = [sys.executable, "-m", "ctl", "-s", admin.target, "get", "re", "-o", "name", "-w"]
    with subprocess.Popen(
        words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert [process.stdout.readline() for _ in FLEET.replicas][-1] == "gpu3\n"
        process.send_signal(signal.SIGINT)
        rest = process.stderr.read()
    assert process.returncode == Exit.INTERRUPTED
    assert rest == ""
