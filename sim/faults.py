"""What can be wrong with a simulated engine: one record, switched while it runs.

Rules: pure; unknown names and wrong types are refused with a sentence; several faults may hold at
once. For instance `refuse` with `freeze` is what the clients of a vLLM see after its SIGTERM: the
port refuses, and their streams stay open and silent.
"""

from typing import Annotated, Any, Literal

import msgspec

Count = Annotated[int, msgspec.Meta(ge=0)]
Seconds = Annotated[float, msgspec.Meta(ge=0, le=3600)]


class Death(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The end of the process when any stream has `after_tokens` tokens; 0 means now."""

    after_tokens: Count = 0
    mode: Literal["api", "enginecore"] = "api"


class Faults(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The faults in force. The defaults are health."""

    refuse: bool = False
    """The listening socket is closed; open connections live on."""
    hang: bool = False
    """The API process is stopped: connects, never answers, streams fall silent."""
    freeze: bool = False
    """The engine core is stopped behind a live API: /health is 200, no tokens come."""
    slow: Annotated[float, msgspec.Meta(gt=0, le=1000)] = 1.0
    """Every step takes this many times as long."""
    reject: bool = False
    """Every request to generate is answered 503, engine busy."""
    queue_limit: Count | None = None
    """max_num_queued_reqs from now on."""
    error_rate: Annotated[float, msgspec.Meta(ge=0, le=1)] = 0.0
    """This share of the requests to generate is answered 500."""
    error_in_stream: Count | None = None
    """An answer fails once it has this many tokens: error event and [DONE], or a 500."""
    abort_after: Count | None = None
    """An answer ends with finish_reason "abort" once it has this many tokens."""
    empty_stream: bool = False
    """New requests are answered as during a drain: streams with [DONE] and nothing else."""
    die_mid_stream: Death | None = None
    """`api`: connections are cut and the port closes. `enginecore`: error events, then that."""


class Orders(msgspec.Struct, frozen=True, kw_only=True):
    """What is done once and not kept: start afresh, and how cold."""

    restart: bool = False
    cold_start_s: Seconds = 0.0
    """Implies restart: the port refuses for this long, then steps are slow for as long again."""


def read_change(current: Faults, posted: bytes) -> tuple[Faults, Orders]:
    """Merge a posted JSON object into the current faults; ValueError says what is wrong."""
    changes: dict[str, Any] = msgspec.json.decode(posted, type=dict[str, Any])
    orders = {name: changes.pop(name) for name in Orders.__struct_fields__ if name in changes}
    merged = msgspec.to_builtins(current) | changes
    return msgspec.convert(merged, Faults), msgspec.convert(orders, Orders)
