"""Dice that a test has loaded."""

from __future__ import annotations


class Loaded:
    """Always shows the same."""

    def __init__(self, value: float = 0.5) -> None:
        self.value = value

    def random(self) -> float:
        """The value."""
        return self.value
