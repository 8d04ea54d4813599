"""A state directory with a path short enough for unix sockets, wherever pytest keeps its own."""

from __future__ import annotations

import pathlib
import tempfile
from collections.abc import Iterator

import pytest

from standalone.state import State, prepare


@pytest.fixture
def place() -> Iterator[State]:
    """A prepared state directory."""
    with tempfile.TemporaryDirectory(prefix="tt-", dir="/tmp") as root:
        yield prepare(pathlib.Path(root))
