"""What the simulated engine says, and how it counts: a tokenizer and a text generator.

Rule 1: the next token is a pure function of the whole text so far (prompt and answer alike), and so
        is the end of the answer. Prompt + emitted text, sent to another engine, goes on with
        exactly the tokens that were missing, wherever the cut fell.
Rule 2: the only other inputs, `min_tokens` and `ignore_eos`, suppress the end and nothing else; a
        continuation that lowers max_tokens and min_tokens by what was emitted is exact too.
The text is summed up by a polynomial hash of its bytes, so that one token costs one multiplication.
"""

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass

# A token is up to five letters with the space before them, or up to three other bytes: about four
# characters of English. Its id is its bytes behind a 1, so ids can be turned back into text.
_TOKEN = re.compile(rb" ?[A-Za-z]{1,5}|[^A-Za-z ]{1,3}| {1,6}")
_ID_MARK = b"\x01"

_MODULUS = 10**18 + 9  # prime, and far from a power of two
_SCRAMBLE = 0x9E3779B97F4A7C15  # 2^64 / golden ratio: spreads the state's bits
_VOCABULARY = (
    "the a one each this that every some load queue token batch slot cache block step rate limit "
    "edge route pool flow node wait time first last next fresh stale warm cold fast slow busy free "
    "full small large long short even fair safe true plain quiet ready sends takes gives keeps "
    "holds moves fills ends grows falls runs waits meets finds turns joins parts since after "
    "under over with into from until while then when where again once never soon"
)
_WORDS = _VOCABULARY.split()  # each is one token, as a model's own words are
_END_OF_SENTENCE = 11  # a sentence ends after this many words, on average
_END_OF_ANSWER = 8  # an answer has this many sentences, on average
_CLOSING = " Done."


def tokenize(text: bytes) -> list[bytes]:
    """The tokens of a text; joined they are the text."""
    return _TOKEN.findall(text)


def token_id(token: bytes) -> int:
    """A token's number."""
    return int.from_bytes(_ID_MARK + token)


def token_of_id(number: int) -> bytes | None:
    """The token of a number; None if it is out of vocabulary."""
    raw = number.to_bytes(8).lstrip(b"\x00") if 0 <= number < 2**64 else b""
    return raw[1:] if len(raw) > 1 and raw[:1] == _ID_MARK else None


def block_hashes(tokens: list[bytes], block_size: int) -> list[int]:
    """A hash for each whole block, chained: equal hashes mean equal text from the start."""
    hashes: list[int] = []
    digest = b""
    for start in range(0, len(tokens) - block_size + 1, block_size):
        block = b"".join(tokens[start : start + block_size])
        digest = hashlib.blake2b(digest + block, digest_size=8).digest()
        hashes.append(int.from_bytes(digest))
    return hashes


@dataclass(frozen=True, slots=True)
class Limits:
    """What a request allows its answer."""

    max_tokens: int
    min_tokens: int = 0
    ignore_eos: bool = False
    stop: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Answer:
    """One whole answer, cut into the texts of its tokens (the end-of-text token's is empty)."""

    pieces: list[str]
    finish_reason: str
    stop_reason: str | None = None


def write(text: bytes, limits: Limits, variant: int = 0) -> Answer:
    """The answer to a text. Variants are the other choices of a request with n > 1."""
    pieces: list[str] = []
    for piece in _continue(text, variant, limits):
        pieces.append(piece)
        if not piece:
            return Answer(pieces, "stop")
        if limits.stop and (cut := _cut_at_stop(pieces, limits.stop)) is not None:
            return cut
    return Answer(pieces, "length")


def _continue(text: bytes, variant: int, limits: Limits) -> Iterator[str]:
    """Tokens after a text, at most max_tokens; an empty one is the end."""
    state = (int.from_bytes(text) + variant) % _MODULUS
    tail = text[-len(_CLOSING) :].decode("ascii", "replace")
    for position in range(limits.max_tokens):
        may_end = position >= limits.min_tokens and not limits.ignore_eos
        if may_end and tail == _CLOSING:
            yield ""
            return
        dice = (state * _SCRAMBLE & 0xFFFF_FFFF_FFFF_FFFF) >> 32
        piece = _pick(dice, tail)
        yield piece
        raw = piece.encode()
        state = ((state << 8 * len(raw)) + int.from_bytes(raw)) % _MODULUS
        tail = (tail + piece)[-len(_CLOSING) :]


def _pick(dice: int, tail: str) -> str:
    """The next piece: a word, a full stop, or the word that closes the answer."""
    if tail.endswith(_CLOSING[:-1]):
        return "."
    between_sentences = not tail[-1:].isalnum()
    word = _WORDS[(dice >> 8) % len(_WORDS)]
    if not between_sentences:
        return "." if dice % _END_OF_SENTENCE == 0 else " " + word
    if tail.endswith(".") and dice % _END_OF_ANSWER == 0:
        return _CLOSING[:-1]
    return ("" if tail.endswith("\n") else " ") + word.capitalize()


def _cut_at_stop(pieces: list[str], stops: tuple[str, ...]) -> Answer | None:
    """The answer ended by a stop string, which is not part of it; None if there is none yet."""
    reach = max(map(len, stops))
    first = max(0, len(pieces) - reach - 1)  # a piece has at least one character
    recent = "".join(pieces[first:])
    found = [(at, stop) for stop in stops if (at := recent.find(stop)) >= 0]
    if not found:
        return None
    keep, stop = min(found)
    cut = pieces[:first]
    for piece in pieces[first:]:
        cut.append(piece[:keep])
        keep = max(0, keep - len(piece))
    return Answer(cut, "stop", stop)
