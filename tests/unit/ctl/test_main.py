"""The entry: fast to start, options in any place, mistakes named."""

from __future__ import annotations

import json
import pathlib
import subprocess
import sys
from dataclasses import replace

import grpc
import pytest

from ctl.client import default_target
from ctl.exits import Exit
from ctl.main import main
from tests.fakes.admin import FakeAdmin
from tests.fakes.fleet import FLEET


def test_help_imports_neither_grpc_nor_rich_nor_yaml() -> None:
    probe = (
        "import sys, ctl.main; code = ctl.main.main(['--help']); "
        "print([m for m in ('grpc', 'rich', 'yaml', 'google.protobuf') if m in sys.modules], code)"
    )
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[] 0"
    assert "uncordon" in done.stdout


def test_a_table_imports_no_more_than_it_needs(admin: FakeAdmin) -> None:
    probe = (
        f"import sys, ctl.main; code = ctl.main.main(['-s', '{admin.target}', 'get', 'replicas']); "
        "heavy = ('rich', 'yaml', 'cryptography', 'aiohttp', 'uvloop', "
        "'ctl.commands_node', 'ctl.commands_config', 'ctl.contexts', 'trimtab.runtime.config'); "
        "print([m for m in heavy if m in sys.modules], code)"
    )
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[] 0"


@pytest.mark.parametrize(
    "words",
    [
        "--server {} get replicas -o json",
        "get replicas -o json --server {}",
        "get -o json --server {} re",
        "get -s {} replica --output json",
    ],
)
def test_options_stand_anywhere(
    words: str, admin: FakeAdmin, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words.format(admin.target).split()) == Exit.OK
    listed = json.loads(capsys.readouterr().out)
    assert [item["replica"] for item in listed["items"]] == ["gpu0", "gpu1", "gpu2", "gpu3"]


def test_server_from_the_environment(
    admin: FakeAdmin, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TRIMTAB_SERVER", admin.target)
    assert main(["get", "edges", "-o", "name"]) == Exit.OK
    assert capsys.readouterr().out == "edge-a\nedge-b\n"


def test_default_target_is_this_machines_socket(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", "/var/state")
    monkeypatch.setattr("ctl.client.SYSTEM_SOCKET", pathlib.Path("/not/there"))
    assert default_target() == "unix:/var/state/trimtab/control.sock"
    monkeypatch.delenv("XDG_STATE_HOME")
    monkeypatch.setenv("HOME", "/home/op")
    assert default_target() == "unix:/home/op/.local/state/trimtab/control.sock"
    monkeypatch.setattr("ctl.client.SYSTEM_SOCKET", pathlib.Path("/proc/self/exe"))
    assert default_target() == "unix:/proc/self/exe", "that of the machine's service"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("", "Usage: ctl"),
        ("stat", 'Did you mean "status"?'),
        ("get", "Missing argument"),
        ("get replicas -o xml", "'table', 'wide'"),
        ("drain", "Missing argument"),
    ],
)
def test_usage_errors_exit_2(words: str, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words.split()) == Exit.USAGE
    streams = capsys.readouterr()
    assert said in streams.out + streams.err


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (grpc.StatusCode.INVALID_ARGUMENT, Exit.USAGE),
        (grpc.StatusCode.NOT_FOUND, Exit.NOT_FOUND),
        (grpc.StatusCode.FAILED_PRECONDITION, Exit.CONFLICT),
        (grpc.StatusCode.ABORTED, Exit.CONFLICT),
        (grpc.StatusCode.ALREADY_EXISTS, Exit.CONFLICT),
        (grpc.StatusCode.UNAVAILABLE, Exit.UNREACHABLE),
        (grpc.StatusCode.DEADLINE_EXCEEDED, Exit.UNREACHABLE),
        (grpc.StatusCode.INTERNAL, Exit.FAILED),
        (grpc.StatusCode.UNIMPLEMENTED, Exit.FAILED),
    ],
)
def test_refusals_become_exit_codes(
    status: grpc.StatusCode, code: Exit, admin: FakeAdmin, capsys: pytest.CaptureFixture[str]
) -> None:
    admin.refusal = (status, "because of this")
    assert main(["status", "--server", admin.target]) == code
    streams = capsys.readouterr()
    assert streams.out == ""
    assert "because of this" in streams.err
    assert "Traceback" not in streams.err


@pytest.mark.parametrize("words", ["status", "get replicas", "get replicas -o json"])
def test_without_a_leader_what_is_stored_is_shown_and_said_to_be_that(
    words: str, admin: FakeAdmin, capsys: pytest.CaptureFixture[str]
) -> None:
    admin.show(replace(FLEET, leader="", edges=(), agents=()))
    assert main([*words.split(), "--server", admin.target]) == Exit.OK
    streams = capsys.readouterr()
    assert "no control plane leads" in streams.out + streams.err
    assert "json" not in words or json.loads(streams.out)["items"]


def test_the_first_that_answers_will_do(
    admin: FakeAdmin, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["get", "edges", "-o", "name", "-s", f"{admin.target}.dead,{admin.target}"]) == 0
    assert capsys.readouterr().out == "edge-a\nedge-b\n"
