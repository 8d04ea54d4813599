"""Lengths of time as people type them: 90s, 15m, 1h, 7d."""

from __future__ import annotations

import re

UNITS_S = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}


def seconds(text: str, units: str = "smhd", digits: int = 6) -> int | None:
    """How long that is; None when it is not one number of so many digits and one of these units."""
    match = re.fullmatch(rf"(\d{{1,{digits}}})([{units}])", text)
    return int(match[1]) * UNITS_S[match[2]] if match else None
