"""The processes behind an engine's port, as far as this machine shows them.

Rules: only for engines on this machine; everything blocks, so call it in a thread; whatever can't
be seen (other users' processes, containers) is None or False, never an error.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath

import psutil

from agent.core import flags

VLLM_PORT = 8000  # vLLM's default
ANCESTORS_LIMIT = 8
NUMBER_LIMIT = 1_000_000  # above any batch size and any port
_UNSEEN = (psutil.Error, OSError, NotImplementedError)


@dataclass(frozen=True, slots=True)
class EngineProcess:
    """The process that listens, and its kin."""

    pid: int
    created_s: float
    pids: frozenset[int]
    """It, the vLLM processes above it, and all below those: whose GPU memory is the engine's."""
    max_num_seqs: int | None
    """--max-num-seqs on the command line of it or of a vLLM process above it."""
    lines: tuple[tuple[str, ...], ...] = ()
    """Command lines of it and of the vLLM processes above it."""
    environment: Mapping[str, str] | None = None
    """Those of flags.SETTINGS that it was given; None: not ours to read."""
    listens: tuple[str, ...] = ()
    """Addresses on which the port is open."""
    strangers: int = 0
    """Other programs that listen on it as well."""
    open_files_limit: int | None = None


def is_local(host: str) -> bool:
    """Whether a URL's host is this machine."""
    try:
        found = {info[4][0] for info in socket.getaddrinfo(host, None)}
        own = {item.address for items in psutil.net_if_addrs().values() for item in items}
    except _UNSEEN:
        return False
    return any(item in own or ipaddress.ip_address(item).is_loopback for item in map(str, found))


def find(port: int) -> EngineProcess | None:
    """Who listens on the port."""
    try:
        sockets = [
            item
            for item in psutil.net_connections("tcp")
            if item.pid and item.status == psutil.CONN_LISTEN and item.laddr[1:] == (port,)
        ]
        if not sockets:
            return None
        listeners = {item.pid for item in sockets if item.pid}
        listener = psutil.Process(min(listeners))  # several API servers share the socket
        family = _family(listener)
        lines = [_command_line(process) for process in family]
        below = family[-1].children(recursive=True)
        pids = frozenset(process.pid for process in [*family, *below])
        return EngineProcess(
            pid=listener.pid,
            created_s=listener.create_time(),
            pids=pids,
            max_num_seqs=next((n for line in lines if (n := _max_num_seqs(line))), None),
            lines=tuple(map(tuple, lines)),
            environment=_environment(listener),
            listens=tuple(sorted({item.laddr.ip for item in sockets if item.laddr})),
            strangers=len(listeners - pids),
            open_files_limit=_open_files_limit(listener),
        )
    except _UNSEEN:
        return None


def loading(port: int, previous: EngineProcess | None) -> bool:
    """Whether a process is there that will listen on the port, younger than the previous one.

    An engine that was told to stop closes its port at once and lives on until its clients leave:
    that one is not loading.
    """
    try:
        return any(
            _port(process.info["cmdline"] or ()) == port
            and (previous is None or _younger(process, previous))
            for process in psutil.process_iter(["pid", "cmdline", "create_time"])
        )
    except _UNSEEN:
        return False


def _younger(process: psutil.Process, previous: EngineProcess) -> bool:
    created_s = process.info["create_time"]
    return process.pid not in previous.pids and (created_s or 0.0) > previous.created_s


def _family(listener: psutil.Process) -> list[psutil.Process]:
    """The listener and the vLLM processes that started it, oldest last."""
    family = [listener]
    for parent in listener.parents()[:ANCESTORS_LIMIT]:
        if not _is_vllm(_command_line(parent)):
            break
        family.append(parent)
    return family


def _command_line(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except _UNSEEN:
        return []


def _environment(process: psutil.Process) -> dict[str, str] | None:
    try:
        given = process.environ()
    except _UNSEEN:
        return None
    return {name: given[name] for name in flags.SETTINGS if name in given}


def _open_files_limit(process: psutil.Process) -> int | None:
    try:
        return int(process.rlimit(psutil.RLIMIT_NOFILE)[0])
    except _UNSEEN:
        return None


def _is_vllm(line: Sequence[str]) -> bool:
    return any(
        PurePath(word).name == "vllm" or word.startswith(("vllm.entrypoints", "VLLM::"))
        for word in line
    )


def _option(line: Sequence[str], name: str) -> int | None:
    """The number after --name or --name=."""
    text = flags.value(line, name)
    return min(int(text), NUMBER_LIMIT) if text.isdecimal() else None


def _max_num_seqs(line: Sequence[str]) -> int | None:
    return _option(line, "--max-num-seqs") or None


def _port(line: Sequence[str]) -> int | None:
    return _option(line, "--port") or (VLLM_PORT if _is_vllm(line) else None)
