"""`trimtab up --serve MODEL`: which vLLM processes to run, and with which flags. Pure.

Rules: a flag that Trimtab has to decide, or that takes away what it steers by, is refused with the
reason; what it recommends (docs/doctor.md) holds unless the operator says otherwise; an engine
listens on loopback only, and its key goes to it by its environment.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath

from standalone.supervisor import Spec
from trimtab.runtime.config import Engine
from trimtab.runtime.service import ConfigError

FIRST_PORT = 8200  # beyond those where we look for vLLM, and the demo's
ENGINES_MAX = 64
STOP_GRACE_S = 25.0
"""An engine is stopped after the edges, so nothing runs in it: 2 s, were it not for its GPU."""
RECOMMENDED = {
    "--max-num-seqs": "256",  # vLLM's own default differs by GPU, and who steers has to know it
    "--shutdown-timeout": "60",  # 0, the default, cuts the streams of an engine that is stopped
}
_PLACE = "engines listen on loopback, on ports that Trimtab finds"
_TLS = "on loopback engines are spoken to by plain HTTP; edge.tls encrypts what clients see"
_SPREAD = "Trimtab spreads requests itself: each GPU has an engine of its own"
REFUSED = {
    "--host": _PLACE,
    "--port": _PLACE,
    "--uds": _PLACE,
    "--root-path": _PLACE,
    "--model": "the model is what --serve names",
    "--api-key": "keys of clients are Trimtab's; one for the engines goes into "
    "TRIMTAB_UPSTREAM_KEY or upstream_key",
    "--ssl-keyfile": _TLS,
    "--ssl-certfile": _TLS,
    "--disable-log-stats": "without it an engine has metrics, and those are what Trimtab steers by",
    "--headless": "an engine without HTTP can't be asked",
    "--grpc": "an engine without HTTP can't be asked",
    "--data-parallel-size": _SPREAD,
    "-dp": _SPREAD,
}
_PARALLEL = (
    ("--tensor-parallel-size", "-tp"),
    ("--pipeline-parallel-size", "-pp"),
)


@dataclass(frozen=True, slots=True)
class Wish:
    """What the command line says of it."""

    model: str = ""
    gpus: str = ""
    engines: int = 0
    """On the CPU; 0: one on each GPU, or one on the CPU of a machine without."""
    command: str = ""
    flags: tuple[str, ...] = ()


NOTHING = Wish()


@dataclass(frozen=True, slots=True)
class Machine:
    """What is there to serve with."""

    command: str
    """The `vllm` program."""
    gpus: tuple[int, ...] = ()
    """Those to use; empty: the CPU."""
    cores: tuple[int, ...] = ()


def check(wish: Wish) -> None:
    """Whether it can be done at all; raises ConfigError."""
    if not wish.model:
        for name, given in (("--gpus", wish.gpus), ("--vllm", wish.command), ("--", wish.flags)):
            if given:
                raise ConfigError(f"{name} is about engines that are started: give --serve MODEL")
        if wish.engines:
            raise ConfigError("--engines is about engines that are started: give --serve MODEL")
        return
    if wish.gpus and wish.engines:
        raise ConfigError("--engines are on the CPU, --gpus on GPUs: give one of them")
    if not 0 <= wish.engines <= ENGINES_MAX:
        raise ConfigError(f"--engines {wish.engines}: 1 to {ENGINES_MAX}")
    if wish.flags and not wish.flags[0].startswith("-"):
        raise ConfigError(
            f"{wish.flags[0]}: what follows -- are flags of vLLM, like --max-num-seqs"
        )
    for name in _given(wish.flags):
        if why := REFUSED.get(name):
            raise ConfigError(f"{name} can't be given to vLLM here: {why}")
    indexes(wish.gpus)
    _gpus_each(wish)


def indexes(text: str) -> tuple[int, ...]:
    """The GPUs in `0,1`; raises ConfigError."""
    words = text.split(",") if text else []
    if not all(word.isdecimal() for word in words) or len(set(words)) < len(words):
        raise ConfigError(f"--gpus {text}: indexes as nvidia-smi shows them, like 0,1")
    return tuple(map(int, words))


def names(wish: Wish) -> tuple[str, ...]:
    """What clients may call the model, the pool's own name first."""
    served = _given(wish.flags).get("--served-model-name")
    # a folder's name, without the path that the engine itself would show
    local = wish.model.startswith(("/", ".", "~"))
    return tuple(served) if served else (PurePath(wish.model).name if local else wish.model,)


def engines(
    wish: Wish, machine: Machine, ports: Sequence[int], key: str
) -> tuple[list[Engine], list[Spec]]:
    """The engines as the configuration names them, and the processes that are them."""
    found, specs = [], []
    for place, port in zip(places(wish, machine), ports, strict=True):
        name, env = place
        found.append(Engine(url=f"http://127.0.0.1:{port}", name=name))
        line = shlex.join(command_line(wish, machine.command, port))
        if key:
            env = {**env, "VLLM_API_KEY": key}
        keeper = (sys.executable, "-P", "-m", "standalone.keeper", str(port), line)
        specs.append(Spec(name, keeper, STOP_GRACE_S, env, loads=True))
    return found, specs


def command_line(wish: Wish, command: str, port: int) -> list[str]:
    """vLLM's; of a flag that is given twice it takes the last."""
    given = _given(wish.flags)
    served = [] if "--served-model-name" in given else ["--served-model-name", *names(wish)]
    advice = [word for item in RECOMMENDED.items() if item[0] not in given for word in item]
    where = ["--host", "127.0.0.1", "--port", str(port)]
    return [command, "serve", wish.model, *served, *advice, *wish.flags, *where]


def places(wish: Wish, machine: Machine) -> list[tuple[str, dict[str, str]]]:
    """Name and environment of each engine; raises ConfigError."""
    if not machine.gpus:
        return _on_cpu(max(wish.engines, 1), machine.cores)
    each = _gpus_each(wish)
    if len(machine.gpus) % each:
        raise ConfigError(f"an engine takes {each} GPUs, and {len(machine.gpus)} are to be used")
    groups = [machine.gpus[first : first + each] for first in range(0, len(machine.gpus), each)]
    return [(f"gpu{group[0]}", _visible(group)) for group in groups]


def _visible(gpus: Sequence[int]) -> dict[str, str]:
    # by bus, as NVML and nvidia-smi count them; CUDA's own order begins with the fastest
    shown = ",".join(map(str, gpus))
    return {"CUDA_DEVICE_ORDER": "PCI_BUS_ID", "CUDA_VISIBLE_DEVICES": shown}


def _on_cpu(count: int, cores: Sequence[int]) -> list[tuple[str, dict[str, str]]]:
    """Each with cores of its own where there are several: vLLM would bind all to the same ones."""
    shares = [",".join(map(str, cores[number::count])) for number in range(count)]
    bound = count > 1 and all(shares)
    return [
        (f"cpu{number}", {"VLLM_CPU_OMP_THREADS_BIND": share} if bound else {})
        for number, share in enumerate(shares)
    ]


def _gpus_each(wish: Wish) -> int:
    given, product = _given(wish.flags), 1
    for known in _PARALLEL:
        for text in (given[name] for name in known if name in given):
            if len(text) != 1 or not text[0].isdecimal() or not 1 <= int(text[0]) <= ENGINES_MAX:
                raise ConfigError(f"{known[0]} {' '.join(text)}: a number from 1, please")
            product *= int(text[0])
    return product


def _given(flags: Sequence[str]) -> Mapping[str, list[str]]:
    """Flags and what follows each; vLLM takes underscores for hyphens, and `=` for a space."""
    given: dict[str, list[str]] = {}
    name = ""
    for word in flags:
        if word.startswith("-"):
            name, equals, text = word.partition("=")
            name = name.replace("_", "-")
            given[name] = [text] if equals else []
        elif name:
            given[name].append(word)
    return given
