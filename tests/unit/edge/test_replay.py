"""core/replay: what is kept, for how long, and never more than its bounds."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.core import replay
from edge.core.replay import Answer, Found, Recording, Replays, digest

HELLO = Answer(b"hello", {})


def kept(replays: Replays, key: bytes, answer: Answer | None = HELLO, now_s: float = 0.0) -> None:
    assert replays.look(key, b"request", now_s) is Found.NOTHING
    replays.ended(key, answer, now_s)


def test_the_first_runs_the_others_wait_and_then_hear_its_answer() -> None:
    replays = Replays()
    assert replays.look(b"k", b"request", 0.0) is Found.NOTHING
    assert replays.look(b"k", b"request", 0.0) is Found.RUNNING
    assert replays.look(b"k", b"other", 0.0) is Found.ANOTHER
    assert replays.look(b"another key", b"request", 0.0) is Found.NOTHING
    replays.ended(b"k", HELLO, 1.0)
    assert replays.look(b"k", b"request", 2.0) is HELLO
    assert replays.look(b"k", b"other", 2.0) is Found.ANOTHER


def test_a_failure_is_not_kept_and_the_next_one_runs() -> None:
    replays = Replays()
    kept(replays, b"k", None)
    assert replays.look(b"k", b"even another request", 0.0) is Found.NOTHING


def test_an_answer_is_forgotten_after_its_time() -> None:
    replays = Replays()
    kept(replays, b"k", now_s=10.0)
    assert replays.look(b"k", b"request", 10.0 + replay.KEPT_S) is HELLO
    assert replays.look(b"k", b"request", 10.1 + replay.KEPT_S) is Found.NOTHING


@given(sizes=st.lists(st.integers(0, 60), max_size=40))
def test_the_oldest_falls_out_first(sizes: list[int]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(replay, "ENTRIES_MAX", 8)
        patch.setattr(replay, "BYTES_MAX", 200)
        patch.setattr(replay, "ANSWER_MAX_BYTES", 50)
        patch.setattr(replay, "ENTRY_BYTES", 10)
        replays = Replays()
        for number, size in enumerate(sizes):
            kept(replays, str(number).encode(), Answer(bytes(size), {}))
        found = [replays.look(str(n).encode(), b"request", 0.0) for n in range(len(sizes))]
        numbers = [n for n, answer in enumerate(found) if isinstance(answer, Answer)]
        candidates = [n for n, size in enumerate(sizes) if size <= 50]
        assert numbers == candidates[len(candidates) - len(numbers) :]
        assert len(numbers) <= 8
        assert sum(sizes[n] + 10 for n in numbers) <= 200
        if len(numbers) < min(8, len(candidates)):  # one more would not have fitted
            one_more = candidates[len(candidates) - len(numbers) - 1 :]
            assert sum(sizes[n] + 10 for n in one_more) > 200


def test_a_stream_is_kept_when_it_ended_and_is_not_too_much() -> None:
    recording = Recording()
    recording.sent(b"data: 1\n\n")
    assert recording.answer is None
    recording.sent(b"data: [DONE]\n\n")
    recording.ended({"content-type": "text/event-stream", "x-request-id": "req_1"})
    assert recording.answer == Answer(
        b"data: 1\n\ndata: [DONE]\n\n", {"content-type": "text/event-stream"}
    )
    long = Recording()
    for _ in range(5):
        long.sent(bytes(replay.ANSWER_MAX_BYTES // 4))
    long.ended({})
    assert long.answer is None


def test_parts_are_not_run_together() -> None:
    assert digest(b"ab", b"c") != digest(b"a", b"bc")
