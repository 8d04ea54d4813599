"""What a simulation of recorded arrivals found: what `python -m sim whatif` tells ctl.

Rules: JSON, and stable: fields may come, none goes or changes its meaning; absent is null; times
are seconds, ratios 0 to 1; every figure is of the requests that came in the recording's span, and a
request is a caller's wish, however often it was submitted.
"""

from __future__ import annotations

from enum import StrEnum

import msgspec


class Nearness(StrEnum):
    """How near the model, left as it is, comes to what was measured."""

    NEAR = "near"
    ROUGH = "rough"
    """Directions can be trusted, sizes not."""
    OFF = "off"
    """Nothing that it says of a change is worth anything."""


class Figures(msgspec.Struct, frozen=True, kw_only=True):
    """How callers fared."""

    requests: int
    served: int
    refused: int
    left: int
    failed: int
    first_p50_s: float | None
    """To the first token, of streams, from the submission that was served."""
    first_p95_s: float | None
    first_p99_s: float | None
    whole_p50_s: float | None
    """To the end of the answer, of all."""
    whole_p95_s: float | None
    tokens_per_s: float
    """Of whole answers."""
    busy_ratio: float
    """Of the replicas' slots, on average."""

    @property
    def refused_ratio(self) -> float:
        """Of all requests."""
        return self.refused / self.requests if self.requests else 0.0


class Costs(msgspec.Struct, frozen=True, kw_only=True):
    """What a step of an engine was found to cost (docs/what-if.md)."""

    base_s: float
    per_sequence_s: float
    per_prefill_token_s: float
    answers: int
    """That this was found from."""
    varied: bool
    """Whether the load varied enough to tell base and per_sequence apart."""


class Found(msgspec.Struct, frozen=True, kw_only=True):
    """The answer."""

    pool: str
    began_ms: int
    span_s: float
    replicas: int
    edges: int
    nearness: Nearness
    remarks: tuple[str, ...]
    """What to know before one believes it, in words for people."""
    change: tuple[str, ...]
    """What was changed, in words; none: nothing."""
    measured: Figures
    model: Figures
    """As it is."""
    changed: Figures | None
    """None: nothing was changed, or the model is OFF."""
    costs: Costs
    took_s: float
