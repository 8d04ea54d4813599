"""Recorded arrivals of one pool, and the fleet they met: what `ctl simulate` saves and replays.

Rules: no prompt, answer, key or caller's id is in it; tenants are named, as `ctl` names them
everywhere. A file is JSON lines: the head, then one array an arrival, in the order of arrival; an
unknown field of a newer head is refused rather than misread, by the format's number.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum
from typing import Annotated

import msgspec

FORMAT = 1
ARRIVALS_MAX = 2_000_000  # in a file: ten edges' memories
Count = Annotated[int, msgspec.Meta(ge=0, le=2**32 - 1)]
Seconds = Annotated[float, msgspec.Meta(ge=0, le=1e7)]
Slots = Annotated[int, msgspec.Meta(ge=1, le=1_000_000)]


class End(IntEnum):
    """How a request ended for its caller. Numbers go over the wire (proto/.../whatif.proto)."""

    UNKNOWN = 0
    SERVED = 1
    REFUSED = 2
    """For want of room, or of a replica."""
    LEFT = 3
    """The caller went away."""
    FAILED = 4
    """An error other than a refusal, or a broken stream."""
    REJECTED = 5
    """It was at fault itself (4xx)."""


class Arrival(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """One submission of a request; times are seconds."""

    at_s: float
    """Since the recording began; below 0 in the lead."""
    tenant: Count
    """Index into the head's tenants."""
    prompt_tokens: Count
    output_tokens: Count
    end: End
    is_stream: bool
    retry: Annotated[int, msgspec.Meta(ge=0, le=255)]
    """How often its caller had tried before."""
    wait_s: Seconds
    """In the edge's queue."""
    first_s: Seconds | None
    """From the arrival to the first data; None: none came, or it was no stream."""
    lasted_s: Seconds


class Tenant(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Who asked; `urgency` is trimtab.model.Urgency's number."""

    name: str
    urgency: int = 3


class Replica(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One engine that may get requests."""

    name: str
    max_num_seqs: Slots
    kv_cache_tokens: Count = 0
    """0: not known."""
    max_model_len_tokens: Count = 0
    """0: not known."""


class Policy(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The numbers that a simulation can change."""

    queue_limit: Annotated[int, msgspec.Meta(ge=1, le=1_000_000)] = 256
    queue_wait_s: Annotated[float, msgspec.Meta(gt=0, le=86_400)] = 45.0
    hedge: bool = False


class Head(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What the arrivals met."""

    trimtab_arrivals: int = FORMAT
    pool: str
    began_ms: Annotated[int, msgspec.Meta(ge=0)]
    """When the recording began, milliseconds since 1970."""
    span_s: Annotated[float, msgspec.Meta(gt=0, le=1e6)]
    lead_s: Seconds = 0.0
    """Arrivals before the beginning are of this time: they fill the model, and are not counted."""
    edges: Annotated[int, msgspec.Meta(ge=1, le=10_000)] = 1
    missing_s: Seconds = 0.0
    """So much more was asked for than edges remember."""
    silent: tuple[str, ...] = ()
    """Edges that did not answer: what they had is missing."""
    policy: Policy = Policy()
    replicas: Annotated[tuple[Replica, ...], msgspec.Meta(min_length=1)]
    tenants: tuple[Tenant, ...] = ()


class Recording(msgspec.Struct, frozen=True):
    """Arrivals in order."""

    head: Head
    arrivals: Sequence[Arrival]


def render(recording: Recording) -> bytes:
    """The file."""
    return msgspec.json.Encoder().encode_lines([recording.head, *recording.arrivals])


def parse(content: bytes) -> Recording:
    """A file's content; ValueError says what is wrong and where."""
    first, _, rest = content.partition(b"\n")
    try:
        version = msgspec.json.decode(first, type=_Version).trimtab_arrivals
    except msgspec.DecodeError:
        raise ValueError("it is no recording of arrivals (ctl simulate --save makes one)") from None
    if version != FORMAT:
        raise ValueError(f"its format is {version}, and this trimtab knows {FORMAT}")
    try:
        head = msgspec.json.decode(first, type=Head)
    except msgspec.DecodeError as error:
        raise ValueError(f"line 1: {error}") from None
    if rest.count(b"\n") > ARRIVALS_MAX:
        raise ValueError(f"it has more than {ARRIVALS_MAX} arrivals")
    try:
        arrivals = msgspec.json.Decoder(Arrival).decode_lines(rest)
    except msgspec.DecodeError as error:
        raise ValueError(f"an arrival is damaged: {error}") from None
    most = len(head.tenants)
    if any(arrival.tenant >= most for arrival in arrivals):
        raise ValueError(f"an arrival is of a tenant that is none of the head's {most}")
    return Recording(head, arrivals)


class _Version(msgspec.Struct):
    trimtab_arrivals: int
