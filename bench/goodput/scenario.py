"""What happens in a scenario: load over time, what goes wrong with which engine, and the optimum.

Everything is scaled by SCALE: the lab whose fleet this is modelled on runs jobs of 25 s, and here
one takes 2 s, so that a run takes minutes. Its users' patience of 60 s is 5 s here, and so is
every timer that can be configured, ours and the peers'.

Rules: pure, and seeded: every system under test gets the very same requests at the same times.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

SCALE = 12.0
SLO_S = 60.0 / SCALE  # first token after the client's first submission
SDK_TIMEOUT_S = 600.0 / SCALE  # the official SDKs' default
LIGHT = "light"  # the tenant that asks for little
WARMING_SLOWDOWN = 5.0  # of the simulated engine, for as long again as it was cold
_WORDS_PER_PROMPT = (30, 60)
_WORDS = ("queue", "token", "batch", "slot", "cache", "block", "limit", "route", "flow", "node")


@dataclass(frozen=True, slots=True)
class EngineKind:
    """Flags of both engines, and how long their answers are."""

    slots: int = 12
    queue_limit: int | None = None  # running and waiting, as vLLM counts for max-num-queued-reqs
    busy_status: int = 503  # vLLM's answer at that limit; 429 is that of a limiter before it
    output_tokens: tuple[int, int] = (14, 42)
    speed: float = 0.4

    def flags(self) -> list[str]:
        """The simulated engine's command line."""
        flags = ["--preset", "demo", "--speed", str(self.speed)]
        flags += ["--max-num-seqs", str(self.slots)]
        if self.queue_limit is not None:
            flags += ["--max-num-queued-reqs", str(self.queue_limit)]
            flags += ["--busy-status", str(self.busy_status)]
        return flags


@dataclass(frozen=True, slots=True)
class Trouble:
    """One engine's bad time: what to post to it at the start, and to undo it."""

    start_s: float
    end_s: float
    fault: dict[str, object] = field(hash=False)
    capacity_ratio: float = 0.0  # what is left of it
    cold_s: float = 0.0  # it comes back by a restart, cold
    engine: int = 0

    @property
    def healthy_again_s(self) -> float:
        """When it is as good as new."""
        return self.end_s + 2 * self.cold_s

    def shortened(self, ratio: float) -> Trouble:
        """The same, faster."""
        times = {name: getattr(self, name) * ratio for name in ("start_s", "end_s", "cold_s")}
        return replace(self, **times)


@dataclass(frozen=True, slots=True)
class Scenario:
    """Loads are shares of the measured capacity of both engines."""

    name: str
    title: str
    duration_s: float
    load: tuple[tuple[float, float], ...]  # (from second, load), the first at 0
    kind: EngineKind = EngineKind()
    troubles: tuple[Trouble, ...] = ()
    light_load: float = 0.0  # what a second tenant asks for beside, all the time

    def load_at(self, at_s: float) -> float:
        """The load offered at a time."""
        return [load for start_s, load in self.load if start_s <= at_s][-1]

    def capacity_at(self, engine: int, at_s: float) -> float:
        """The share of its capacity that an engine has at a time."""
        for trouble in self.troubles:
            if trouble.engine == engine:
                if trouble.start_s <= at_s < trouble.end_s + trouble.cold_s:
                    return trouble.capacity_ratio
                if trouble.end_s <= at_s < trouble.healthy_again_s:
                    return 1.0 / WARMING_SLOWDOWN
        return 1.0

    def shortened(self, ratio: float) -> Scenario:
        """The same story told faster; for trying things out, not for results."""
        return replace(
            self,
            title=f"{self.title}; all times x {ratio}",
            duration_s=self.duration_s * ratio,
            load=tuple((start_s * ratio, load) for start_s, load in self.load),
            troubles=tuple(trouble.shortened(ratio) for trouble in self.troubles),
        )


@dataclass(frozen=True, slots=True)
class Arrival:
    """One request to come."""

    at_s: float
    prompt: str
    output_tokens: int
    tenant: str = ""


def arrivals(scenario: Scenario, capacity_tokens_s: float, seed: int) -> list[Arrival]:
    """Poisson arrivals of one tenant, or of two."""
    found = _arrivals(scenario, capacity_tokens_s, f"{seed} {scenario.name}")
    if scenario.light_load:
        light = replace(scenario, load=((0.0, scenario.light_load),))
        for arrival in _arrivals(light, capacity_tokens_s, f"{seed} {scenario.name} {LIGHT}"):
            found.append(replace(arrival, tenant=LIGHT))
    return sorted(found, key=lambda arrival: arrival.at_s)


def _arrivals(scenario: Scenario, capacity_tokens_s: float, seed: str) -> list[Arrival]:
    """A Poisson process thinned to the load at each time."""
    dice = random.Random(seed)  # noqa: S311 - must repeat
    low, high = scenario.kind.output_tokens
    full_rate = capacity_tokens_s / ((low + high) / 2)
    peak = max(load for _, load in scenario.load)
    found: list[Arrival] = []
    at_s = dice.expovariate(peak * full_rate)
    while at_s < scenario.duration_s:
        keep = dice.random() < scenario.load_at(at_s) / peak
        prompt, tokens = prompt_text(dice), dice.randint(low, high)
        if keep:
            found.append(Arrival(at_s, prompt, tokens))
        at_s += dice.expovariate(peak * full_rate)
    return found


def prompt_text(dice: random.Random) -> str:
    """Words nobody has asked before, so that no prefix cache helps."""
    words = [str(dice.randrange(10**6))]
    words += dice.choices(_WORDS, k=dice.randint(*_WORDS_PER_PROMPT))
    return " ".join(words)


def possible(
    scenario: Scenario, requests: Sequence[Arrival], capacity_tokens_s: float, step_s: float = 0.1
) -> float:
    """The most useful tokens that could have been served by the end, as a share of capacity.

    A fluid bound: work arrives with its requests, the engines' healthy part serves it, and what
    would have to wait longer than the SLO is turned away.
    """
    served = backlog = 0.0
    waiting = sorted(requests, key=lambda request: request.at_s, reverse=True)
    for tick in range(round(scenario.duration_s / step_s)):
        at_s = tick * step_s
        while waiting and waiting[-1].at_s < at_s + step_s:
            backlog += waiting.pop().output_tokens
        share = sum(scenario.capacity_at(engine, at_s) for engine in (0, 1)) / 2
        done = min(backlog, share * capacity_tokens_s * step_s)
        served += done
        backlog = min(backlog - done, share * capacity_tokens_s * SLO_S)
    return served / (capacity_tokens_s * scenario.duration_s)


_LIMITED = EngineKind(queue_limit=18)
_SHORT = EngineKind(slots=4, queue_limit=6, output_tokens=(8, 22), speed=0.5)
_DEAD: dict[str, object] = {"die_mid_stream": {"after_tokens": 0, "mode": "api"}}
_STEPS = tuple((15.0 * i, load) for i, load in enumerate((0.5, 0.65, 0.8, 0.95, 1.2)))
_BURST = ((0.0, 0.8), (30.0, 2.5), (50.0, 0.8))


def _sick(name: str, title: str, *troubles: Trouble, load: float = 0.45) -> Scenario:
    return Scenario(name, f"{title}, load {load}", 60.0, ((0.0, load),), troubles=troubles)


SCENARIOS: tuple[Scenario, ...] = (
    Scenario("steady", "steady .7", 60.0, ((0.0, 0.7),)),
    Scenario("burst", "burst 2.5x for 20 of 100 s, else .8", 100.0, _BURST),
    Scenario("sustained", "sustained 1.6x", 60.0, ((0.0, 1.6),)),
    Scenario(
        "burst-refuse", "the burst, engines answer 503 above 18 in flight", 100.0, _BURST, _LIMITED
    ),
    Scenario(
        "sustained-refuse",
        "sustained 1.6x, engines answer 503 above 18 in flight",
        60.0,
        ((0.0, 1.6),),
        _LIMITED,
    ),
    Scenario(
        "tenants",
        "one tenant floods with 1.6, another asks for .2",
        60.0,
        ((0.0, 1.6),),
        light_load=0.2,
    ),
    _sick("kill", "one killed for 20 of 60 s", Trouble(20, 40, _DEAD)),
    _sick("freeze", "one core frozen for 20 of 60 s", Trouble(20, 40, {"freeze": True})),
    _sick("hang", "one API hung for 20 of 60 s", Trouble(20, 40, {"hang": True})),
    Scenario(
        "freeze-loaded",
        "one frozen for 35 of 90 s, load .9",
        90.0,
        ((0.0, 0.9),),
        troubles=(Trouble(20, 55, {"freeze": True}),),
    ),
    Scenario(
        "kill-loaded",
        "one killed for 30 of 90 s, then cold, load .9",
        90.0,
        ((0.0, 0.9),),
        troubles=(Trouble(20, 40, _DEAD, cold_s=10),),
    ),
    _sick("slow", "one 5x slower for 30 of 60 s", Trouble(15, 45, {"slow": 5.0}, 0.2)),
    _sick("errors", "one answers 500 at once for 20 of 60 s", Trouble(20, 40, {"error_rate": 1.0})),
    _sick("cold", "one restarted: 10 s away, 10 s slow", Trouble(20, 20.01, _DEAD, cold_s=10)),
    Scenario(
        "short",
        "short jobs, 503 above 6 in flight, load .5 .65 .8 .95 1.2 for 15 s each",
        75.0,
        _STEPS,
        _SHORT,
    ),
    Scenario(
        "short-429",
        "the same, 429 instead of 503",
        75.0,
        _STEPS,
        replace(_SHORT, busy_status=429),
    ),
)
QUICK = (("burst", 0.35), ("freeze", 0.6))
