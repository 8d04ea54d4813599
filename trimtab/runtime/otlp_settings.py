"""Where OTLP goes: the configuration's `otlp`, and OpenTelemetry's variables for what that leaves.

Of these: OTEL_SDK_DISABLED, OTEL_EXPORTER_OTLP_{ENDPOINT,PROTOCOL,HEADERS,CERTIFICATE},
OTEL_RESOURCE_ATTRIBUTES. Rule: what the file says goes before what the environment says.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from urllib.parse import unquote

from trimtab import conventions
from trimtab.runtime import config as file
from trimtab.runtime import shapes
from trimtab.runtime.service import ConfigError

ENV = "OTEL_EXPORTER_OTLP_"
PROTOCOLS = ("grpc", "http/protobuf")


@dataclass(frozen=True, slots=True)
class Otlp:
    """All that exporting takes."""

    endpoint: str
    http: bool = False
    ca: str = ""
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    resource: Mapping[str, str] = field(default_factory=dict)
    ratio: float = 1.0
    slow_s: float = 30.0
    metrics_period_s: float = 60.0


def find(section: file.Otlp, environ: Mapping[str, str], service: str, name: str) -> Otlp | None:
    """What to do, None if nothing; of one process of a service. Raises ConfigError."""
    endpoint = section.endpoint or environ.get(f"{ENV}ENDPOINT", "")
    if not endpoint or environ.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return None
    if problem := shapes.otlp_problem(endpoint):
        raise ConfigError(f"{ENV}ENDPOINT: {problem}")
    protocol = environ.get(f"{ENV}PROTOCOL", PROTOCOLS[0])
    if protocol not in PROTOCOLS:
        raise ConfigError(f"{ENV}PROTOCOL: {protocol!r} is none of {', '.join(PROTOCOLS)}")
    headers = _pairs(environ, f"{ENV}HEADERS")
    if section.token:
        headers["authorization"] = f"Bearer {file.resolve(section.token, 'otlp.token')}"
    resource = {
        conventions.SERVICE_NAME: f"trimtab-{service}",
        conventions.SERVICE_INSTANCE: name,
        conventions.SERVICE_VERSION: version("trimtab"),
    }
    return Otlp(
        endpoint=endpoint,
        http=section.http or (not section.endpoint and protocol != PROTOCOLS[0]),
        ca=section.ca or environ.get(f"{ENV}CERTIFICATE", ""),
        headers=headers,
        resource=resource | _pairs(environ, "OTEL_RESOURCE_ATTRIBUTES"),
        ratio=section.ratio,
        slow_s=section.slow_s,
        metrics_period_s=section.metrics_period_s,
    )


def _pairs(environ: Mapping[str, str], name: str) -> dict[str, str]:
    """`a=b,c=d`, percent-encoded; errors repeat no value: it may be a secret."""
    pairs = {}
    for part in filter(None, environ.get(name, "").split(",")):
        key, equals, value = part.partition("=")
        if not equals or not key.strip():
            raise ConfigError(f"{name}: must look like key=value,other=value")
        pairs[unquote(key.strip())] = unquote(value.strip())
    return pairs
