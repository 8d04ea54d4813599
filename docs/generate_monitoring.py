"""Writes deploy/monitoring from monitoring/: `./run docs` (write) or `./run docs --check`.

Rule: nothing in that folder is written by hand; a file there that is not generated is stale.
"""

from __future__ import annotations

import argparse
import pathlib
import sys

from monitoring.files import all_files

FOLDER = pathlib.Path(__file__).parents[1] / "deploy/monitoring"


def main() -> int:
    """Exit 0 when the files are written or fresh, 1 when one is stale."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="compare, write nothing")
    check: bool = parser.parse_args().check
    texts = {FOLDER / name: text for name, text in all_files().items()}
    there = {path for path in FOLDER.rglob("*") if path.is_file()}
    stale = there ^ set(texts) | {p for p in there & set(texts) if p.read_text() != texts[p]}
    if check:
        for path in sorted(stale):
            sys.stderr.write(f"{path.relative_to(FOLDER.parents[1])}: stale, run ./run docs\n")
        return int(bool(stale))
    for path in there - set(texts):
        path.unlink()
    for path, text in texts.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
