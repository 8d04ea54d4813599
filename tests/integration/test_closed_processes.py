"""The way an operator goes, with the real commands: a token, a line to paste, a node."""

from __future__ import annotations

import json
import os
import pathlib
import shlex
import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.fakes.closed_fleet import free_port
from tests.fakes.engines import sim_engine
from tests.fakes.wait import until

DEADLINE_S = 30.0
ROOT = pathlib.Path(__file__).parents[2]


class Fleet:
    """Commands and processes over one directory."""

    def __init__(self, root: pathlib.Path) -> None:
        self.root = root
        self.listen = f"127.0.0.1:{free_port()}"
        self.socket = f"unix:{root}/control.sock"
        self.processes: list[subprocess.Popen[bytes]] = []
        (root / "trimtab.yaml").write_text(
            json.dumps(
                {
                    "fleet": "lab",
                    "node": "cp1",
                    "state_dir": str(root),
                    "controlplane": self.listen,
                    "tls": {"dir": str(root / "tls"), "enroll": f"127.0.0.1:{free_port()}"},
                }
            )
        )

    def start(self, module: str, *words: str) -> None:
        """A process that runs until the end."""
        log = (self.root / f"{module}.log").open("wb")
        with log:
            command = [sys.executable, "-m", module, *words]
            self.processes.append(subprocess.Popen(command, cwd=ROOT, stderr=log))

    def run(self, module: str, *words: str, code: int = 0) -> str:
        """A command to its end; what it says."""
        done = subprocess.run(
            [sys.executable, "-m", module, *words],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=DEADLINE_S,
            check=False,
            env={**os.environ, "XDG_STATE_HOME": str(self.root / "state"), "COLUMNS": "200"},
        )
        assert done.returncode == code, done
        return done.stderr if code else done.stdout

    def join(self, role: str, name: str) -> str:
        """Make a token, paste the line; the directory with the certificate."""
        words = ("node", "token", "create", "--role", role, "--name", name)
        line = self.run("ctl", "--server", self.socket, *words)
        program, *arguments = shlex.split(line)
        assert (program, arguments[0], line.count("\n")) == ("trimtab", "join", 1)
        directory = str(self.root / "state" / "trimtab" / "tls" / role)
        assert f"joined as {role} {name}" in self.run("standalone", *arguments)
        assert "used, taken back, expired or wrong" in self.run("standalone", *arguments, code=64)
        return directory

    def log(self, module: str) -> str:
        """What a process has logged."""
        return (self.root / f"{module}.log").read_text()


@pytest.fixture
def fleet(tmp_path: pathlib.Path) -> Iterator[Fleet]:
    fleet = Fleet(tmp_path)
    yield fleet
    for process in fleet.processes:
        process.kill()
        process.wait()


async def test_from_a_token_to_a_node_and_out_again(fleet: Fleet, tmp_path: pathlib.Path) -> None:
    fleet.start("controlplane", "--config", str(tmp_path / "trimtab.yaml"))
    await until(lambda: '"serving"' in fleet.log("controlplane"), DEADLINE_S)
    agent, edge, admin = (
        fleet.join(role, name) for role, name in (("agent", "n1"), ("edge", "e1"), ("admin", "ada"))
    )
    remote = ("--tls-dir", admin, "--server", fleet.listen)
    async with sim_engine() as engine:
        target = ("--controlplane", fleet.listen)
        fleet.start("agent", *target, "--tls-dir", agent, "--engine", engine.url)
        addresses = ("--listen", f"127.0.0.1:{free_port()}", "--admin", f"127.0.0.1:{free_port()}")
        fleet.start("edge", *target, "--tls-dir", edge, *addresses)
        await until(lambda: "connected to the control plane" in fleet.log("edge"), DEADLINE_S)
        await until(lambda: "control plane connected" in fleet.log("agent"), DEADLINE_S)
        assert fleet.run("ctl", *remote, "get", "agents", "-o", "name") == "n1\n"
        assert fleet.run("ctl", *remote, "get", "edges", "-o", "name") == "e1\n"

        listed = fleet.run("ctl", *remote, "node", "list")
        assert [row.split()[:2] for row in listed.splitlines()[1:]] == [
            ["admin", "ada"],
            ["agent", "n1"],
            ["edge", "e1"],
        ]
        shown = json.loads(fleet.run("ctl", *remote, "node", "list", "-o", "json"))
        assert (shown["apiVersion"], shown["kind"]) == ("trimtab/v1", "CertificateList")
        assert [(one["role"], one["name"], one["revoked"]) for one in shown["items"]] == [
            ("admin", "ada", False),
            ("agent", "n1", False),
            ("edge", "e1", False),
        ]
        assert "agent n1 " in fleet.run("ctl", *remote, "node", "revoke", "n1")
        await until(lambda: "was revoked" in fleet.log("agent"), DEADLINE_S)
        out = fleet.run("ctl", *remote, "node", "revoke", "n9", code=3)
        assert out == "ctl: there is no certificate of 'n9'\n"
        assert "this is to be an agent" in fleet.run(
            "agent", *target, "--tls-dir", edge, "--engine", engine.url, code=64
        )
    secrets = [word for word in fleet.log("controlplane").split() if "tt-join-" in word]
    assert secrets == []


@pytest.mark.parametrize(
    ("listen", "more", "text"),
    [
        ("0.0.0.0:0", (), "anybody could steer the fleet: set tls.dir"),
        ("[::]:0", (), "anybody could steer the fleet"),
        ("example.org:1", (), "anybody could steer the fleet"),
        ("127.0.0.1:0", ("--tls-dir", "/dev/null/x"), "cannot write /dev/null/x/ca.key"),
    ],
)
def test_what_would_be_open_does_not_start(
    fleet: Fleet, tmp_path: pathlib.Path, listen: str, more: tuple[str, ...], text: str
) -> None:
    words = ("--listen", listen, "--store", str(tmp_path / "s.db"), *more)
    said = fleet.run("controlplane", *words, code=64)
    assert text in said
    assert said.count("\n") == 1
