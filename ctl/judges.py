"""What `ctl doctor` makes of the facts: one judge a question, each pure.

Rules: a finding is one line, names what it is about, and has the line to change; what can't be seen
is not judged; a judge that finds nothing wrong says in a line what it looked at.
"""

from __future__ import annotations

import ipaddress
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from enum import Enum

from ctl.columns import span
from trimtab.facts import EngineSetup, FleetFacts, PeerFacts, ProcessFacts
from trimtab.model import LimitSource
from trimtab.views import Fleet, ReplicaView

SKEW_WARN_S, SKEW_BAD_S = 1.0, 30.0  # events of one moment sort; certificates are valid from now
WRITE_WARN_S, WRITE_BAD_S = 0.1, 0.7  # a leader's lease is renewed every 0.5 s and lasts 2 s
CERTIFICATE_WARN_DAYS, CERTIFICATE_BAD_DAYS = 14.0, 3.0
RENEWED_RATIO = 0.25  # ours are renewed when a third of their life is left
FILES_PER_REQUEST = 2  # the caller's connection and the engine's
FILES_SPARE = 256
ENGINE_FILES = 4_096
KEEP_ALIVE_LEAST_S = 4.5  # edges and agents let connections idle for 4 s
KEEP_ALIVE_S = 5.0  # vLLM's default
OLDEST_SHUTDOWN = (0, 18)  # vLLM before that has no --shutdown-timeout
DAY_MS = 86_400_000


class Level(Enum):
    """How bad a finding is."""

    OK = "ok"
    WARN = "warn"
    BAD = "bad"


@dataclass(frozen=True, slots=True)
class Finding:
    """One line, and the line to change."""

    level: Level
    check: str
    about: str
    text: str
    change: str = ""


@dataclass(frozen=True, slots=True)
class Certificate:
    """One that the fleet issued, the newest of its holder."""

    holder: str
    expires_in_ms: int


@dataclass(frozen=True, slots=True)
class Case:
    """Everything that is known; `at_ms` is the clock of this machine as the leader answered."""

    fleet: Fleet
    facts: FleetFacts
    version: str
    at_ms: int
    certificates: tuple[Certificate, ...] = ()
    life_ms: int = 7 * DAY_MS
    engines: dict[str, EngineSetup] = field(default_factory=dict)

    def engine(self, replica: ReplicaView) -> EngineSetup:
        """How it was started; nothing when that is not known."""
        return self.engines.get(replica.route.replica) or EngineSetup(replica.route.replica)


Judge = Callable[[Case], Iterator[Finding]]


def bound(case: Case) -> Iterator[Finding]:
    """Whether others than we can reach an engine."""
    for replica in case.fleet.replicas:
        setup, name = case.engine(replica), replica.route.replica
        open_to = [at for at in setup.listens if not _loopback(at)]
        if not open_to or (_host(replica.route.url) in open_to and setup.has_api_key):
            continue
        where = f"listens on {', '.join(open_to)}"
        change = "vllm serve … --host 127.0.0.1   (or a firewall that lets only edges in)"
        if setup.has_flags and not setup.has_api_key:
            text = f"{where} without an API key: anybody there may use it past the edge"
            yield Finding(Level.BAD, "exposure", name, text, change)
        else:
            text = f"{where}: /metrics, /tokenize, /score, /pooling ask for no key there"
            yield Finding(Level.WARN, "exposure", name, text, change)


def dev_mode(case: Case) -> Iterator[Finding]:
    """Whether an engine lets anybody steer it."""
    for replica in case.fleet.replicas:
        if case.engine(replica).dev_mode:
            text = "VLLM_SERVER_DEV_MODE is on: who reaches it may pause, sleep and reload it"
            change = "unset VLLM_SERVER_DEV_MODE, and restart the engine"
            yield Finding(Level.BAD, "dev mode", replica.route.replica, text, change)


def shutdown(case: Case) -> Iterator[Finding]:
    """Whether stopping an engine cuts what runs on it."""
    for replica in case.fleet.replicas:
        setup = case.engine(replica)
        has_it = _minor(replica.vllm_version) >= OLDEST_SHUTDOWN
        if setup.has_flags and not setup.shutdown_timeout_s and has_it:
            text = "--shutdown-timeout is 0: a restart cuts the streams that run on it"
            change = "vllm serve … --shutdown-timeout 300   (and: ctl drain before you stop it)"
            yield Finding(Level.WARN, "shutdown", replica.route.replica, text, change)


def batch(case: Case) -> Iterator[Finding]:
    """Whether we know how many requests an engine runs."""
    for replica in case.fleet.replicas:
        name, known, source = (
            replica.route.replica,
            case.engine(replica).max_num_seqs,
            replica.max_num_seqs_source,
        )
        if source is LimitSource.CONFIG and known and known != replica.max_num_seqs:
            text = f"max_num_seqs says {replica.max_num_seqs}, its command line {known}"
            change = f"max_num_seqs: {known}   in the agent's file, or leave it out"
            yield Finding(Level.BAD, "batch size", name, text, change)
        elif source is LimitSource.ASSUMED and replica.max_num_seqs:
            text = f"its batch size is not known, and taken to be {replica.max_num_seqs}"
            change = "max_num_seqs: N   with the engine in the agent's file"
            yield Finding(Level.WARN, "batch size", name, text, change)


def classes(case: Case) -> Iterator[Finding]:
    """Whether engines heed the urgency that keys have."""
    for replica in case.fleet.replicas if case.facts.uses_classes else ():
        setup = case.engine(replica)
        if setup.has_flags and setup.scheduling_policy != "priority":
            text = "keys have urgencies, and it runs first come, first served"
            change = "vllm serve … --scheduling-policy priority"
            yield Finding(Level.WARN, "classes", replica.route.replica, text, change)


def keep_alive(case: Case) -> Iterator[Finding]:
    """Whether an engine closes connections that we still mean to use."""
    for replica in case.fleet.replicas:
        kept_s = case.engine(replica).keep_alive_s
        if kept_s is not None and kept_s < KEEP_ALIVE_LEAST_S:
            text = f"it closes idle connections after {kept_s:g} s, and edges keep them for 4 s"
            change = f"VLLM_HTTP_TIMEOUT_KEEP_ALIVE={KEEP_ALIVE_S:g}, or leave it out"
            yield Finding(Level.BAD, "keep-alive", replica.route.replica, text, change)


def ports(case: Case) -> Iterator[Finding]:
    """Whether two programs share a port."""
    for replica in case.fleet.replicas:
        strangers = case.engine(replica).strangers
        if strangers:
            text = f"{strangers} other program(s) listen on the port of {replica.route.url}"
            change = f"ss -ltnp 'sport = :{replica.route.url.rpartition(':')[2]}'   then move one"
            yield Finding(Level.BAD, "ports", replica.route.replica, text, change)


def versions(case: Case) -> Iterator[Finding]:
    """Whether what works together is of one version."""
    own = [(edge.edge, edge.edge_version) for edge in case.fleet.edges]
    own += [(agent.node, agent.agent_version) for agent in case.fleet.agents]
    for name, version in [*own, ("ctl", case.version)]:
        if version and version != case.fleet.controlplane_version:
            text = f"runs {version}, and the leader {case.fleet.controlplane_version}"
            change = "upgrade it (docs/upgrade.md); one minor version apart works"
            yield Finding(Level.WARN, "versions", name, text, change)
    for pool in case.fleet.pools:
        inside = [r for r in case.fleet.replicas if r.route.pool == pool.pool and r.vllm_version]
        usual = Counter(replica.vllm_version for replica in inside).most_common(1)
        for replica in inside:
            if replica.vllm_version != usual[0][0]:
                text = f"vLLM {replica.vllm_version}, and {usual[0][0]} in the rest of {pool.pool}"
                change = "the same vLLM for all of a pool, or answers differ by luck"
                yield Finding(Level.WARN, "versions", replica.route.replica, text, change)


def files(case: Case) -> Iterator[Finding]:
    """Whether processes may open as many connections as there may be requests."""
    slots = sum(replica.full_slots or replica.limit_slots for replica in case.fleet.replicas)
    waiting = case.facts.queue_limit * max(1, len(case.fleet.pools))
    needed = FILES_PER_REQUEST * (slots + waiting) + FILES_SPARE
    for edge in case.facts.edges:
        yield from _few_files(edge, needed, "trimtab-edge")
    peers = len(case.fleet.edges) + len(case.fleet.agents)
    leader = PeerFacts(case.fleet.leader, process=case.facts.leader)
    yield from _few_files(leader, 4 * peers + FILES_SPARE, "trimtab-controlplane")
    for replica in case.fleet.replicas:
        limit = case.engine(replica).open_files_limit
        if limit is not None and limit < ENGINE_FILES:
            text = f"the engine may open {limit} files and connections"
            change = "LimitNOFILE=65536   in its unit, or ulimit -n 65536 before it"
            yield Finding(Level.WARN, "files", replica.route.replica, text, change)


def clocks(case: Case) -> Iterator[Finding]:
    """Whether everybody means the same moment."""
    peers = [(peer.name, peer.ahead_s) for peer in (*case.facts.agents, *case.facts.edges)]
    here_s = (case.at_ms - case.facts.leader.at_ms) / 1000
    for name, ahead_s in [*peers, ("this machine", here_s)]:
        if abs(ahead_s) >= SKEW_WARN_S:
            level = Level.BAD if abs(ahead_s) >= SKEW_BAD_S else Level.WARN
            side = "ahead of" if ahead_s > 0 else "behind"
            text = f"its clock is {span(round(abs(ahead_s) * 1000))} {side} the leader's"
            yield Finding(level, "clocks", name, text, "timedatectl set-ntp true   there")


def store(case: Case) -> Iterator[Finding]:
    """Whether the store is quick enough for whoever leads by it."""
    facts, about = case.facts, case.facts.store or "store"
    if facts.store_error:
        text = f"it can't be used: {facts.store_error}"
        change = "its disk and its own log; routing goes on, changes wait"
        yield Finding(Level.BAD, "store", about, text, change)
    elif facts.store_write_s is not None and facts.store_write_s >= WRITE_WARN_S:
        level = Level.BAD if facts.store_write_s >= WRITE_BAD_S else Level.WARN
        text = f"a write took {facts.store_write_s * 1000:.0f} ms"
        yield Finding(level, "store", about, text, "a disk of its own, with fast fsync")


def certificates(case: Case) -> Iterator[Finding]:
    """Whether one ends before somebody renews it."""
    for held in case.certificates:
        if held.expires_in_ms < RENEWED_RATIO * case.life_ms:
            level = Level.BAD if held.expires_in_ms < case.life_ms / 10 else Level.WARN
            text = f"its certificate ends in {span(held.expires_in_ms)} and was not renewed"
            change = "is it running, and does it reach the control plane? Else: trimtab join again"
            yield Finding(level, "certificates", held.holder, text, change)
    for edge in case.facts.edges:
        ends_ms = edge.process.certificate_expires_ms
        left_days = None if ends_ms is None else (ends_ms - case.facts.leader.at_ms) / DAY_MS
        if left_days is not None and left_days < CERTIFICATE_WARN_DAYS:
            level = Level.BAD if left_days < CERTIFICATE_BAD_DAYS else Level.WARN
            words = "has expired" if left_days < 0 else f"ends in {left_days:.1f} days"
            text = f"the certificate that clients see {words}"
            change = "renew the file that edge.tls.cert names; it is taken while the edge runs"
            yield Finding(level, "certificates", edge.name, text, change)


def gpus(case: Case) -> Iterator[Finding]:
    """Whether agents can read their GPUs."""
    for agent in case.fleet.agents:
        if agent.gpu_detail:
            text = f"its GPUs can't be read: {agent.gpu_detail}"
            change = "nvidia-smi   there must work for the agent's user; fine without GPUs"
            yield Finding(Level.WARN, "gpus", agent.node, text, change)


def peers(case: Case) -> Iterator[Finding]:
    """Whether everybody answers."""
    for peer in (*case.facts.agents, *case.facts.edges):
        if peer.error:
            text = f"it does not say how it is set up: {peer.error}"
            yield Finding(Level.WARN, "answers", peer.name, text, "upgrade it, or look at its log")
    for agent in case.fleet.agents:
        if not agent.connected:
            text = "its agent is not connected"
            change = "systemctl status trimtab-agent   there"
            yield Finding(Level.WARN, "answers", agent.node, text, change)


# In the order in which they are told, with what was looked at when nothing is wrong.
JUDGES: dict[str, tuple[Judge, str]] = {
    "answers": (peers, "every agent and edge says how it is set up"),
    "store": (store, "reads and writes are quick"),
    "clocks": (clocks, f"all within {SKEW_WARN_S:g} s"),
    "certificates": (certificates, "none ends soon"),
    "versions": (versions, "everybody runs the same"),
    "files": (files, "everybody may open enough files and connections"),
    "ports": (ports, "every port is one program's"),
    "gpus": (gpus, "agents read their GPUs"),
    "exposure": (bound, "no engine is open to others"),
    "dev mode": (dev_mode, "off, as far as agents can see"),
    "shutdown": (shutdown, "engines end what runs on them before they stop"),
    "batch size": (batch, "known of every engine"),
    "classes": (classes, "engines heed the urgency of keys, or no key has one"),
    "keep-alive": (keep_alive, "engines keep connections longer than edges do"),
}


def judge(case: Case) -> list[Finding]:
    """Everything that was found, and what was looked at in vain."""
    found: list[Finding] = []
    for check, (ask, fine) in JUDGES.items():
        problems = list(ask(case))
        found += problems or [Finding(Level.OK, check, "fleet", fine)]
    return found


def _few_files(peer: PeerFacts, needed: int, unit: str) -> Iterator[Finding]:
    process: ProcessFacts = peer.process
    if 0 < process.open_files_limit < needed:
        near = process.open_files > process.open_files_limit * 3 / 4
        text = f"it may open {process.open_files_limit} files, has {process.open_files}"
        text += f", and could need {needed}"
        change = f"LimitNOFILE=262144   in the unit of {unit}, or ulimit -n 262144 before it"
        yield Finding(Level.BAD if near else Level.WARN, "files", peer.name, text, change)


def _loopback(address: str) -> bool:
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return False


def _host(url: str) -> str:
    return url.partition("//")[2].rpartition(":")[0].strip("[]")


def _minor(version: str) -> tuple[int, int]:
    """Its first two numbers; of one that can't be read, the newest."""
    parts = version.split(".")[:2]
    if len(parts) == 2 and all(part.isdecimal() for part in parts):
        return int(parts[0]), int(parts[1])
    return (1_000, 0)
