"""The processes behind an engine's port, as far as this machine shows them.

Rules: only for engines on this machine; everything blocks, so call it in a thread; whatever can't
be seen (other users' processes, containers) is None or False, never an error.
"""

from __future__ import annotations

import ipaddress
import itertools
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePath

import psutil

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
        listeners = {
            item.pid
            for item in psutil.net_connections("tcp")
            if item.pid and item.status == psutil.CONN_LISTEN and item.laddr[1:] == (port,)
        }
        if not listeners:
            return None
        listener = psutil.Process(min(listeners))  # several API servers share the socket
        family = _family(listener)
        lines = [_command_line(process) for process in family]
        below = family[-1].children(recursive=True)
        return EngineProcess(
            pid=listener.pid,
            created_s=listener.create_time(),
            pids=frozenset(process.pid for process in [*family, *below]),
            max_num_seqs=next((n for line in lines if (n := _max_num_seqs(line))), None),
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


def _is_vllm(line: Sequence[str]) -> bool:
    return any(
        PurePath(word).name == "vllm" or word.startswith(("vllm.entrypoints", "VLLM::"))
        for word in line
    )


def _option(line: Sequence[str], name: str) -> int | None:
    """The number after --name or --name=; vLLM takes underscores for hyphens, the last one wins."""
    found = None
    for word, following in itertools.pairwise([*line, ""]):
        option, equals, value = word.partition("=")
        if option.replace("_", "-") == name:
            text = value if equals else following
            found = min(int(text), NUMBER_LIMIT) if text.isdecimal() else None
    return found


def _max_num_seqs(line: Sequence[str]) -> int | None:
    return _option(line, "--max-num-seqs") or None


def _port(line: Sequence[str]) -> int | None:
    return _option(line, "--port") or (VLLM_PORT if _is_vllm(line) else None)
