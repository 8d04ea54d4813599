"""What a shell is told, by the protocol that its script speaks."""

from __future__ import annotations

import shutil
import subprocess

import pytest

from ctl.main import main
from tests.fakes.admin import FakeAdmin


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_speaks_of_both_names(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", shell]) == 0
    script = capsys.readouterr().out
    assert "_CTL_COMPLETE" in script
    assert script.count("trimtab-ctl") > 0
    if shutil.which(shell):
        checked = subprocess.run([shell, "-n"], input=script, text=True, check=False)
        assert checked.returncode == 0


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("ctl drai", ["drain"]),
        ("ctl get ", ["replicas", "edges", "agents", "pools"]),
        ("ctl drain gpu", ["gpu0", "gpu1", "gpu2", "gpu3"]),
        ("ctl get edges ", ["edge-a", "edge-b"]),
        ("ctl get po q", ["qwen3-8b"]),
        ("ctl config di", ["diff"]),
    ],
)
def test_words_are_completed_also_with_live_names(
    words: str,
    expected: list[str],
    admin: FakeAdmin,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("TRIMTAB_SERVER", admin.target)
    assert complete(words, monkeypatch, capsys) == expected


def test_nobody_to_ask_is_no_error(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TRIMTAB_SERVER", "unix:/nobody")
    assert complete("ctl drain ", monkeypatch, capsys) == []


def complete(
    words: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> list[str]:
    """What bash would offer."""
    monkeypatch.setenv("_CTL_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", words)
    monkeypatch.setenv("COMP_CWORD", str(len(words.split(" ")) - 1))
    main([])
    streams = capsys.readouterr()
    assert streams.err == ""
    return streams.out.split()
