"""When a stalled engine is restarted, and that no history breaks the rules of it."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trimtab.policy import remedy
from trimtab.policy.remedy import COURSE_S, HOUR_S, NOTHING, OFF, Course, Patient, Rules

NOW_S = 1.7e9
RULES = Rules(per_hour=2, floor=1, after_s=60.0)
SICK = Patient("a", "m", epoch=1, useless_s=60.0, why="nothing moves")
WELL = Patient("b", "m", epoch=1, serves=True)
POOL = [SICK, WELL]


def course(*ago_s: float, epoch: int = 1, ended: str = "") -> Course:
    return Course(epoch, tuple(NOW_S - s for s in ago_s), ended)


@pytest.mark.parametrize(
    ("patient", "other", "courses", "rules", "words"),
    [
        (SICK, WELL, {}, RULES, ""),
        (SICK, WELL, {}, OFF, "off"),
        (replace(SICK, useless_s=0.0), WELL, {}, RULES, "not stalled"),
        (replace(SICK, useless_s=59.0), WELL, {}, RULES, "less than 60 s"),
        (replace(SICK, barred="paused"), WELL, {}, RULES, "paused"),
        (SICK, replace(WELL, serves=False), {}, RULES, "0 others of its pool serve, 1 must"),
        (SICK, replace(WELL, serves=False), {}, replace(RULES, floor=0), ""),
        (SICK, WELL, {"a": course(30.0)}, RULES, "a of its pool is being restarted"),
        (SICK, WELL, {"b": course(30.0)}, RULES, "b of its pool is being restarted"),
        (SICK, WELL, {"b": course(30.0, ended="it serves again")}, RULES, ""),
        (SICK, WELL, {"b": course(COURSE_S)}, RULES, ""),
        (SICK, WELL, {"a": course(3000, 2000)}, RULES, "2 restarts in the last hour, 2 are"),
        (SICK, WELL, {"a": course(HOUR_S, 2000)}, RULES, ""),
    ],
)
def test_who_is_restarted_and_why_not(
    patient: Patient, other: Patient, courses: dict[str, Course], rules: Rules, words: str
) -> None:
    pool = [patient, other]
    why_not = remedy.refusal(patient, pool, courses, rules, NOW_S)
    assert why_not.startswith(words) if words in {"", "off"} else words in why_not
    assert bool(why_not) == (not list(remedy.due(pool, courses, rules, NOW_S)))


def test_of_a_pool_the_one_that_is_sick_for_longest_and_only_that() -> None:
    longer = replace(SICK, name="c", useless_s=90.0)
    elsewhere = [replace(SICK, name="x", pool="n"), replace(WELL, name="y", pool="n")]
    due = remedy.due([*POOL, longer, *elsewhere], {}, RULES, NOW_S)
    assert [patient.name for patient in due] == ["c", "x"]


def test_a_course_ends_when_another_start_serves_or_never_did() -> None:
    granted = NOTHING.granted(1, NOW_S)
    assert remedy.outcome(granted, SICK, NOW_S + 60) is granted
    old_start = replace(SICK, serves=True, useless_s=0.0)
    assert remedy.outcome(granted, old_start, NOW_S + 60) is granted, "nobody restarted it"
    back = remedy.outcome(granted, replace(old_start, epoch=2), NOW_S + 60)
    assert back.ended == "it serves again, 60 s after the grant"
    assert not back.is_open(NOW_S + 60)
    assert remedy.outcome(granted, SICK, NOW_S + COURSE_S).ended == "it did not come back in 30 min"


FACES = st.fixed_dictionaries(
    {
        "useless_s": st.sampled_from([0.0, 30.0, 60.0, 500.0]),
        "serves": st.booleans(),
        "barred": st.sampled_from(["", "", "paused"]),
        "restarts": st.booleans(),
    }
)


@given(
    st.lists(
        st.tuples(
            st.sampled_from([0.5, 60.0, 700.0, 2000.0]),
            st.lists(FACES, min_size=5, max_size=5),
        ),
        max_size=60,
    ),
    st.integers(0, 3),
    st.integers(0, 2),
)
def test_whatever_happens_rules_are_kept(
    story: list[tuple[float, list[dict[str, object]]]], per_hour: int, floor: int
) -> None:
    rules, now_s = Rules(per_hour, floor, 60.0), NOW_S
    courses: dict[str, Course] = {}
    epochs = dict.fromkeys("abcde", 1)
    granted_s: defaultdict[str, list[float]] = defaultdict(list)
    for seconds, faces in story:
        now_s += seconds
        patients = []
        for name, face in zip("abcde", faces, strict=True):
            open_now = courses.get(name, NOTHING).is_open(now_s)
            epochs[name] += bool(face["restarts"]) and open_now
            useless_s = 0.0 if face["serves"] else float(str(face["useless_s"]))
            pool = "m" if name in "abc" else "n"
            barred, serves = str(face["barred"]), bool(face["serves"])
            patients.append(Patient(name, pool, epochs[name], useless_s, "", serves, barred))
        for patient in patients:
            known = courses.get(patient.name, NOTHING)
            courses[patient.name] = remedy.outcome(known, patient, now_s)
        for patient in list(remedy.due(patients, courses, rules, now_s)):
            others = [p for p in patients if p.pool == patient.pool and p.name != patient.name]
            assert not any(courses[p.name].is_open(now_s) for p in [patient, *others])
            assert sum(p.serves for p in others) >= floor
            assert not patient.barred
            assert patient.useless_s >= rules.after_s
            granted_s[patient.name].append(now_s)
            assert sum(now_s - at_s < HOUR_S for at_s in granted_s[patient.name]) <= per_hour
            courses[patient.name] = courses[patient.name].granted(patient.epoch, now_s)
