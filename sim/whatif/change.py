"""What is to be different in a what-if, read from what was typed.

Rules: names and units of settings are the configuration file's, so that what helped can be written
there; what cannot be simulated is refused in a sentence, never ignored.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import msgspec

from trimtab.model import Urgency
from trimtab.policy.urgency import BUDGETS_S
from trimtab.recording import Head, Policy, Replica

REPLICAS_MAX = 256
LOAD_MAX = 10.0
LONG_S, SHORT_S = BUDGETS_S[Urgency.DEFAULT]


@dataclass(frozen=True, slots=True)
class Asked:
    """As typed; empty: not asked for."""

    replicas: str = ""
    settings: Sequence[str] = ()
    max_num_seqs: str = ""
    load: str = ""


@dataclass(frozen=True, slots=True)
class Change:
    """The fleet and the load with it, and in words what it is; no words: nothing changes."""

    replicas: tuple[Replica, ...]
    policy: Policy
    load: float
    words: tuple[str, ...]


def change(asked: Asked, head: Head) -> Change:
    """What was asked for, applied; raises ValueError."""
    words = []
    replicas, policy, load = head.replicas, head.policy, 1.0
    if asked.replicas:
        replicas = _replicas(asked.replicas, replicas)
        if len(replicas) != len(head.replicas):
            words.append(f"{_number(len(replicas), 'replica')} instead of {len(head.replicas)}")
    if asked.max_num_seqs:
        seqs = _whole("--max-num-seqs", asked.max_num_seqs, 1, 100_000)
        replicas = tuple(msgspec.structs.replace(r, max_num_seqs=seqs) for r in replicas)
        before = sorted({replica.max_num_seqs for replica in head.replicas})
        words.append(f"--max-num-seqs {seqs} instead of {' and '.join(map(str, before))}")
    if asked.load:
        load = _load(asked.load)
        words.append(f"{load:g} times the requests")
    for text in asked.settings:
        policy, said = _set(text, policy)
        words.append(said)
    return Change(replicas, policy, load, tuple(words))


def _replicas(text: str, now: tuple[Replica, ...]) -> tuple[Replica, ...]:
    number = int(text) if re.fullmatch(r"[+-]?\d{1,6}", text) else 0
    most = number if text[0].isdigit() else len(now) + number
    if not 1 <= most <= REPLICAS_MAX or (number == 0 and not text[0].isdigit()):
        raise ValueError(
            f"--replicas {text}: say how many there shall be (like 5), or how many more or fewer"
            f" (like +1); {len(now)} serve now, and 1 to {REPLICAS_MAX} can be simulated"
        )
    copies = [msgspec.structs.replace(now[0], name=f"new-{n}") for n in range(most - len(now))]
    return (*now[:most], *copies)


def _load(text: str) -> float:
    found = re.fullmatch(r"x?(\d+(?:\.\d+)?)", text)
    load = float(found[1]) if found else 0.0
    if not 0.0 < load <= LOAD_MAX:
        raise ValueError(f"--load {text}: say a factor above 0 and up to {LOAD_MAX:g}, like x1.5")
    return load


def _set(text: str, policy: Policy) -> tuple[Policy, str]:
    name, _, value = text.partition("=")
    key = name.removeprefix("edge.")
    known = _SETTINGS.get(key)
    if known is None:
        raise ValueError(f"--set {text}: what can be set is {', '.join(_SETTINGS)}, like {EXAMPLE}")
    try:
        changed = known(policy, value)
        msgspec.convert(msgspec.to_builtins(changed), Policy)  # checks the bounds
    except (ValueError, msgspec.ValidationError) as error:
        raise ValueError(f"--set {text}: {error}") from None
    before = {field: getattr(policy, field) for field in policy.__struct_fields__}
    said = [
        f"{field} {_shown(getattr(changed, field))} instead of {_shown(old)}"
        for field, old in before.items()
        if getattr(changed, field) != old
    ]
    return changed, "; ".join(said) or f"{key} as it is"


def _shown(value: float | bool) -> str:
    return str(value).lower() if isinstance(value, bool) else f"{value:g}"


def _limit(policy: Policy, value: str) -> Policy:
    return msgspec.structs.replace(policy, queue_limit=_whole("queue_limit", value, 1, 1_000_000))


def _wait(policy: Policy, value: str) -> Policy:
    return msgspec.structs.replace(policy, queue_wait_s=float(value))


def _budget(policy: Policy, value: str) -> Policy:
    """The short budget is the same part of queue_wait_s everywhere (policy/calm)."""
    return msgspec.structs.replace(policy, queue_wait_s=float(value) * LONG_S / SHORT_S)


def _hedge(policy: Policy, value: str) -> Policy:
    if value not in {"true", "false"}:
        raise ValueError("say true or false")
    return msgspec.structs.replace(policy, hedge=value == "true")


_SETTINGS: dict[str, Callable[[Policy, str], Policy]] = {
    "queue_limit": _limit,
    "queue_wait_s": _wait,
    "queue.budget_s": _budget,
    "hedge": _hedge,
}
EXAMPLE = "queue_wait_s=20"


def _whole(name: str, text: str, least: int, most: int) -> int:
    if not text.isdecimal() or not least <= int(text) <= most:
        raise ValueError(f"{name} {text}: say a whole number, {least} to {most}")
    return int(text)


def _number(count: int, noun: str) -> str:
    return f"{count} {noun}{'s' * (count != 1)}"
