"""What an edge may do with a replica, and why, in words.

Rules: READY and WARMING are OPEN; STALLED is CLOSED at once and LOST after LOST_AFTER_MS without
progress; DEAD is LOST; STARTING, SLEEPING and DRAINING are CLOSED; UNKNOWN says nothing, and
neither does a silent agent, nor one that sees no progress while edges get tokens: the last decision
stands. The operator can only take away: any intent
but ACTIVE turns OPEN into CLOSED, and LOST stays LOST, since requests on it must still move. So
can the breaker: what it has not in use is CLOSED, and keeps the requests that it has, unless it was
ejected because they get no answer.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import replace

from controlplane.core.events import Effect, Transition
from controlplane.core.replica import Node, Replica
from trimtab.model import BreakerState, EngineSample, EngineState, Intent, Route, Serving
from trimtab.policy.breaker import SERVING, Breaker, Cause, Hold

LOST_AFTER_MS = 10_000  # hang_eject of the defaults: far above any step of a working engine
WARMING_PATIENCE = 6  # compilation and graph capture may take a minute in one step
MOVED_FRESH_S = 1.5
"""Age of an edge's news of tokens. A stall is called one after 3 s, so this hides none."""
AGE_STEPS_S = (2, 5, 10, 30, 60, 300, 600, 3_600, 21_600, 86_400)

_BY_STATE = {
    EngineState.READY: Serving.OPEN,
    EngineState.WARMING: Serving.OPEN,
    EngineState.DEAD: Serving.LOST,
    EngineState.STARTING: Serving.CLOSED,
    EngineState.SLEEPING: Serving.CLOSED,
    EngineState.DRAINING: Serving.CLOSED,
}
_QUIET = frozenset({BreakerState.JOINING, BreakerState.HEALTHY})
_WISHES = {
    Intent.CORDONED: "cordoned",
    Intent.DRAINING: "draining",
    Intent.SPARE: "kept as a spare",
}


def believed(sample: EngineSample, tokens_at_s: float | None, now_s: float) -> EngineSample:
    """The agent's sample, without its word on the state where edges know better."""
    stalled = sample.state is EngineState.STALLED
    if not stalled or tokens_at_s is None or now_s - tokens_at_s > MOVED_FRESH_S:
        return sample
    reason = "its agent sees no progress, but edges get tokens from it"
    return replace(sample, state=EngineState.UNKNOWN, reason=reason, no_progress_ms=0)


def judge(sample: EngineSample, before: Serving, stalled_warming: bool) -> Serving:
    """The agent's word as a decision; `before` is the last one."""
    if sample.state is EngineState.STALLED:
        limit_ms = LOST_AFTER_MS * (WARMING_PATIENCE if stalled_warming else 1)
        return Serving.LOST if sample.no_progress_ms >= limit_ms else Serving.CLOSED
    return _BY_STATE.get(sample.state, before)


def useless(health: Serving, breaker: Breaker) -> Serving:
    """Its health, or LOST: then requests that wait on it in vain move."""
    mute = breaker.state is BreakerState.EJECTED and breaker.cause is Cause.UNANSWERED
    return Serving.LOST if mute else health


def combine(health: Serving, intent: Intent, breaker: BreakerState, wrong: str = "") -> Serving:
    """Health, intent and breaker together; what is `wrong` with its model closes it as well."""
    in_use = intent not in _WISHES and breaker in SERVING and not wrong
    return health if in_use or health is not Serving.OPEN else Serving.CLOSED


def emptied(replicas: Iterable[Replica], closing: Collection[str]) -> list[str]:
    """The pools that lose their last open replica when these close."""
    pools = {one.name: one.route.pool for one in replicas if one.route and _stays_open(one)}
    stay = {pool for name, pool in pools.items() if name not in closing}
    return sorted({pools[name] for name in closing if name in pools} - stay)


def _stays_open(replica: Replica) -> bool:
    """A breaker that is held open closes its replica with the next tick."""
    serving = replica.route.serving if replica.route else Serving.CLOSED
    return serving is Serving.OPEN and replica.hold is not Hold.OPEN


def explain(replica: Replica, silent: str) -> str:
    """Why the decision is what it is, with what `silence` says."""
    parts = [_wish(replica), _breaker(replica), replica.gpu_fault, _word(replica), silent]
    return "; ".join(part for part in parts if part)


def _wish(replica: Replica) -> str:
    wish = replica.wish
    if wish.intent not in _WISHES:
        return ""
    by = f" by {wish.actor}" if wish.actor else ""
    why = f": {wish.reason}" if wish.reason else ""
    return f"{_WISHES[wish.intent]}{by}{why}"


def _breaker(replica: Replica) -> str:
    breaker = replica.standing.breaker
    if breaker.state in _QUIET or breaker.cause is None:
        return ""
    return f"{breaker.state.name.lower()}: {breaker.cause.value}"


def _word(replica: Replica) -> str:
    if replica.sample is None:
        unheard = "as before the restart, no report yet" if replica.loaded else "no report yet"
        return replica.cause or unheard
    state = f"engine {replica.sample.state.name}"
    return f"{state}: {replica.cause}" if replica.cause else state


def silence(replica: Replica, node: Node | None, now_s: float, stale_s: float) -> str:
    """What its agent has not said for how long, in steps; empty while it speaks, or never did."""
    age_s = replica.age_s(now_s)
    if age_s is None or (age_s <= stale_s and node is not None and node.stream is not None):
        return ""
    if node is not None and node.bye is not None:
        who = f"its agent left ({node.bye})" if node.bye else "its agent left"
    elif node is None or node.stream is None:
        who = "its agent is disconnected"
    else:
        who = "its agent is silent"
    return f"{who}, last report {_age(age_s)} ago; the last decision stands"


def _age(age_s: float) -> str:
    """An age in steps, so that a reason does not change with every tick."""
    passed = [step for step in AGE_STEPS_S if age_s >= step]
    if not passed:
        return f"less than {AGE_STEPS_S[0]} s"
    step = passed[-1]
    return f"over {step} s" if step < 60 else f"over {step // 60} min"


def transition(replica: Replica, old: Route | None, old_state: EngineState) -> list[Effect]:
    """What to log, with the evidence, when the state or the decision is another one."""
    route, sample = replica.route, replica.sample
    if route is None or old is None:
        return []
    if (old.serving, old_state) == (route.serving, replica.state):
        return []
    evidence: dict[str, object] = {
        "node": replica.node,
        "intent": replica.wish.intent.name,
        "breaker": route.breaker.name,
    }
    if sample is not None:
        evidence |= {
            "state_age_ms": sample.state_age_ms,
            "no_progress_ms": sample.no_progress_ms,
            "metrics_age_ms": sample.metrics_age_ms,
            "running": sample.running,
            "waiting": sample.waiting,
            "epoch": sample.epoch,
        }
    states, servings = (old_state, replica.state), (old.serving, route.serving)
    return [Transition(replica.name, states, servings, route.reason, evidence)]
