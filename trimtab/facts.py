"""How processes, nodes and engines are set up, for `ctl doctor` to judge.

Rules: as in `trimtab.model` (proto/trimtab/v1/doctor.proto has meanings and units).
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ProcessFacts:
    """One process of ours."""

    at_ms: int = 0
    open_files: int = 0
    open_files_limit: int = 0
    certificate_expires_ms: int | None = None


@dataclass(frozen=True, slots=True)
class EngineSetup:
    """How an engine was started, as far as its agent may see it."""

    replica: str
    seen: bool = False
    listens: tuple[str, ...] = ()
    strangers: int = 0
    has_flags: bool = False
    shutdown_timeout_s: float | None = None
    max_num_seqs: int | None = None
    scheduling_policy: str = ""
    has_api_key: bool = False
    dev_mode: bool | None = None
    keep_alive_s: float | None = None
    open_files_limit: int | None = None


@dataclass(frozen=True, slots=True)
class NodeFacts:
    """What an agent tells of its node."""

    process: ProcessFacts
    engines: tuple[EngineSetup, ...] = ()


@dataclass(frozen=True, slots=True)
class PeerFacts:
    """Another process as the leader heard of it."""

    name: str
    ahead_s: float = 0.0
    process: ProcessFacts = ProcessFacts()
    engines: tuple[EngineSetup, ...] = ()
    error: str = ""


@dataclass(frozen=True, slots=True)
class FleetFacts:
    """All facts of a fleet."""

    leader: ProcessFacts
    store: str = ""
    store_read_s: float | None = None
    store_write_s: float | None = None
    store_error: str = ""
    agents: tuple[PeerFacts, ...] = ()
    edges: tuple[PeerFacts, ...] = ()
    uses_classes: bool = False
    queue_limit: int = 0
