"""The one configuration file: its schema and its reader.

Rules: every binary reads the same file and takes what concerns it; unknown keys are errors; every
error names line, column and what is allowed, all of them at once; secrets are references, so that
the file can live in git. docs/configuration.md is generated from this schema.
"""

from __future__ import annotations

import pathlib
from typing import Annotated

import msgspec
import yaml

Positive = Annotated[int, msgspec.Meta(ge=1)]
Seconds = Annotated[float, msgspec.Meta(gt=0, le=86_400)]


class Section(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Base of every part of the file."""


class Secret(Section, frozen=True):
    """A secret by reference: exactly one of `env` (a variable's name) and `file` (a path)."""

    env: str = ""
    file: str = ""


class Engine(Section, frozen=True):
    """One vLLM engine."""

    url: str
    """Base URL, like http://127.0.0.1:8000."""
    name: str = ""
    """The replica's name; by default <node>-<port>."""
    served_as: str = ""
    """Model name to ask it for; by default the first one it serves."""
    max_num_seqs: Positive | None = None
    """Requests it runs at once; by default read off its command line."""


class Pool(Section, frozen=True):
    """Replicas that serve one model under one public name."""

    name: str
    """The name clients ask for."""
    aliases: tuple[str, ...] = ()
    """Other names for it."""
    engines: tuple[Engine, ...] = ()
    """Its replicas."""


class Key(Section, frozen=True):
    """A key that may call; give its SHA-256 (hex) or a reference to its text."""

    name: str
    """What people call it."""
    sha256: str = ""
    """SHA-256 of the key's text, 64 hex digits."""
    key: Secret | None = None
    """Where the key's text is."""


class EdgeLimits(Section, frozen=True):
    """Limits and timers of every edge."""

    queue_limit: Positive = 256
    """Most requests that may wait for one pool at one edge."""
    queue_wait_s: Seconds = 45.0
    """Longest wait in that queue: 3/4 of the 60 s after which the common clients give up."""
    head_hold_s: Seconds = 10.0
    """A stream's status is held back this long at most, so that a refusal can still be a 503."""
    idle_timeout_s: Seconds = 120.0
    """A replica that sends nothing for this long has failed the request."""
    total_timeout_s: Seconds = 600.0
    """Longest time for one request; the official SDKs' own default."""
    body_limit_bytes: Positive = 64 * 1024 * 1024
    """Largest request body."""


class Config(Section, frozen=True):
    """The file."""

    fleet: str = "fleet"
    """The fleet's name, for display."""
    node: str = ""
    """This machine's name; by default its host name."""
    listen: str = "127.0.0.1:4000"
    """Where clients connect."""
    admin: str = "127.0.0.1:4001"
    """Where /metrics, /healthz and /readyz are."""
    controlplane: str = ""
    """gRPC target of the control plane: unix:/path or host:port."""
    state_dir: str = ""
    """Where state is kept."""
    report_period_s: Annotated[float, msgspec.Meta(ge=0.1, le=60)] = 0.5
    """How often agents read their engines."""
    pools: tuple[Pool, ...] = ()
    """Pools with names of their own."""
    engines: tuple[Engine, ...] = ()
    """Engines whose pool is named after the model they serve."""
    keys: tuple[Key, ...] = ()
    """Keys that may call; none means nobody may."""
    upstream_key: Secret | None = None
    """The engines' own --api-key, if they have one."""
    edge: EdgeLimits = EdgeLimits()
    """Limits and timers."""


def load(path: pathlib.Path) -> Config:
    """Read a file; raises ConfigError."""
    return msgspec.convert(yaml.safe_load(path.read_text()) or {}, Config)
