"""Which engines the fleet serves with: those it starts for --serve, else the named ones, else those
found here, else simulated ones.

Rule: whatever was decided is said, and a simulated engine never passes for a real one.
"""

from __future__ import annotations

import asyncio
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass

from standalone import banner, discover, fleet, machine, ports, serving
from standalone.config import Plan
from standalone.state import State
from standalone.supervisor import Spec
from trimtab.runtime import config as file
from trimtab.runtime.clock import now_s

MODEL_WAIT_S = 3.0
_MODEL_POLL_S = 0.1


@dataclass(frozen=True, slots=True)
class Engines:
    """What the fleet serves with: engines to add to the plan's, and processes to run for them."""

    added: tuple[file.Engine, ...] = ()
    specs: tuple[Spec, ...] = ()
    model: str = ""
    wait_s: float = MODEL_WAIT_S
    """For a replica to be in rotation: endless for what loads."""


async def choose(todo: Plan, place: State, console: banner.Console) -> Engines:
    """The engines of the plan, else those found on this machine, else simulated ones."""
    if todo.serve.model:
        return _serve(todo, place, console)
    if todo.engines:
        found = await discover.look([engine.url for engine in todo.engines], todo.upstream_key)
        for item in found:
            if warning := banner.warning(item, bool(todo.upstream_key)):
                console.warn(warning)
        return Engines(model=_model_of(found, todo.base.pools))
    if not todo.demo:
        # Nobody vouches for what listens there, so it is not told the key.
        found = await discover.look([f"http://127.0.0.1:{port}" for port in discover.PORTS])
        for line in banner.found_lines(found):
            console.say(line)
        usable = [f for f in found if f.kind in {discover.Kind.VLLM, discover.Kind.LOCKED}]
        if usable:
            added = tuple(file.Engine(url=item.url) for item in usable)
            return Engines(added, model=_model_of(usable, todo.base.pools))
        console.say(banner.NO_ENGINES)
    console.warn(banner.SIMULATED)
    chosen = ports.free_from(fleet.DEMO_PORT, fleet.DEMO_ENGINES)
    return Engines(tuple(fleet.demo_engines(chosen)), tuple(fleet.demo(chosen)), fleet.DEMO_MODEL)


def _serve(todo: Plan, place: State, console: banner.Console) -> Engines:
    wish, found = todo.serve, machine.look(todo.serve, os.environ)
    chosen = ports.claim(serving.FIRST_PORT, len(serving.places(wish, found)))
    engines, specs = serving.engines(wish, found, chosen, todo.upstream_key)
    for line in banner.serving(wish.model, engines, place.logs):
        console.say(line)
    return Engines(tuple(engines), tuple(specs), serving.names(wish)[0], math.inf)


async def first_model(base_url: str, key: str, expected: str, wait_s: float) -> str:
    """A model that answers now; waits for a replica to be in rotation.

    Without a key the endpoint can't be asked for its models: it is the expected one then.
    """
    deadline_s = now_s() + wait_s
    while now_s() < deadline_s:
        if await discover.has_rotation(base_url):
            if not key:
                return expected
            if listed := await discover.served(base_url, key):
                return expected if expected in listed else listed[0]
        await asyncio.sleep(_MODEL_POLL_S)
    return ""


def _model_of(found: Sequence[discover.Found], pools: tuple[file.Pool, ...]) -> str:
    names = [pool.name for pool in pools if pool.engines]
    names += [model for item in found for model in item.models]
    return names[0] if names else ""
