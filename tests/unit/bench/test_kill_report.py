"""The page of failures: rows that were measured again take the place of the old ones."""

from __future__ import annotations

import pathlib

from bench.kill import report


def test_rows_are_replaced_by_title_and_new_ones_come_last(tmp_path: pathlib.Path) -> None:
    page, (begin, end) = tmp_path / "page.md", report.MATRIX
    old = report.render({"a": "| a | 1 |", "b, for 20 s": "| b, for 20 s | 1 |"})
    page.write_text(f"before\n{begin}\n{old}\n{end}\nbehind\n")
    merged = report.merged(page, {"c": "| c | 2 |", "a": "| a | 2 |"})
    report.write(page, report.render(merged))
    rows = ["| a | 2 |", "| b, for 20 s | 1 |", "| c | 2 |"]
    text = "\n".join(["before", begin, report.HEAD, *rows, end, "behind", ""])
    assert page.read_text() == text
