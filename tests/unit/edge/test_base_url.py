"""edge/core/base_url: a hint where another base_url would help, and only there."""

from __future__ import annotations

import pytest

from edge.core import base_url

SERVED = [
    *("POST /v1/chat/completions", "POST /v1/messages", "GET /v1/models", "GET /v1/models/{id}"),
    "POST /tokenize",
]


@pytest.mark.parametrize(
    ("path", "meant"),
    [
        ("/v1/v1/models", "/v1/models"),
        ("/v1/v1/v1/chat/completions", "/v1/chat/completions"),
        ("//v1/models", "/v1/models"),
        ("/v1//models", "/v1/models"),
        ("/v1/models/", "/v1/models"),
        ("/v1/v1/models/org/name", "/v1/models/org/name"),
        ("//v1//v1/models/", "/v1/models"),
        ("/chat/completions", "/v1/chat/completions"),
        ("/models", "/v1/models"),
        ("/v1/tokenize", ""),
        ("/v1/files", ""),
        ("/", ""),
        ("", ""),
        ("/v2/models", ""),
    ],
)
def test_the_path_that_was_meant(path: str, meant: str) -> None:
    said = base_url.hint(path, SERVED)
    assert said.startswith(f" You mean {meant}: your base_url should end in /v1") is bool(meant)
    assert bool(said) is bool(meant)


def test_anthropics_sdk_adds_v1_itself() -> None:
    assert "end before /v1" in base_url.hint("/v1/v1/messages", SERVED)
