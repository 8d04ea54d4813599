"""Alert, page and dashboard belong together, and what a page says to type can be typed.

Rule: a page's `trimtab-ctl` lines are parsed by ctl itself, arguments and options included; other
lines begin with a program that is there on such a machine, and name units that we ship.
"""

from __future__ import annotations

import pathlib
import re
import shlex
from collections.abc import Iterator

import pytest
import typer

from ctl.main import app
from monitoring.alerts import ALERTS, Alert
from monitoring.files import BOARDS, dashboard_url

ROOT = pathlib.Path(__file__).parents[3]
PAGES = ROOT / "docs/runbooks"
SECTIONS = ["Look", "Decide", "Undo"]
PROGRAMS = {"systemctl", "journalctl", "nvidia-smi", "curl", "df", "openssl"}
UNITS = {path.name for path in (ROOT / "deploy/systemd").iterdir()}
EVERY = pytest.mark.parametrize("alert", ALERTS, ids=lambda alert: alert.name)


def _page(alert: Alert) -> str:
    return (PAGES / f"{alert.name}.md").read_text()


def _section(page: str, title: str) -> str:
    return page.partition(f"\n## {title}\n")[2].partition("\n## ")[0]


def _blocks(text: str) -> Iterator[str]:
    for block in re.findall(r"```sh\n(.*?)```", text, re.DOTALL):
        yield from (line for line in block.splitlines() if line)


def _typed(page: str) -> Iterator[list[str]]:
    """Every command: lines of blocks, and `trimtab-ctl …` in the text."""
    inline = re.findall(
        r"`((?:trimtab-ctl|systemctl) [^`]+)`", re.sub(r"```.*?```", "", page, flags=re.DOTALL)
    )
    for line in [*_blocks(page), *inline]:
        yield shlex.split(line, comments=True)


def parse(words: list[str]) -> None:
    """As ctl would, without doing it; raises click's UsageError."""
    command = typer.main.get_command(app)
    context = command.make_context("ctl", list(words))
    while hasattr(context.command, "resolve_command"):
        rest = [*context._protected_args, *context.args]
        name, command, rest = context.command.resolve_command(context, rest)
        context = command.make_context(name, rest, parent=context)


def test_a_page_for_every_alert_and_no_other() -> None:
    assert {path.stem for path in PAGES.glob("Trimtab*.md")} == {alert.name for alert in ALERTS}


@EVERY
def test_the_page_is_of_one_form(alert: Alert) -> None:
    page = _page(alert)
    board = next(board for board in BOARDS if board.uid == alert.dashboard)
    link = f"(../../deploy/monitoring/grafana/dashboards/{board.uid}.json)"
    head = f"{alert.severity.title()}. Dashboard: [Trimtab / {board.title}]{link}."
    assert page.startswith(f"# {alert.name}\n\n{head}\n\n")
    assert re.findall(r"^## (.*)$", page, re.MULTILINE) == SECTIONS
    assert len(list(_blocks(_section(page, "Look")))) == 3
    assert all(_section(page, title).strip() for title in SECTIONS)
    assert f"/d/trimtab-{board.uid}" in dashboard_url(alert)


@EVERY
def test_what_it_says_to_type_can_be_typed(alert: Alert) -> None:
    for program, *words in _typed(_page(alert)):
        if program == "trimtab-ctl":
            parse(["3" if word == "REVISION" else word for word in words])
            continue
        assert program in PROGRAMS
        for unit in re.findall(r"\b(?:trimtab|vllm)[\w-]*@?", " ".join(words)) * (
            program in {"systemctl", "journalctl"}
        ):
            assert f"{unit}.service" in UNITS, unit


@EVERY
def test_its_links_lead_somewhere(alert: Alert) -> None:
    for target in re.findall(r"\]\(([^)#]+)", _page(alert)):
        assert (PAGES / target).exists(), target


@pytest.mark.parametrize(
    "words",
    [["explain", "replica"], ["get", "replicas", "--wide"], ["breaker", "open", "r1"], ["restart"]],
)
def test_the_parser_bites(words: list[str]) -> None:
    with pytest.raises(Exception, match=r"(?i)missing|no such|there is no"):
        parse(words)
