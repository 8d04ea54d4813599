"""Following a fleet: blocks for pipes, one place for terminals, gaps said."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator
from dataclasses import replace
from typing import cast

import pytest

from ctl.client import Client, Frame, Lost
from ctl.exits import CtlError, Exit
from ctl.listing import Listing, follow
from ctl.options import Format
from ctl.screen import Screen
from tests.fakes.fleet import FLEET, GPU0, GPU1, WELL
from tests.unit.ctl.test_screen import Pipe, Terminal

LATER = replace(WELL, replicas=(replace(GPU0, report_age_ms=900, uptime_ms=1),))
CHANGED = replace(WELL, replicas=(replace(GPU0, running=97),))


class Script:
    """A control plane that shows what it was given, then ends."""

    def __init__(self, *seen: Frame | Lost) -> None:
        self._seen = seen

    async def watch(self) -> AsyncGenerator[Frame | Lost, None]:
        for one in self._seen:
            yield one


async def run(form: Format, *seen: Frame | Lost, name: str = "") -> tuple[str, str]:
    """Both streams after following the script into a pipe."""
    out, err = Pipe(), Pipe()
    listing = Listing(Screen(out, err), "replicas", name, form)
    await follow(cast(Client, Script(*seen)), listing)
    return out.getvalue(), err.getvalue()


async def test_a_block_for_each_change_and_none_for_time() -> None:
    out, err = await run(Format.TABLE, Frame(WELL), Frame(LATER), Frame(CHANGED), Frame(CHANGED))
    blocks = out.split("\n\n")
    assert len(blocks) == 2
    assert all(block.startswith("REPLICA") for block in blocks)
    assert err == ""


async def test_gap_marker_stands_in_the_table_log() -> None:
    out, err = await run(Format.TABLE, Frame(WELL), Lost("refused"), Frame(WELL, 3.21))
    assert out.splitlines()[-1] == "— reconnected, 3.2 s gap —"
    assert err == "connection lost (refused), trying again\n"


async def test_data_stays_clean_across_a_gap() -> None:
    out, err = await run(Format.JSONL, Frame(WELL), Lost("refused"), Frame(CHANGED, 3.21))
    assert [json.loads(line)["running"] for line in out.splitlines()] == [98, 97]
    assert "— reconnected, 3.2 s gap —" in err


async def test_one_name_is_followed_alone() -> None:
    other = replace(FLEET, replicas=(GPU0, replace(GPU1, running=1)))
    out, _ = await run(Format.NAME, Frame(FLEET), Frame(other), name="gpu0")
    assert out == "gpu0\n"


async def test_a_name_must_be_known_at_first_only() -> None:
    with pytest.raises(CtlError, match='no replica "gpu1"') as error:
        await run(Format.NAME, Frame(WELL), name="gpu1")
    assert error.value.code is Exit.NOT_FOUND
    out, _ = await run(Format.NAME, Frame(FLEET), Frame(WELL), Frame(FLEET), name="gpu1")
    assert out == "gpu1\ngpu1\n"


async def test_a_terminal_is_redrawn_and_keeps_the_gap_in_view(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    out = Terminal()
    script = Script(Frame(WELL), Lost("refused"), Frame(WELL, 3.21), Frame(CHANGED))
    listing = Listing(Screen(out, Pipe()), "replicas", "", Format.TABLE)
    await follow(cast(Client, script), listing)
    drawn = out.getvalue()
    assert drawn.count("REPLICA") >= 4
    assert drawn.index("connection lost") < drawn.index("3.2 s gap")
    assert "connection lost" not in drawn[drawn.index("3.2 s gap") :]
    assert drawn.count("3.2 s gap") >= 2
