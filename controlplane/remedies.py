"""Grants restarts of stalled engines, and follows what becomes of them; see policy/remedy.

Rules: a grant is in the store, with its entry in the audit, before the agent hears of it, in a
write that only a leader can make: so the next leader counts it and nobody else grants another. What
was true before that write is looked at once more after it.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import replace
from typing import TYPE_CHECKING

import msgspec

from controlplane.contents import Changes
from controlplane.core.audit import Deed
from controlplane.core.patients import Patients
from controlplane.core.records import ROOT
from controlplane.saver import ChangedError
from controlplane.store.protocol import Store, StoreError
from trimtab.directives import Restart, Restarted
from trimtab.policy import remedy
from trimtab.policy.remedy import COURSE_S, HOUR_S, NOTHING, Course, Patient, Rules
from trimtab.runtime import clock
from trimtab.steered import Order

if TYPE_CHECKING:
    from controlplane.loop import ControlLoop

PREFIX = ROOT + "restarts/"
PERIOD_S = 0.5
AGAIN_S = 5.0  # after a store that did not take a grant
ACTOR = "trimtab"
log = logging.getLogger("controlplane.remedies")


class Record(msgspec.Struct, frozen=True):
    """What is stored of a Course."""

    epoch: int
    granted_s: tuple[float, ...]


class Remedies:
    """One leader's."""

    def __init__(self, rules: Rules) -> None:
        self._rules = rules
        self._patients = Patients()
        self._seen: dict[str, Patient] = {}
        self._courses: dict[str, Course] = {}

    async def run(self, loop: ControlLoop) -> None:
        """For ever; nothing at all unless it is allowed."""
        if not self._rules.per_hour:
            await asyncio.Event().wait()
        known: dict[str, Course] | None = None
        while True:
            await asyncio.sleep(PERIOD_S)
            try:
                if known is None:
                    self._courses = known = await _load(loop.store)
                await self._treat(loop)
            except (StoreError, ChangedError) as error:
                log.warning("a restart was not granted", extra={"fields": {"error": str(error)}})
                await asyncio.sleep(AGAIN_S)

    def take(self, loop: ControlLoop, node: str, said: Restarted) -> None:
        """An agent tells what came of a grant."""
        replica, course = loop.registry.replicas.get(said.replica), self._courses.get(said.replica)
        if replica is None or replica.node != node or not course or course.epoch != said.epoch:
            return
        loop.note(
            "restart asked of systemd", {"replica": said.replica, "error": said.detail or None}
        )
        if not said.ok and not course.ended:
            self._courses[said.replica] = replace(course, ended=f"not restarted: {said.detail}")

    def says(self, name: str) -> str:
        """How it stands with a replica, for people."""
        patient, course = self._seen.get(name, Patient(name)), self._courses.get(name, NOTHING)
        pool = [one for one in self._seen.values() if one.pool == patient.pool]
        now_s = clock.wall_s()
        last = ""
        if course.granted_s:
            came = course.ended or "it is not back yet"
            last = f"restarted {now_s - course.granted_s[-1]:.0f} s ago: {came}; "
        why_not = remedy.refusal(patient, pool, self._courses, self._rules, now_s)
        return last + (f"not restarted: {why_not}" if why_not else "a restart is due")

    async def _treat(self, loop: ControlLoop) -> None:
        for patient in self._due(loop):
            course = self._courses.get(patient.name, NOTHING)
            granted = course.granted(patient.epoch, clock.wall_s())
            unit = loop.registry.replicas[patient.name].facts
            order = Order(ACTOR, patient.why)
            deed = Deed(order, "restart engine", patient.name, after=unit.unit if unit else "")
            await loop.change(self._changes(patient.name, granted), {}, deed)
            self._courses[patient.name] = replace(granted, ended="not asked: it got well meanwhile")
            known = {**self._courses, patient.name: course}
            if any(one.name == patient.name for one in self._due(loop, known)):
                self._grant(loop, patient, granted)

    def _due(self, loop: ControlLoop, courses: dict[str, Course] | None = None) -> list[Patient]:
        registry, now_s, wall_s = loop.registry, clock.now_s(), clock.wall_s()
        if not registry.settled(now_s):
            return []
        replicas, nodes = registry.replicas.values(), registry.agents.by_node
        found = self._patients.look(replicas, nodes, registry.stale_s, now_s)
        self._seen = {patient.name: patient for patient in found}
        for patient in found:
            course = self._courses.get(patient.name, NOTHING)
            after = self._courses[patient.name] = remedy.outcome(course, patient, wall_s)
            if after is not course:
                loop.note("restart is over", {"replica": patient.name, "reason": after.ended})
        return list(remedy.due(found, courses or self._courses, self._rules, wall_s))

    def _grant(self, loop: ControlLoop, patient: Patient, course: Course) -> None:
        self._courses[patient.name] = course
        agent = loop.agent_of(patient.name)
        restart = Restart(patient.name, loop.term, patient.epoch, patient.why)
        if agent is None or not agent.tell(restart):
            gone = "not asked: its agent is gone"
            self._courses[patient.name] = replace(course, ended=gone)
        fields = {"replica": patient.name, "pool": patient.pool, "reason": patient.why}
        loop.note("restart granted", {**fields, "in_last_hour": len(course.granted_s)})

    def _changes(self, name: str, course: Course) -> Changes:
        """What to store: this one, and nothing more of those that matter no more."""
        now_s = clock.wall_s()
        old = [
            one
            for one, known in self._courses.items()
            if known.granted_s and now_s - known.granted_s[-1] > max(HOUR_S, COURSE_S)
        ]
        record = msgspec.json.encode(Record(course.epoch, course.granted_s))
        return {**{PREFIX + one: None for one in old}, PREFIX + name: record}


async def _load(store: Store) -> dict[str, Course]:
    found: dict[str, Course] = {}
    for entry in (await store.range(PREFIX)).entries:
        try:
            record = msgspec.json.decode(entry.value, type=Record)
        except (msgspec.ValidationError, msgspec.DecodeError):
            continue
        found[entry.key.removeprefix(PREFIX)] = Course(record.epoch, record.granted_s)
    return found
