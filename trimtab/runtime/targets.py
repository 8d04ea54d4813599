"""Where the control planes are, and which one to try next.

Rules: one that does not lead names the one that does, and that is tried at once, but only
HOPS_LIMIT times in a row: two who name each other must not be believed for ever. Otherwise the
next of the list is tried, after the caller's back-off. A leader that was lost, one that served us
or was named, is told to who is asked next: he need not name it again. Only to him: after that
it may lead again.
"""

from __future__ import annotations

import grpc

HOPS_LIMIT = 2
LEADER_METADATA = "trimtab-leader"
"""Trailing metadata of a refusal: the leader's target, empty when there is none."""
LOST_METADATA = "trimtab-lost"
"""Metadata of a call: the target where the caller has just failed; wait for another leader."""


class Targets:
    """A list of gRPC targets, as written in the configuration: a,b,c."""

    def __init__(self, text: str) -> None:
        self.listed = tuple(part.strip() for part in text.split(",") if part.strip()) or (text,)
        self._next = 0
        self._hops = 0
        self._lost = ""
        self._leads = True  # nobody said otherwise
        self.current = self.listed[0]

    def __len__(self) -> int:
        return len(self.listed)

    @property
    def metadata(self) -> tuple[tuple[str, str], ...]:
        """What a call to `current` should carry."""
        return ((LOST_METADATA, self._lost),) if self._lost else ()

    def served(self) -> None:
        """`current` leads: it has answered as only a leader does."""
        self._leads = True

    def move(self, leader: str | None = None) -> bool:
        """A try has ended: choose the next; True when it can be made at once.

        `leader` is what the refusal named, None when it was none.
        """
        if leader and leader != self.current and self._hops < HOPS_LIMIT:
            self._hops += 1
            self._leads = True
            self.current = leader
            return True
        self._lost = self.current if self._leads and leader is None else ""
        self._leads = False
        self._hops = 0
        self._next = (self._next + 1) % len(self.listed)
        self.current = self.listed[self._next]
        return False


def leader_named(error: grpc.aio.AioRpcError) -> str | None:
    """The leader named by a control plane that isn't it, "" if it knows none; else None."""
    named = dict(error.trailing_metadata() or ()).get(LEADER_METADATA)
    return named.decode(errors="replace") if isinstance(named, bytes) else named
