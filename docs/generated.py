"""What every generator of docs/ does with its files: write them, or say which are stale.

Rule: a generator only makes texts; each is run as `python -m docs.generate_NAME [--check]` from the
project's folder, which `./run docs` does for all of them.
"""

from __future__ import annotations

import argparse
import pathlib
import sys
from collections.abc import Callable, Iterable, Mapping

ROOT = pathlib.Path(__file__).resolve().parent.parent
Files = Mapping[pathlib.Path, str]


def main(make: Callable[[], Files], there: Iterable[pathlib.Path] = ()) -> int:
    """Exit 0 when all is written or fresh, 1 when a file is stale; `there` may hold no other."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--check", action="store_true", help="compare, write nothing")
    check: bool = parser.parse_args().check
    files = make()
    fresh = {path for path, text in files.items() if path.exists() and path.read_text() == text}
    stale = ({*there} | {*files}) - fresh
    for path in sorted(stale):
        if check:
            sys.stderr.write(f"{path.relative_to(ROOT)}: stale, run ./run docs\n")
        elif path in files:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(files[path])
        else:
            path.unlink()
    return int(check and bool(stale))
