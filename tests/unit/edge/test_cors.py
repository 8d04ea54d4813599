"""edge/core/cors: off unless listed, exact, without a key."""

from __future__ import annotations

import pytest

from edge.core import cors

PAGE = "https://portal.lab"
ORIGINS = frozenset({PAGE, "http://localhost:3000"})
ASKS = {"origin": PAGE, "access-control-request-method": "POST"}


def test_off_means_nothing_at_all() -> None:
    assert cors.on_answers((), {"origin": PAGE}) == {}
    assert cors.preflight((), "OPTIONS", ASKS) is None


@pytest.mark.parametrize(
    "origin",
    ["https://evil.example", "null", "", "*", PAGE + ".evil.example", PAGE + "/", PAGE.upper()],
)
def test_another_origin_sees_nothing(origin: str) -> None:
    assert cors.on_answers(ORIGINS, {"origin": origin}) == {"vary": "origin"}
    assert cors.preflight(ORIGINS, "OPTIONS", ASKS | {"origin": origin}) is None


def test_a_listed_origin_may_read_what_sdks_need() -> None:
    said = cors.on_answers(ORIGINS, {"origin": PAGE})
    assert said["access-control-allow-origin"] == PAGE
    exposed = said["access-control-expose-headers"].split(", ")
    assert {"x-request-id", "retry-after", "retry-after-ms", "x-should-retry"} <= set(exposed)
    assert "access-control-allow-credentials" not in said


def test_a_preflight_grants_the_headers_that_an_sdk_sends() -> None:
    wanted = "authorization,content-type, x-stainless-lang"
    granted = cors.preflight(ORIGINS, "OPTIONS", ASKS | {"access-control-request-headers": wanted})
    assert granted is not None
    assert granted["access-control-allow-headers"] == wanted
    assert granted["access-control-allow-methods"] == "GET, POST"


@pytest.mark.parametrize("wanted", ["", "a b", "a\r\nset-cookie: x", ",".join(["a"] * 99), "é"])
def test_headers_that_make_no_sense_are_not_repeated(wanted: str) -> None:
    granted = cors.preflight(ORIGINS, "OPTIONS", ASKS | {"access-control-request-headers": wanted})
    assert granted is not None
    assert "access-control-allow-headers" not in granted


def test_other_requests_are_no_preflights() -> None:
    assert cors.preflight(ORIGINS, "POST", ASKS) is None
    assert cors.preflight(ORIGINS, "OPTIONS", {"origin": PAGE}) is None
