"""edge/core/anthropic: the list of models in Anthropic's shape."""

from __future__ import annotations

import json

from edge.core import anthropic


def test_a_list() -> None:
    page = json.loads(anthropic.model_list(["claude-a", "b"]))
    assert (page["first_id"], page["last_id"], page["has_more"]) == ("claude-a", "b", False)
    assert page["data"][0] == {
        "type": "model",
        "id": "claude-a",
        "display_name": "claude-a",
        "created_at": "1970-01-01T00:00:00Z",
    }


def test_no_models_yet() -> None:
    page = json.loads(anthropic.model_list([]))
    assert (page["data"], page["first_id"], page["last_id"]) == ([], None, None)
