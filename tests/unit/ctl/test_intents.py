"""Cordon, uncordon and drain: guarded, told, undone; Ctrl-C ends the watching only."""

from __future__ import annotations

import signal
import subprocess
import sys
from dataclasses import replace

import pytest

from ctl.exits import CtlError, Exit
from ctl.intents import Wish, guard, open_peers
from ctl.main import main
from tests.fakes.admin import FakeAdmin
from tests.fakes.fleet import FLEET, GPU0, GPU1, GPU3
from trimtab.model import Intent, Serving
from trimtab.views import EdgeView, Fleet, ReplicaView

PEER = replace(GPU0, route=replace(GPU0.route, replica="peer"))
CLOSED = replace(
    GPU0,
    route=replace(GPU0.route, serving=Serving.CLOSED),
    intent=Intent.DRAINING,
    inflight=0,
)
PAIR = Fleet(replicas=(CLOSED, PEER), edges=(EdgeView("edge-a", report_age_ms=0),))


@pytest.mark.parametrize(
    ("replica", "others", "confirm", "refused"),
    [
        (GPU0, (), "", True),
        (GPU0, (), "gpu1", True),
        (GPU0, (), "gpu0", False),
        (GPU0, (PEER,), "", False),
        (GPU0, (GPU1,), "", True),  # its peer is lost
        (GPU0, (GPU3,), "", True),  # open, but another pool's
        (GPU1, (), "", False),  # closed already: nothing gets worse
    ],
)
def test_guard(
    replica: ReplicaView, others: tuple[ReplicaView, ...], confirm: str, refused: bool
) -> None:
    peers = open_peers(Fleet(replicas=(replica, *others)), replica)
    wish = Wish(replica.route.replica, Intent.DRAINING, "", confirm)
    if not refused:
        guard(replica, peers, wish)
        return
    with pytest.raises(CtlError, match="last open replica") as error:
        guard(replica, peers, wish)
    assert error.value.code is Exit.CONFLICT


def test_refused_cordon_sends_nothing(admin: FakeAdmin) -> None:
    assert main(["-s", admin.target, "cordon", "gpu0"]) == Exit.CONFLICT
    assert admin.intents == []


def test_drain_ends_when_edges_confirm(
    admin: FakeAdmin, capsys: pytest.CaptureFixture[str]
) -> None:
    admin.show(PAIR)
    assert main(["-s", admin.target, "drain", "gpu0", "--reason", "fan"]) == Exit.OK
    streams = capsys.readouterr()
    assert streams.out.startswith("gpu0: DRAINING -> DRAINING (revision 413)\ngpu0: empty after ")
    assert "waiting for edges to confirm: edge-a" in streams.err
    assert "Undo: ctl uncordon gpu0" in streams.err
    assert [(i.replica, Intent(i.intent), i.reason) for i in admin.intents] == [
        ("gpu0", Intent.DRAINING, "fan")
    ]


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
    assert [Intent(asked.intent) for asked in admin.intents] == [Intent.DRAINING]


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
