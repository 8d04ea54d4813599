"""Which pool a replica is in, and what its engine is asked for."""

from __future__ import annotations

import pytest

from controlplane.core.placement import EngineSpec, Placement
from trimtab.model import Pool

PLACEMENT = Placement(
    pools=[Pool("big", ("gpt",)), Pool("small")],
    engines=[
        EngineSpec("gpu0", "http://h:1", "big", "served-big"),
        EngineSpec("gpu1", "http://h:2", "big"),
        EngineSpec("n-3", "http://h:3", "small", named=False),
        EngineSpec("gpu4", "http://h:4"),
    ],
)


@pytest.mark.parametrize(
    ("replica", "url", "models", "placed"),
    [
        ("gpu0", "http://h:1", ("x",), ("big", "served-big")),
        ("other", "http://h:1", (), ("big", "served-big")),
        ("gpu0", "http://elsewhere:1", ("x",), ("big", "served-big")),
        ("gpu1", "http://h:2", ("x", "gpt"), ("big", "gpt")),
        ("gpu1", "http://h:2", ("x",), ("big", "x")),
        ("gpu1", "http://h:2", (), ("big", "big")),
        ("a", "http://h:3", ("x",), ("small", "x")),
        ("n-3", "http://elsewhere:3", ("x",), ("x", "x")),
        ("gpu4", "http://h:4", ("small",), ("small", "small")),
        ("free", "http://h:9", ("base", "gpt"), ("big", "gpt")),
        ("free", "http://h:9", ("base", "lora"), ("base", "base")),
        ("free", "http://h:9", (), ("", "")),
    ],
)
def test_place(replica: str, url: str, models: tuple[str, ...], placed: tuple[str, str]) -> None:
    assert PLACEMENT.place(replica, url, models) == placed
