"""Clients: what they do with a refusal, and how long they wait.

Rules: the SDK's rules are those of openai-python: 2 retries of 408, 409, 429, 5xx and lost
connections, 0.5 s x 2^k up to 8 s less a jitter of a quarter, Retry-After obeyed to the letter up
to 120 s and no retry beyond it, x-should-retry obeyed. Arrivals don't wait for answers (open loop):
people and programs that want something don't know how busy we are.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from sim.world.loop import Loop
from sim.world.requests import Call, Fate, Gateway, Job, Reply
from sim.world.seen import Refusal
from trimtab.policy.dice import Dice

BACKOFF_FIRST_S, BACKOFF_CAP_S = 0.5, 8.0
RETRY_AFTER_MAX_S = 120.0
RETRIED = frozenset({0, 408, 409, 429})
REFUSALS = frozenset({429, 503})


class ClientSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How a client behaves. The defaults are an SDK's."""

    retries: int = 2
    timeout_s: float = 600.0
    """It leaves when nothing came for this long, and retries as after a lost connection."""
    obeys_retry_after: bool = True


class Client:
    """All clients of one kind."""

    def __init__(
        self, spec: ClientSpec, loop: Loop, gateways: Sequence[Gateway], dice: Dice, end_s: float
    ) -> None:
        self._spec = spec
        self._loop = loop
        self._gateways = gateways
        self._dice = dice
        self._end_s = end_s
        self.refusals: list[Refusal] = []
        self.returned = 0
        self.returned_taken = 0
        self.double_ends = 0

    def submit(self, job: Job, *, is_return: bool = False) -> None:
        """Call some gateway, by chance, as a balancer in front of them does."""
        now_s = self._loop.now_s
        call = Call(job, self, now_s, self._spec.timeout_s)
        call.is_return = is_return
        if now_s + self._spec.timeout_s < self._end_s:
            self._loop.after(self._spec.timeout_s, self._lose_patience, call)
        gateways = self._gateways
        gateways[int(self._dice.random() * len(gateways))].submit(call)

    def began(self, call: Call) -> None:
        """The first token came."""
        self.returned += call.is_return
        self.returned_taken += call.is_return
        call.job.first_s = self._loop.now_s

    def ended(self, call: Call) -> None:
        """The answer is whole."""
        self._end(call)
        self._settle(call.job, Fate.DONE)

    def broke(self, call: Call) -> None:
        """The stream ended in an error: what came is shown, nothing is repeated."""
        self._end(call)
        self._settle(call.job, Fate.BROKEN)

    def refused(self, call: Call, reply: Reply) -> None:
        """An error status before any token."""
        self._end(call)
        job = call.job
        if reply.status in REFUSALS:
            refusal = Refusal(self._loop.now_s, reply.status, reply.retry_after_s)
            self.refusals.append(refusal)
            self.returned += call.is_return
        if job.submissions > self._spec.retries or not _may_retry(reply):
            fate = Fate.REFUSED if reply.status in REFUSALS else Fate.FAILED
            self._settle(job, fate)
            return
        asked_s = reply.retry_after_s if self._spec.obeys_retry_after else None
        wait_s = asked_s or self._backoff_s(job)
        if wait_s > RETRY_AFTER_MAX_S:
            self._settle(job, Fate.REFUSED)
        else:
            self._loop.after(wait_s, self._come_back, job, asked_s is not None)

    def _come_back(self, job: Job, is_return: bool) -> None:
        self.submit(job, is_return=is_return)

    def _backoff_s(self, job: Job) -> float:
        ceiling_s = min(BACKOFF_CAP_S, BACKOFF_FIRST_S * 2.0 ** (job.submissions - 1))
        return ceiling_s * (1.0 - 0.25 * self._dice.random())

    def _lose_patience(self, call: Call) -> None:
        job = call.job
        if not call.live or job.first_s is not None:
            return
        call.live = False
        if call.cancel is not None:
            call.cancel()
        if job.submissions > self._spec.retries:
            self._settle(job, Fate.LEFT)
        else:
            self._loop.after(self._backoff_s(job), self.submit, job)

    def _end(self, call: Call) -> None:
        self.double_ends += call.settled
        call.settled = True

    def _settle(self, job: Job, fate: Fate) -> None:
        job.fate = fate
        job.ended_s = self._loop.now_s


def _may_retry(reply: Reply) -> bool:
    if reply.retry is not None:
        return reply.retry
    return reply.status in RETRIED or reply.status >= 500
