"""Which processes make a fleet on one box, and with which arguments. Pure.

`-P` keeps the working directory off the import path: a folder of the user's called `agent` must
not be taken for ours.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from standalone.state import State
from standalone.supervisor import Spec
from trimtab.runtime.config import Config, Engine

DEMO_ENGINES = 2
DEMO_PORT = 8100  # beyond those where we look for vLLM
DEMO_MODEL = "demo"
# The edge lets requests end before it ends, for edge.drain_s.
_EDGE_MARGIN_S = 5.0
_DEMO_SLOTS = 16


def demo_engines(ports: Sequence[int]) -> list[Engine]:
    """The simulated engines as the configuration names them."""
    return [Engine(url=f"http://127.0.0.1:{port}", name=_demo_name(port, ports)) for port in ports]


def demo(ports: Sequence[int]) -> list[Spec]:
    """The processes of the simulated engines."""
    # the slots are the preset's own; said on the command line, where the agent reads them
    flags = ("--served-model-name", DEMO_MODEL, "--max-num-seqs", str(_DEMO_SLOTS))
    return [
        Spec(_demo_name(port, ports), _module("sim.engine_http", "--port", str(port), *flags))
        for port in ports
    ]


def services(state: State, config: Config) -> list[Spec]:
    """Control plane, agent, edge: each needs the one before it."""
    file, target = ("--config", str(state.config)), ("--controlplane", state.control_target)
    address = ("--listen", config.listen, "--admin", config.admin)
    edge = _module("edge", *file, *target, *address, "--state", str(state.root))
    listen = ("--listen", state.control_target)
    return [
        Spec("controlplane", _module("controlplane", *file, *listen, "--store", str(state.store))),
        Spec("agent", _module("agent", *file, *target)),
        *(
            Spec(name, (*edge, *worker), stop_grace_s=config.edge.drain_s + _EDGE_MARGIN_S)
            for name, worker in _workers(config.edge.workers)
        ),
    ]


def _workers(count: int) -> list[tuple[str, tuple[str, ...]]]:
    """Names and flags of the edges."""
    if count == 1:
        return [("edge", ())]
    return [(f"edge-{number}", ("--worker", str(number))) for number in range(1, count + 1)]


def _demo_name(port: int, ports: Sequence[int]) -> str:
    return f"demo-{list(ports).index(port) + 1}"


def _module(name: str, *args: str) -> tuple[str, ...]:
    return (sys.executable, "-P", "-m", name, *args)
