"""One edge's stream: the newest state, one at a time, until it is acked."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from controlplane.core.subscription import (
    KNOWN_LIMIT,
    NACK_WAIT_CAP_S,
    NACK_WAIT_FIRST_S,
    Differences,
    Subscription,
)
from trimtab.model import Ack, Credit, Credits, Delta, EdgeUpdate, Pool, Route, Serving, Snapshot
from trimtab.policy.delta import patch


def snapshot(*names: str, serving: Serving = Serving.OPEN) -> Snapshot:
    routes = tuple(Route(name, "m", "n", "http://h:1", "m", serving) for name in names)
    return Snapshot(pools=(Pool("m"),), routes=routes)


class Stream:
    """A subscription with its surroundings."""

    def __init__(self) -> None:
        self.subscription = Subscription()
        self.versions = itertools.count(1)
        self.now_s = 100.0
        self.credits: Credits | None = None

    def next(self, routing: Snapshot) -> list[EdgeUpdate]:
        return self.subscription.next(
            3, lambda: next(self.versions), routing, self.credits, self.now_s
        )

    def ack(self, update: EdgeUpdate, error: str = "") -> None:
        self.subscription.ack(Ack(update.nonce, error), self.now_s)


def test_first_the_whole_then_differences() -> None:
    stream = Stream()
    (first,) = stream.next(snapshot("r1"))
    assert first == EdgeUpdate(3, 1, 1, snapshot("r1"))
    stream.ack(first)
    (second,) = stream.next(snapshot("r1", "r2"))
    assert isinstance(second.body, Delta)
    assert second.body.base_version == 1
    assert [route.replica for route in second.body.routes] == ["r2"]
    stream.ack(second)
    (third,) = stream.next(snapshot("r2"))
    assert isinstance(third.body, Delta)
    assert (third.body.base_version, third.body.routes_gone) == (2, ("r1",))


def test_nothing_new_is_nothing_sent() -> None:
    stream = Stream()
    same = snapshot("r1")
    (first,) = stream.next(same)
    stream.ack(first)
    assert stream.next(same) == []
    assert stream.next(snapshot("r1")) == [], "equal, if not the same object"


def test_one_at_a_time_and_then_the_newest() -> None:
    stream = Stream()
    (first,) = stream.next(snapshot("r1"))
    assert stream.next(snapshot("r1", "r2")) == []
    assert stream.next(snapshot("r1", "r2", "r3")) == []
    stream.ack(first)
    (second,) = stream.next(snapshot("r1", "r2", "r3"))
    assert isinstance(second.body, Delta)
    assert [route.replica for route in second.body.routes] == ["r2", "r3"]


def test_credits_do_not_wait_for_the_routing() -> None:
    stream = Stream()
    (routing,) = stream.next(snapshot("r1"))
    stream.credits = Credits((Credit("r1", 4),))
    (credit,) = stream.next(snapshot("r1"))
    assert (credit.version, credit.nonce, credit.body) == (2, 2, stream.credits)
    stream.credits = Credits((Credit("r1", 5),))
    assert stream.next(snapshot("r1")) == []
    stream.ack(credit)
    (newer,) = stream.next(snapshot("r1"))
    assert newer.body == stream.credits
    stream.ack(routing)
    assert stream.subscription.acked_version == 2
    assert stream.subscription.sent_version == 3


def test_a_nack_means_the_whole_again_after_a_wait_that_doubles() -> None:
    stream = Stream()
    state = snapshot("r1")
    (update,) = stream.next(state)
    stream.ack(update)
    state = snapshot("r1", "r2")
    (update,) = stream.next(state)
    waits = []
    for _ in range(12):
        stream.ack(update, "x" * 999)
        began_s = stream.now_s
        while not (updates := stream.next(state)):
            stream.now_s += 0.05
        waits.append(stream.now_s - began_s)
        (update,) = updates
        assert update.body == state
    assert waits[0] <= NACK_WAIT_FIRST_S + 0.1
    assert waits == sorted(waits)
    assert NACK_WAIT_CAP_S <= waits[-1] <= NACK_WAIT_CAP_S + 0.1
    assert stream.subscription.last_error == "x" * 299 + "…"
    assert stream.subscription.acked_version == 1

    stream.ack(update)
    (update,) = stream.next(snapshot("r1"))
    assert isinstance(update.body, Delta)


def test_nacked_credits_are_sent_again() -> None:
    stream = Stream()
    routing = snapshot("r1")
    (first,) = stream.next(routing)
    stream.ack(first)
    stream.credits = Credits((Credit("r1", 4),))
    (credit,) = stream.next(routing)
    stream.ack(credit, "no")
    assert stream.next(routing) == []
    stream.now_s += NACK_WAIT_FIRST_S
    (again,) = stream.next(routing)
    assert again.body == stream.credits


def test_acks_of_nothing_are_ignored() -> None:
    stream = Stream()
    (first,) = stream.next(snapshot("r1"))
    for nonce in (0, 7):
        stream.subscription.ack(Ack(nonce, "what?"), stream.now_s)
    assert stream.subscription.last_error == ""
    stream.ack(first)
    stream.ack(first, "too late")
    assert stream.subscription.last_error == ""


def test_an_edge_that_never_acks_is_stuck() -> None:
    stream = Stream()
    assert not stream.subscription.stuck(1e9)
    (first,) = stream.next(snapshot("r1"))
    assert not stream.subscription.stuck(stream.now_s + 9.9)
    assert stream.subscription.stuck(stream.now_s + 10.0)
    stream.ack(first)
    assert not stream.subscription.stuck(1e9)


@given(st.lists(st.tuples(st.sets(st.sampled_from("abcd")), st.sampled_from(["ack", "nack", ""]))))
def test_an_edge_that_applies_what_it_gets_ends_with_the_newest(
    steps: list[tuple[set[str], str]],
) -> None:
    stream, held = Stream(), Snapshot()
    outstanding: EdgeUpdate | None = None
    for names, answer in [*steps, ({"z"}, "ack"), ({"z"}, "ack"), ({"z"}, "ack")]:
        stream.now_s += 100.0
        state = snapshot(*sorted(names))
        for update in stream.next(state):
            assert outstanding is None
            outstanding = update
        if outstanding is None or not answer:
            continue
        if answer == "ack":
            body = outstanding.body
            assert isinstance(body, Snapshot | Delta)
            held = body if isinstance(body, Snapshot) else patch(held, body)
        stream.ack(outstanding, "no" if answer == "nack" else "")
        outstanding = None
    assert held == snapshot("z")


def test_a_difference_is_worked_out_once_and_based_on_what_each_edge_has() -> None:
    differences = Differences()
    old, new = Snapshot(), Snapshot(pools=(Pool("m"),))
    first, second = (differences.find(old, new, version) for version in (3, 7))
    assert (first, second) == (Delta(3, pools=(Pool("m"),)), Delta(7, pools=(Pool("m"),)))
    assert first is not None
    assert second is not None
    assert first.pools is second.pools
    assert differences.find(new, new, 9) is None
    assert differences.find(new, old, 9) == Delta(9, pools_gone=("m",))


def test_edges_with_more_old_states_than_are_remembered_are_told_right() -> None:
    differences, new = Differences(), Snapshot(pools=(Pool("m"),))
    olds = [Snapshot(pools=(Pool(f"p{n}"),)) for n in range(KNOWN_LIMIT + 2)]
    for _ in "12":
        for old in olds:
            delta = differences.find(old, new, 1)
            assert delta is not None
            assert patch(old, delta) == new
