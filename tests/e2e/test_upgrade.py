"""An edge is exchanged for another under live streams and new requests, and nobody notices.

`./run bench upgrade` is the same with 500 streams and 50 new requests a second.
"""

from __future__ import annotations

import pathlib

import pytest

from bench import upgrade
from bench.upgrade import Size, measure

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(180)]


async def test_nobody_sees_an_error_and_streams_end_where_they_began(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upgrade, "RAMP_S", 1.0)
    monkeypatch.setattr(upgrade, "SETTLE_S", 1.0)
    seen = await measure(tmp_path, Size(100, 20, stream_s=2.0, tokens_per_s=10.0))
    assert not seen.errors
    assert seen.at_stop == 100
    assert seen.exit_status == 0
    assert seen.answers > 100
