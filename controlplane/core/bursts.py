"""What goes wrong again and again, counted by who did it: for one line a burst, and for a limit.

Rules: who is counted for WINDOW_S from his first; of at most KEYS_LIMIT at once, and the one whose
window began first gives way, so a stranger can't make this grow.
"""

from __future__ import annotations

WINDOW_S = 60.0
KEYS_LIMIT = 1024


class Bursts:
    """Counts by key."""

    def __init__(self) -> None:
        self.total = 0
        self._windows: dict[str, tuple[float, int]] = {}

    def add(self, key: str, now_s: float) -> bool:
        """Count one; whether it is the first of its burst."""
        self.total += 1
        count = self.count(key, now_s)
        if count:
            self._windows[key] = (self._windows[key][0], count + 1)
            return False
        self._windows.pop(key, None)
        if len(self._windows) >= KEYS_LIMIT:
            del self._windows[next(iter(self._windows))]
        self._windows[key] = (now_s, 1)
        return True

    def count(self, key: str, now_s: float) -> int:
        """How many there were in the window that runs now."""
        began_s, count = self._windows.get(key, (0.0, 0))
        return count if count and now_s - began_s < WINDOW_S else 0
