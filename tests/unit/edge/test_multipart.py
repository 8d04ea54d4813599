"""edge/core/multipart: what goes through a form, and what does not."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.core import multipart
from edge.core.multipart import PARTS_LIMIT, Form, Hole, MalformedError, boundary

MARK = b"xYz"


def part(name: str, value: bytes, extra: str = "") -> bytes:
    head = f'Content-Disposition: form-data; name="{name}"{extra}\r\n\r\n'
    return b"--" + MARK + b"\r\n" + head.encode() + value + b"\r\n"


def body(*parts: bytes) -> bytes:
    return b"".join(parts) + b"--" + MARK + b"--\r\n"


def file(content: bytes) -> bytes:
    return part("file", content, '; filename="a.wav"\r\nContent-Type: audio/wav')


def through(form: Form, sent: bytes, served_as: bytes = b"served", step: int = 0) -> bytes:
    step = step or len(sent)
    pieces = [p for i in range(0, len(sent), step) for p in form.feed(sent[i : i + step])]
    return b"".join(served_as if piece is Hole.MODEL else bytes(piece) for piece in pieces)


@given(
    content=st.binary(max_size=80).map(lambda b: b.replace(MARK, b"")),
    step=st.integers(1, 90),
    file_first=st.booleans(),
)
def test_only_the_models_name_changes_wherever_chunks_end(
    content: bytes, step: int, file_first: bool
) -> None:
    def form(model: bytes) -> bytes:
        parts = [part("model", model), part("language", b"de"), file(content + b"\r\n--x")]
        return body(*(reversed(parts) if file_first else parts))

    read = Form(MARK)
    assert through(read, form(b"whisper"), step=step) == form(b"served")
    assert read.values == {"model": "whisper"}
    assert read.in_file
    assert read.ended


@pytest.mark.parametrize("step", [1, 7, 1000])
def test_what_helps_the_caller_is_left_out(step: int) -> None:
    kept = [file(b"abc"), part("stream", b"true")]
    for place in range(3):
        parts = [*kept]
        parts.insert(place, part("vllm_xargs", b'{"a":1}'))
        read = Form(MARK, {"vllm_xargs"})
        assert through(read, body(*parts), step=step) == body(*kept)
        assert read.values == {"stream": "true"}


def test_empty_parts_and_forms() -> None:
    sent = body(part("prompt", b""), part("model", b""), file(b""))
    assert through(Form(MARK), sent) == body(
        part("prompt", b""), part("model", b"served"), file(b"")
    )
    assert through(Form(MARK), body()) == body()
    bare = b"--xYz\r\nContent-Disposition: form-data; name=a\r\n\r\nx\r\n--xYz--"
    assert through(Form(MARK), bare) == bare + b"\r\n"


def test_a_boundary_begins_a_line_of_its_own() -> None:
    """As the engine reads it: right after the headers it is content."""
    read = Form(MARK)
    through(read, b"--xYz\r\nContent-Disposition: form-data; name=a\r\n\r\n--xYz--\r\n")
    assert not read.ended
    with pytest.raises(MalformedError, match="ends before its last part"):
        read.end()


def test_a_file_begins_before_it_ends() -> None:
    read = Form(MARK)
    head = part("model", b"m") + file(b"x" * 100)[:-60]
    through(read, head)
    assert read.values == {"model": "m"}
    assert read.in_file
    assert not read.ended


@pytest.mark.parametrize(
    ("sent", "why"),
    [
        (b"x" * 5000, "no part begins"),
        (b"--xYzz\r\n", "followed by something else"),
        (b"--xYz\r\n" + b"a: b\r\n" * 3000, "longer than 8192 bytes"),
        (body(part("a", b"") * (PARTS_LIMIT + 1)), "more than 256 parts"),
        (body(part("model", b"m" * 5000)), "model is longer than 4096"),
        (body(part("model", b"m", '; filename="m"')), "must be a text"),
        (body(part("a", b"", '; name="vllm_xargs"')), "has two of name"),
        (body(part("a", b"", "\r\nContent-Disposition: form-data; name=b")), "one Content-Disp"),
        (body(part("a", b"", "\r\n folded: x")), "on one line"),
        (body(part("a", b"", "; junk")), "form-data; name="),
        (body(part("a\xff", b"")).replace("\xff".encode(), b"\xff"), "not UTF-8"),
        (b"--xYz\r\nContent-Type: text/plain\r\n\r\nx\r\n--xYz--", "one Content-Disp"),
        (b"--xYz\r\nContent-Disposition: attachment; name=a\r\n\r\nx\r\n--xYz--", "form-data;"),
    ],
)
def test_what_could_be_read_in_two_ways_is_refused(sent: bytes, why: str) -> None:
    with pytest.raises(MalformedError, match=why):
        through(Form(MARK, {"vllm_xargs"}), sent)


@pytest.mark.parametrize(
    ("content_type", "expected"),
    [
        ("multipart/form-data; boundary=xYz", b"xYz"),
        ('Multipart/Form-Data; charset=utf-8; boundary="x Yz"', b"x Yz"),
        (
            "multipart/form-data;boundary=----WebKitFormBoundary7MA4YWxk",
            b"----WebKitFormBoundary7MA4YWxk",
        ),
        ("multipart/form-data", None),
        ("multipart/form-data; boundary=" + "x" * 71, None),
        ("multipart/mixed; boundary=x", None),
        ("application/json", None),
        ("", None),
    ],
)
def test_boundaries(content_type: str, expected: bytes | None) -> None:
    if expected is None:
        with pytest.raises(MalformedError, match="multipart/form-data with a boundary"):
            boundary(content_type)
    else:
        assert boundary(content_type) == expected
        assert boundary(multipart.content_type(expected)) == expected
