"""policy/delta: a difference applied is the new snapshot."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from trimtab.model import ApiKey, EdgePolicy, Pool, Route, Serving, Snapshot
from trimtab.policy.delta import diff, patch

NAMES = st.sampled_from(["a", "b", "c", "d"])
SNAPSHOTS = st.builds(
    Snapshot,
    pools=st.lists(
        st.builds(Pool, NAMES, st.tuples(st.sampled_from(["x", "y"]))), unique_by=lambda p: p.name
    ).map(lambda pools: tuple(sorted(pools, key=lambda p: p.name))),
    routes=st.lists(
        st.builds(
            Route,
            replica=NAMES,
            pool=NAMES,
            node=st.just("n"),
            url=st.just("http://h:1"),
            served_as=st.just("m"),
            serving=st.sampled_from(Serving),
        ),
        unique_by=lambda r: r.replica,
    ).map(lambda routes: tuple(sorted(routes, key=lambda r: r.replica))),
    keys=st.lists(
        st.builds(ApiKey, st.sampled_from([b"1", b"2", b"3"]), NAMES), unique_by=lambda k: k.sha256
    ).map(lambda keys: tuple(sorted(keys, key=lambda k: k.sha256))),
    policy=st.builds(EdgePolicy, queue_limit=st.integers(1, 3)),
)


@given(SNAPSHOTS, SNAPSHOTS, st.integers(0, 9))
def test_patch_of_diff_is_the_new_snapshot(old: Snapshot, new: Snapshot, version: int) -> None:
    delta = diff(old, new, version)
    if delta is None:
        assert old == new
    else:
        assert delta.base_version == version
        assert patch(old, delta) == new


@given(SNAPSHOTS)
def test_nothing_changed_is_no_delta(snapshot: Snapshot) -> None:
    assert diff(snapshot, snapshot, 1) is None


def test_one_change_is_one_entry() -> None:
    routes = tuple(Route(f"r{i}", "p", "n", "http://h:1", "m") for i in range(100))
    old = Snapshot(pools=(Pool("p"),), routes=routes)
    changed = Route("r7", "p", "n", "http://h:2", "m")
    new = Snapshot(pools=old.pools, routes=(*routes[:7], changed, *routes[8:]))
    delta = diff(old, new, 3)
    assert delta is not None
    assert delta.routes == (changed,)
    untouched = (delta.routes_gone, delta.pools, delta.keys, delta.policy)
    assert not any(untouched)
