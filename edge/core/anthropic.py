"""Lists of models as Anthropic's clients read them."""

from __future__ import annotations

from collections.abc import Sequence

from edge.core import openai

UNKNOWN_DATE = "1970-01-01T00:00:00Z"  # so Anthropic writes it, too


def model_card(name: str) -> dict[str, object]:
    """One model."""
    return {"type": "model", "id": name, "display_name": name, "created_at": UNKNOWN_DATE}


def model_list(names: Sequence[str]) -> bytes:
    """The body of GET /v1/models: one page of all."""
    page = {"data": [model_card(name) for name in names], "has_more": False}
    ends = {"first_id": names[0] if names else None, "last_id": names[-1] if names else None}
    return openai.encode(page | ends)
