"""trimtab/runtime/otlp_settings: the file first, then OpenTelemetry's own variables."""

from __future__ import annotations

import pathlib
from typing import Any

import pytest

from trimtab.runtime import otlp_settings
from trimtab.runtime.config import Otlp, Secret
from trimtab.runtime.service import ConfigError

ENV = "OTEL_EXPORTER_OTLP_"
FILE, THERE = "http://file:4317", "http://env:4318"
BY_ENV = {f"{ENV}ENDPOINT": THERE}


def found(section: Otlp, environ: dict[str, str]) -> Any:
    return otlp_settings.find(section, environ, "edge", "edge-1")


@pytest.mark.parametrize(
    ("section", "environ", "endpoint", "http"),
    [
        (Otlp(), {}, "", False),
        (Otlp(endpoint=FILE), {}, FILE, False),
        (Otlp(endpoint=FILE, http=True), {}, FILE, True),
        (Otlp(), BY_ENV, THERE, False),
        (Otlp(), BY_ENV | {f"{ENV}PROTOCOL": "http/protobuf"}, THERE, True),
        (Otlp(endpoint=FILE), BY_ENV | {f"{ENV}PROTOCOL": "http/protobuf"}, FILE, False),
        (Otlp(endpoint=FILE), {"OTEL_SDK_DISABLED": "true"}, "", False),
    ],
)
def test_where(section: Otlp, environ: dict[str, str], endpoint: str, http: bool) -> None:
    settings = found(section, environ)
    assert (settings.endpoint, settings.http) == (endpoint, http) if endpoint else settings is None


def test_who_and_with_what(tmp_path: pathlib.Path) -> None:
    token = tmp_path / "token"
    token.write_text("secret\n")
    environ = {
        f"{ENV}HEADERS": "x-team=lab%20one, authorization=Basic%20eA",
        f"{ENV}CERTIFICATE": "/etc/ca.pem",
        "OTEL_RESOURCE_ATTRIBUTES": "deployment.environment=test,service.name=ours",
    }
    settings = found(Otlp(endpoint=FILE, token=Secret(file=str(token))), environ)
    assert settings.headers == {"x-team": "lab one", "authorization": "Bearer secret"}
    assert settings.ca == "/etc/ca.pem"
    assert settings.resource["service.name"] == "ours"
    assert settings.resource["service.instance.id"] == "edge-1"
    assert settings.resource["deployment.environment"] == "test"
    assert "secret" not in repr(settings)


@pytest.mark.parametrize(
    ("environ", "said"),
    [
        ({f"{ENV}ENDPOINT": "collector"}, "not a URL"),
        (BY_ENV | {f"{ENV}PROTOCOL": "http/json"}, "grpc, http/protobuf"),
        (BY_ENV | {f"{ENV}HEADERS": "s3cret"}, "key=value"),
    ],
)
def test_what_is_wrong_is_said_without_its_secrets(environ: dict[str, str], said: str) -> None:
    with pytest.raises(ConfigError, match=said) as error:
        found(Otlp(), environ)
    assert "s3cret" not in str(error.value)
