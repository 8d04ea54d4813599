"""Should a child that died be started again, and when? Pure: the answer is a number of seconds.

Rules: who once served comes back, however often it dies; who never did is given up after a few
tries, or at once when it says that its configuration is wrong, so that a person gets a sentence
and not a loop. An engine's starts cost minutes: a few that fail in a row end it, whatever it did
before.
"""

from __future__ import annotations

import signal

from trimtab.policy.dice import Dice
from trimtab.runtime.backoff import Backoff
from trimtab.runtime.service import EXIT_CONFIG

WAIT_MAX_S = 5.0
ENGINE_WAITS_S = (2.0, 60.0)
STABLE_S = 30.0
"""Up this long, and the next death is a new story: the back-off starts over."""
FIRST_TRIES = 3
"""Deaths before the first READY until we give up."""


def backoff(dice: Dice, *, loads: bool) -> Backoff:
    """How a child's waits grow."""
    return Backoff(dice, *ENGINE_WAITS_S) if loads else Backoff(dice, cap_s=WAIT_MAX_S)


def wait_s(code: int, up_s: float, deaths_unready: int | None, backoff: Backoff) -> float | None:
    """Seconds until the next start; None: give up.

    `deaths_unready` counts the deaths of a child that was never ready, this one included; None
    for one that once was. Of an engine: those since it was ready, None for one that just was.
    """
    if deaths_unready is not None and (code == EXIT_CONFIG or deaths_unready >= FIRST_TRIES):
        return None
    if up_s >= STABLE_S:
        backoff.reset()
    return backoff.next_s()


def how(code: int) -> str:
    """How a process ended, for people."""
    if 128 < code <= 128 + signal.SIGRTMAX:
        code = 128 - code  # a keeper's, for its engine
    if code >= 0:
        return f"ended with exit status {code}"
    try:
        return f"was killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"was killed by signal {-code}"
