"""The text is a pure function of what came before it: so a continuation is exact."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sim.text import Answer, Limits, block_hashes, token_id, token_of_id, tokenize, write

CHAT = b"<|user|>\nWhat is a breaker?\n<|assistant|>\n"


def _text(answer: Answer) -> str:
    return "".join(answer.pieces)


@given(st.binary(max_size=400))
def test_tokens_join_to_the_text_and_their_ids_can_be_read_back(text: bytes) -> None:
    tokens = tokenize(text)
    assert b"".join(tokens) == text
    assert [token_of_id(token_id(token)) for token in tokens] == tokens


@pytest.mark.parametrize("number", [-1, 0, 1, 99_999_999, 2**64])
def test_other_numbers_are_out_of_vocabulary(number: int) -> None:
    assert token_of_id(number) is None


def test_a_token_is_about_four_characters_of_english() -> None:
    text = b"The queue waits at the edge; an engine is only given what it can run. " * 20
    assert 3.0 < len(text) / len(tokenize(text)) < 5.0


@given(cut=st.integers(0, 400), prompt=st.text(max_size=60))
def test_a_continuation_has_exactly_the_missing_tokens(cut: int, prompt: str) -> None:
    start = prompt.encode() + CHAT
    whole = write(start, Limits(max_tokens=300))
    cut = min(cut, len(whole.pieces) - 1)
    prefix = "".join(whole.pieces[:cut]).encode()
    rest = write(start + prefix, Limits(max_tokens=300 - cut))
    assert rest.pieces == whole.pieces[cut:]
    assert rest.finish_reason == whole.finish_reason


def test_a_continuation_is_exact_with_min_tokens_too() -> None:
    whole = write(CHAT, Limits(max_tokens=600, min_tokens=400))
    prefix = "".join(whole.pieces[:250]).encode()
    rest = write(CHAT + prefix, Limits(max_tokens=350, min_tokens=150))
    assert rest.pieces == whole.pieces[250:]


def test_an_answer_to_be_continued_after_its_end_ends_at_once() -> None:
    whole = write(CHAT, Limits(max_tokens=4000))
    rest = write(CHAT + _text(whole).encode(), Limits(max_tokens=10))
    assert rest == Answer([""], "stop")


def test_answers_end_by_themselves_after_some_sentences() -> None:
    lengths = []
    for number in range(300):
        answer = write(b"%d" % number + CHAT, Limits(max_tokens=4000))
        assert answer.finish_reason == "stop"
        assert _text(answer).endswith("Done.")
        lengths.append(len(answer.pieces))
    assert 60 < sum(lengths) / len(lengths) < 160


def test_generated_tokens_are_counted_alike_when_read_again() -> None:
    answer = write(CHAT, Limits(max_tokens=500, ignore_eos=True))
    assert len(answer.pieces) == 500
    assert len(tokenize(_text(answer).encode())) == pytest.approx(500, rel=0.02)


def test_variants_differ_and_the_first_is_the_plain_one() -> None:
    limits = Limits(max_tokens=20)
    assert write(CHAT, limits, variant=0) == write(CHAT, limits)
    assert write(CHAT, limits, variant=1) != write(CHAT, limits)


def test_a_stop_string_ends_the_answer_and_is_left_out() -> None:
    plain = _text(write(CHAT, Limits(max_tokens=300, ignore_eos=True)))
    stop = plain[40:47]
    answer = write(CHAT, Limits(max_tokens=300, ignore_eos=True, stop=("no such text", stop)))
    assert _text(answer) == plain[: plain.index(stop)]
    assert (answer.finish_reason, answer.stop_reason) == ("stop", stop)


def test_block_hashes_are_chained_and_cover_whole_blocks_only() -> None:
    tokens = tokenize(b"a b c d e f g h i j")
    other = tokenize(b"z b c d e f g h i j")
    hashes = block_hashes(tokens, 4)
    assert len(hashes) == 2
    assert block_hashes(tokens[:5], 4) == hashes[:1]
    assert not set(hashes) & set(block_hashes(other, 4))
