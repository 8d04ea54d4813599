"""trimtab/recording: a file says what was recorded, or what is wrong with it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trimtab.recording import Arrival, End, Head, Recording, Replica, Tenant, parse, render

HEAD = Head(
    pool="m",
    began_ms=1,
    span_s=60.0,
    replicas=(Replica(name="r0", max_num_seqs=8),),
    tenants=(Tenant("a"), Tenant("b", 1)),
)
counts = st.integers(0, 2**32 - 1)
seconds = st.floats(0, 1e6)
arrival = st.builds(
    Arrival,
    at_s=st.floats(-1e6, 1e6),
    tenant=st.integers(0, 1),
    prompt_tokens=counts,
    output_tokens=counts,
    end=st.sampled_from(End),
    is_stream=st.booleans(),
    retry=st.integers(0, 255),
    wait_s=seconds,
    first_s=st.none() | seconds,
    lasted_s=seconds,
)
LINE = render(Recording(HEAD, [Arrival(0.0, 1, 2, 3, End.SERVED, True, 0, 0.0, None, 1.0)]))


@given(st.lists(arrival, max_size=5))
def test_what_is_written_is_read(arrivals: list[Arrival]) -> None:
    assert parse(render(Recording(HEAD, arrivals))) == Recording(HEAD, arrivals)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "it is no recording of arrivals"),
        (b'{"trimtab_snapshot": 1}\n', "it is no recording of arrivals"),
        (LINE.replace(b'arrivals":1', b'arrivals":2', 1), "its format is 2"),
        (LINE.replace(b'"span_s"', b'"spam_s"'), "line 1: Object contains unknown field"),
        (LINE.replace(b'"max_num_seqs":8', b'"max_num_seqs":0'), "line 1: Expected `int` >= 1"),
        (LINE[:-5], "an arrival is damaged"),
        (LINE.replace(b"[0.0,1,", b"[0.0,-1,"), "an arrival is damaged: Expected `int` >= 0"),
        (LINE.replace(b"[0.0,1,", b"[0.0,2,"), "a tenant that is none of the head's 2"),
    ],
)
def test_what_is_wrong_is_said(content: bytes, words: str) -> None:
    with pytest.raises(ValueError, match=words.replace("`", ".")):
        parse(content)
