"""bench/edge: its engine and its callers understand each other, and the table says what was."""

from __future__ import annotations

import asyncio

import pytest

from bench.edge import engine, report
from bench.edge.load import Tally, open_callers, request
from bench.edge.measure import LOADS, MANY, Cell, Row
from tests.fakes.wait import until


@pytest.mark.parametrize(
    ("shape", "events"), [("", 0), ("shape-5-1-0", 7), ("shape-7-3-0", 9), ("shape-4-2-1000", 6)]
)
async def test_answers_are_counted_to_their_end(shape: str, events: int) -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(engine._Connection, "127.0.0.1", 0)
    port, tally = server.sockets[0].getsockname()[1], Tally()
    callers = await open_callers(port, 2, request(port, 300_000, shape), tally)
    await until(lambda: tally.answers >= 6)
    for caller in callers:
        caller.close()
    assert not tally.errors
    assert tally.events >= 6 * events
    assert (tally.opened >= 6) is bool(shape)
    assert len(tally.took_s) == tally.answers
    server.close()


def test_the_table_has_a_line_for_each_proxy_and_says_what_is_missing() -> None:
    cells = {load.name: Cell(load, 2.0, 800, 1000, 0, 0.4, 0.2, 1.5, 3.0) for load in LOADS}
    direct = Row("none", "", is_direct=True, cells={MANY.name: cells[MANY.name]})
    page = report.markdown(
        [direct, Row("Ours", "0.1", cells=cells, stream_bytes=27_000.0)],
        ["other: can't be had"],
        "./run bench edge",
        "2 cores",
        quick=True,
    )
    line = next(line for line in page.splitlines() if line.startswith("| Ours |"))
    assert line.startswith("| Ours | 400 ~ | 500 ~ |")
    assert "| 27 |" in line
    assert "0.00 / 0.00" in line
    assert "- not measured: other: can't be had" in page
