"""Whether an engine that is stalled beyond doubt is restarted without a person; off unless told to.

Rule 1: a restart costs minutes of loading: only an engine of no use for `after_s` gets one.
Rule 2: of a pool one at a time: from the grant until it serves again, or COURSE_S.
Rule 3: never one more than `per_hour` of a replica in any hour, whatever became of the others.
Rule 4: `floor` others of the pool must serve, so that a wrong verdict takes nobody's last engine.
Rule 5: where an operator has his hands on it, or has paused what is automatic, nothing is done.
Times are seconds since 1970: what was granted must be known to the next leader.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

HOUR_S = 3_600.0
COURSE_S = 1_800.0
"""A large model takes 10 to 15 minutes to load; what is not back in twice that needs a person."""


@dataclass(frozen=True, slots=True)
class Rules:
    """What somebody has allowed."""

    per_hour: int = 0
    """Most restarts of one replica in an hour; 0: none, ever."""
    floor: int = 1
    """So many others of its pool must serve."""
    after_s: float = 60.0
    """How long it must have been of no use."""


OFF = Rules()


@dataclass(frozen=True, slots=True)
class Patient:
    """One replica, sick or not."""

    name: str
    pool: str = ""
    epoch: int = 0
    useless_s: float = 0.0
    """For how long it is known to do no work that it has; 0: it is not."""
    why: str = ""
    """In words for people."""
    serves: bool = False
    barred: str = ""
    """Why nobody may restart it now: its operator, its agent; empty when one may."""


@dataclass(frozen=True, slots=True)
class Course:
    """The restarts of one replica that were granted."""

    epoch: int = 0
    """The start that the newest was to end."""
    granted_s: tuple[float, ...] = ()
    """Of the last hour, oldest first, and the newest."""
    ended: str = ""
    """What came of the newest; empty while that is open."""

    def is_open(self, now_s: float) -> bool:
        """Whether its replica may be loading still."""
        return bool(self.granted_s) and not self.ended and now_s - self.granted_s[-1] < COURSE_S

    def last_hour(self, now_s: float) -> int:
        """How many were granted in it; a clock that was set back makes none disappear."""
        return sum(now_s - at_s < HOUR_S for at_s in self.granted_s)

    def granted(self, epoch: int, now_s: float) -> Course:
        """With one more."""
        kept = tuple(at_s for at_s in self.granted_s if now_s - at_s < HOUR_S)
        return Course(epoch, (*kept, now_s))


NOTHING = Course()


def refusal(
    patient: Patient,
    pool: Sequence[Patient],
    courses: Mapping[str, Course],
    rules: Rules,
    now_s: float,
) -> str:
    """Why it is not restarted now; empty if it is to be. `pool` are all of its pool."""
    own = courses.get(patient.name, NOTHING)
    loading = [one.name for one in pool if courses.get(one.name, NOTHING).is_open(now_s)]
    serving = sum(one.serves for one in pool if one.name != patient.name)
    granted, allowed = own.last_hour(now_s), rules.per_hour
    reasons = (
        (not allowed, "off: remediation.restarts_per_hour is 0"),
        (not patient.useless_s, "it is not stalled"),
        (bool(patient.barred), patient.barred),
        (bool(loading), f"{', '.join(loading[:1])} of its pool is being restarted"),
        (patient.useless_s < rules.after_s, f"stalled for less than {rules.after_s:g} s"),
        (granted >= allowed, f"{granted} restarts in the last hour, {allowed} are allowed"),
        (serving < rules.floor, f"{serving} others of its pool serve, {rules.floor} must"),
    )
    return next((reason for holds, reason in reasons if holds), "")


def due(
    patients: Sequence[Patient], courses: Mapping[str, Course], rules: Rules, now_s: float
) -> Iterator[Patient]:
    """Whom to restart now, of each pool at most one: who is sick for longest."""
    pools: dict[str, list[Patient]] = {}
    for patient in patients:
        pools.setdefault(patient.pool, []).append(patient)
    for pool in pools.values():
        for patient in sorted(pool, key=lambda one: (-one.useless_s, one.name)):
            if not refusal(patient, pool, courses, rules, now_s):
                yield patient
                break


def outcome(course: Course, patient: Patient, now_s: float) -> Course:
    """The course, ended when it can be told how."""
    if not course.granted_s or course.ended:
        return course
    if patient.serves and patient.epoch != course.epoch:
        took_s = now_s - course.granted_s[-1]
        return replace(course, ended=f"it serves again, {took_s:.0f} s after the grant")
    if not course.is_open(now_s):
        return replace(course, ended=f"it did not come back in {COURSE_S / 60:.0f} min")
    return course
