"""policy/deadline: the caller's word, the pool's limit, the fleet's when nobody says anything."""

from __future__ import annotations

import pytest

from trimtab.policy.deadline import deadline


@pytest.mark.parametrize(
    ("patience_s", "pool_s", "stream", "within_s", "whose"),
    [
        (None, 0.0, False, 3_600.0, "fleet"),
        (None, 0.0, True, 3_600.0, "fleet"),
        (30.0, 0.0, False, 29.0, "client"),
        (1_200.0, 0.0, False, 1_199.0, "client"),
        (2.0, 0.0, False, 1.8, "client"),
        (30.0, 0.0, True, 3_600.0, "fleet"),  # of a stream: only how long it may be silent
        (30.0, 60.0, False, 29.0, "client"),
        (30.0, 30.0, False, 29.0, "client"),
        (600.0, 60.0, False, 60.0, "model"),
        (30.0, 60.0, True, 60.0, "model"),
        (None, 60.0, False, 60.0, "model"),
        (None, 7_200.0, False, 7_200.0, "model"),
    ],
)
def test_whose_word_counts(
    patience_s: float | None, pool_s: float, stream: bool, within_s: float, whose: str
) -> None:
    found = deadline(patience_s, pool_s, 3_600.0, stream=stream)
    assert found.within_s == within_s
    assert found.allows_s in {patience_s, pool_s, 3_600.0}
    assert whose in found.whose
