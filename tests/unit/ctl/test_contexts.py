"""Which control plane is meant: what is typed, then the environment, the file, this machine."""

from __future__ import annotations

import pathlib
import stat

import pytest

from ctl import contexts
from ctl.contexts import Context, Contexts
from ctl.exits import CtlError, Exit
from ctl.main import main
from tests.fakes.admin import FakeAdmin


@pytest.fixture
def file(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> pathlib.Path:
    path = tmp_path / "new" / "ctl.yaml"
    monkeypatch.setenv("TRIMTAB_CONFIG", str(path))
    return path


def edges(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str]:
    """What a command finds, and with which exit code."""
    code = main([*words, "get", "edges", "-o", "name"])
    streams = capsys.readouterr()
    return code, streams.out + streams.err


def test_what_is_nearer_to_the_hand_wins(
    file: pathlib.Path,
    admin: FakeAdmin,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert main(["context", "add", "good", "--server", admin.target]) == Exit.OK
    assert main(["context", "add", "bad", "--server", "unix:/nobody", "--use"]) == Exit.OK
    capsys.readouterr()
    assert edges(capsys)[0] == Exit.UNREACHABLE, "the file's current one"
    assert edges(capsys, "--context", "good") == (Exit.OK, "edge-a\nedge-b\n")
    monkeypatch.setenv("TRIMTAB_CONTEXT", "good")
    assert edges(capsys)[0] == Exit.OK
    monkeypatch.setenv("TRIMTAB_SERVER", "unix:/nobody")
    assert edges(capsys)[0] == Exit.UNREACHABLE, "the environment's server beats a context"
    assert edges(capsys, "--server", admin.target)[0] == Exit.OK
    monkeypatch.delenv("TRIMTAB_SERVER")
    monkeypatch.setenv("TRIMTAB_CONTEXT", "godo")
    assert edges(capsys) == (
        Exit.NOT_FOUND,
        f'ctl: {file}: there is no context "godo". Did you mean "good"?\n',
    )


def test_test_says_who_leads(
    file: pathlib.Path, admin: FakeAdmin, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["context", "add", "good", "--server", admin.target]) == Exit.OK
    assert main(["context", "test"]) == Exit.OK
    assert "fleet lab-a, cp1 leads, answered in" in capsys.readouterr().out
    assert main(["context", "add", "bad", "--server", "unix:/nobody"]) == Exit.OK
    assert main(["context", "test", "bad"]) == Exit.UNREACHABLE


def test_a_contexts_certificate_counts_unless_another_is_named(
    file: pathlib.Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    contexts.save(Contexts("far", (Context("far", "127.0.0.1:9", "/not/there"),)))
    assert main(["get", "edges"]) == Exit.USAGE
    assert "/not/there" in capsys.readouterr().err
    monkeypatch.setenv("TRIMTAB_TLS_DIR", "/nor/there")
    assert main(["get", "edges"]) == Exit.USAGE
    assert "/nor/there" in capsys.readouterr().err


def test_what_is_kept_is_found_again_and_nobody_elses(file: pathlib.Path) -> None:
    kept = Contexts("a", (Context("a", "cp1:1"), Context("b", "unix:/x", "/tls")))
    contexts.save(kept)
    assert contexts.load() == kept
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("curent: a\n", 'ctl.yaml:1:1  error  curent: unknown key (did you mean "current"?)'),
        ("contexts: [{name: a}]\n", "contexts[0].server: missing"),
        ("contexts: [{name: a, server: b}, {name: a, server: c}]\n", "is taken already"),
        ("a: [\n", "ctl.yaml:2:1  error"),
    ],
)
def test_mistakes_in_the_file_are_named(file: pathlib.Path, text: str, said: str) -> None:
    file.parent.mkdir()
    file.write_text(text)
    with pytest.raises(CtlError) as caught:
        contexts.load()
    assert caught.value.code is Exit.USAGE
    assert said in str(caught.value)


def test_where_the_file_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TRIMTAB_CONFIG")
    monkeypatch.setenv("HOME", "/home/op")
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    assert contexts.path() == pathlib.Path("/home/op/.config/trimtab/ctl.yaml")
    monkeypatch.setenv("XDG_CONFIG_HOME", "/etc/op")
    assert contexts.path() == pathlib.Path("/etc/op/trimtab/ctl.yaml")
