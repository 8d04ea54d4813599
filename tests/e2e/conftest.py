"""Fixtures of the tests with real processes."""

from __future__ import annotations

import pathlib
import tempfile
from collections.abc import Iterator

import pytest

from tests.e2e.starter import Starter


@pytest.fixture
def starter() -> Iterator[Starter]:
    """A way to start `trimtab up`, in a state directory short enough for unix sockets."""
    with tempfile.TemporaryDirectory(prefix="tt-", dir="/tmp") as state:
        made = Starter(pathlib.Path(state))
        yield made
        made.end_all()
