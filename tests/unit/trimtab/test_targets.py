"""Which control plane is tried next, and whether at once."""

from __future__ import annotations

import pytest

from trimtab.runtime.targets import HOPS_LIMIT, LOST_METADATA, Targets


@pytest.mark.parametrize(
    ("text", "count"), [("a:1", 1), ("a:1,b:2", 2), (" a:1 , b:2 ,", 2), ("unix:/x", 1)]
)
def test_a_list_as_people_write_it(text: str, count: int) -> None:
    assert len(Targets(text)) == count


def test_round_and_round_without_a_word() -> None:
    targets = Targets("a,b,c")
    seen = []
    for _ in range(4):
        seen.append(targets.current)
        assert not targets.move()
    assert seen == ["a", "b", "c", "a"]


def test_a_leader_is_followed_at_once_also_off_the_list() -> None:
    targets = Targets("a,b")
    assert targets.move("z")
    assert targets.current == "z"
    assert not targets.move()
    assert targets.current == "b", "one that fails is not tried again"


def test_two_who_name_each_other_are_not_believed_for_ever() -> None:
    targets = Targets("a,b")
    hops = 0
    while targets.move("b" if targets.current == "a" else "a"):
        hops += 1
    assert hops == HOPS_LIMIT


def test_who_names_himself_is_not_followed() -> None:
    assert not Targets("a,b").move("a")


@pytest.mark.parametrize(
    ("answers", "told"),
    [
        ([None], "a"),
        ([None, None], ""),  # a may be back, and b was nobody's leader
        ([None, ""], ""),  # b has let us wait for as long as a's lease could last
        (["b", None], "b"),
        (["b", None, "c"], "b"),  # c was named by who knows that b is lost
    ],
)
def test_a_lost_leader_is_told_to_the_next_only(answers: list[str | None], told: str) -> None:
    targets = Targets("a,b,c,d")
    for answer in answers:
        targets.move(answer)
    assert targets.metadata == (((LOST_METADATA, told),) if told else ())


def test_who_served_was_the_leader() -> None:
    targets = Targets("a,b,c")
    targets.move()
    targets.served()
    targets.move()
    assert targets.metadata == ((LOST_METADATA, "b"),)
