"""A job is what a user wants; a call is one submission of it to a gateway.

Rules: a call has exactly one end, told to its caller once; a gateway keeps what it needs about a
call in a record of its own, and leaves in `cancel` how to be rid of it.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum, auto
from typing import Protocol

from trimtab.model import Urgency


class Fate(Enum):
    """How a job ended for its user."""

    PENDING = auto()
    DONE = auto()
    REFUSED = auto()  # the last submission was refused, and the client gave up
    FAILED = auto()  # an error other than a refusal, before any token
    BROKEN = auto()  # the stream ended in an error
    LEFT = auto()  # the client lost patience


class Job:
    """One request as its user sees it."""

    __slots__ = (
        *("number", "source", "tenant", "prompt_tokens", "output_tokens", "hashes", "work"),
        *("arrived_s", "first_s", "ended_s", "fate", "submissions", "attempts", "urgency"),
    )

    def __init__(self, number: int, source: int, tenant: str, arrived_s: float) -> None:
        self.number = number
        self.source = source
        self.tenant = tenant
        self.prompt_tokens = 1
        self.output_tokens = 1
        self.hashes: tuple[int, ...] = ()
        self.work = 0.0
        self.arrived_s = arrived_s
        self.first_s: float | None = None
        self.ended_s: float | None = None
        self.fate = Fate.PENDING
        self.submissions = 0
        self.attempts = 0  # at engines
        self.urgency = Urgency.DEFAULT


class Reply(Protocol):
    """An answer that is not a success, as a client reads it."""

    @property
    def status(self) -> int:
        """HTTP status; 0 when the connection failed."""

    @property
    def retry_after_s(self) -> float | None:
        """When to come back, if it says so."""

    @property
    def retry(self) -> bool | None:
        """x-should-retry, if it says so."""


class Caller(Protocol):
    """Who made a call."""

    def began(self, call: Call) -> None:
        """The first token came."""

    def ended(self, call: Call) -> None:
        """The answer is whole."""

    def refused(self, call: Call, reply: Reply) -> None:
        """An error status before any token."""

    def broke(self, call: Call) -> None:
        """The stream ended in an error."""


class Call:
    """One submission; `live` until the caller heard its end or left."""

    __slots__ = ("caller", "cancel", "is_return", "job", "live", "patience_s", "settled", "since_s")

    def __init__(self, job: Job, caller: Caller, now_s: float, patience_s: float) -> None:
        job.submissions += 1
        self.job = job
        self.caller = caller
        self.since_s = now_s
        self.patience_s = patience_s
        self.live = True
        self.settled = False
        self.is_return = False  # made at the time that a refusal named
        self.cancel: Callable[[], None] | None = None


class Gateway(Protocol):
    """What stands between clients and engines."""

    @property
    def name(self) -> str:
        """Its name in the network."""

    def submit(self, call: Call) -> None:
        """Take a call; its caller hears how it goes."""

    def takes(self, replica: str) -> bool:
        """Whether a request may go to the replica now, were there room."""
