"""policy/work: what a request costs, how long answers are, how fast a full engine works."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trimtab.policy.work import (
    GAP_LIMIT_S,
    OUTPUT_PRIOR_TOKENS,
    AnswerLength,
    Pace,
    work,
)


@pytest.mark.parametrize(
    ("prompt_tokens", "output_tokens", "expected"),
    [(0, 100, 100.0), (1000, 0, 42.0), (100_000, 200, 4400.0)],
)
def test_a_prompt_token_is_a_small_part_of_a_decoded_one(
    prompt_tokens: int, output_tokens: int, expected: float
) -> None:
    assert work(prompt_tokens, output_tokens) == pytest.approx(expected)


def test_an_answer_is_expected_to_be_as_long_as_others_but_never_longer_than_allowed() -> None:
    length = AnswerLength()
    assert length.expected(None) == OUTPUT_PRIOR_TOKENS
    assert length.expected(10) == 10
    for _ in range(100):
        length.add(tokens=9_000, ended=10)
    assert 850 < length.expected(None) <= 900
    assert length.expected(100) == 100


def test_answers_that_still_run_count_so_that_short_ones_do_not_hide_long_ones() -> None:
    """Long answers end late: a mean of what has ended is half of the truth for minutes."""
    dice, length, ended = random.Random(1), AnswerLength(), []
    running: list[list[int]] = []
    for _ in range(600):  # 600 s from cold; one answer begins each second, 30 tokens/s each
        running.append([0, int(dice.expovariate(1 / 1000)) + 1])
        tokens = done = 0
        for answer in running:
            tokens += min(30, answer[1] - answer[0])
            answer[0] += 30
        for answer in [a for a in running if a[0] >= a[1]]:
            running.remove(answer)
            ended.append(answer[1])
            done += 1
        length.add(tokens, done)
    assert sum(ended[:30]) / 30 < 700
    assert 800 < length.expected(None) < 1200


@given(st.lists(st.tuples(st.floats(0, 1e6), st.integers(0, 100)), max_size=50))
def test_a_length_is_at_least_one(steps: list[tuple[float, int]]) -> None:
    length = AnswerLength()
    for tokens, ended in steps:
        length.add(tokens, ended)
    assert length.expected(None) >= 1.0


def test_pace_is_measured_only_while_full_and_told_once_enough_was_seen() -> None:
    pace = Pace()
    for _ in range(100):
        pace.observe(500.0, 0.5, full=False)
    for _ in range(3):
        pace.observe(1000.0, 0.5, full=True)
        assert pace.work_per_s is None
    pace.observe(1000.0, 0.5, full=True)
    for _ in range(100):
        pace.observe(0.0, 0.5, full=False)
    assert pace.work_per_s == 2000.0


def test_a_young_pace_is_the_plain_mean_and_an_old_one_follows() -> None:
    pace = Pace()
    for done in (1000.0, 2000.0):
        pace.observe(done, 1.0, full=True)
    assert pace.work_per_s == pytest.approx(1500.0)
    for _ in range(60):
        pace.observe(100.0, 1.0, full=True)
    assert pace.work_per_s == pytest.approx(100.0, rel=0.05)


@pytest.mark.parametrize("elapsed_s", [0.0, -1.0, GAP_LIMIT_S + 1])
def test_a_reading_without_a_sound_length_says_nothing(elapsed_s: float) -> None:
    pace = Pace()
    pace.observe(1000.0, elapsed_s, full=True)
    assert pace.work_per_s is None
