"""Chance as an argument: policy asks for dice and never owns them."""

from __future__ import annotations

from typing import Protocol


class Dice(Protocol):
    """One method, so that `random.Random` fits and a test can load it."""

    def random(self) -> float:
        """A number in [0, 1)."""
        ...
