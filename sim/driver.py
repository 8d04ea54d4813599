"""The engine model in real time: one task steps it, and HTTP handlers collect their tokens.

Rule 1: the engine never waits for a reader. A choice's mailbox is two counters, tokens ready and
        tokens taken; a slow reader finds more of them next time, as several tokens in one event.
Rule 2: leaving `admit` for whatever reason takes the request out of the engine.
"""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from http import HTTPStatus

from sim.engine import Engine, EngineSpec, Request, TokenEvent
from sim.faults import Faults
from sim.metrics_text import MetricsPage
from sim.openai_request import ApiError, Call
from sim.text import Answer, block_hashes, write
from trimtab.runtime.clock import now_s, wall_s

_WARMING_SLOWDOWN = 5.0  # first steps of a cold engine: kernels are compiled, graphs captured
_BUSY = {
    "max_num_queued_reqs": "The engine is currently busy and cannot accept new requests.",
    "max_num_queued_tokens": "The engine has reached its prefill token backlog limit.",
}


def dead_error() -> ApiError:
    """What vLLM says when its engine core is gone."""
    message = "EngineCore encountered an issue. See stack trace (above) for the root cause."
    return ApiError(500, "InternalServerError", message)


def request_error() -> ApiError:
    """What vLLM says when one request failed in a live engine: EngineGenerateError has no text."""
    return ApiError(500, "InternalServerError", "")


@dataclass(slots=True)
class Choice:
    """One sequence of a call, and its mailbox."""

    index: int
    request_id: str
    prompt_tokens: int
    answer: Answer
    ready: int = 0
    taken: int = 0
    finish_reason: str | None = None
    told: bool = False  # the reader knows the finish reason

    @property
    def has_news(self) -> bool:
        """There is something to take."""
        return self.ready > self.taken or (self.finish_reason is not None and not self.told)

    @property
    def stop_reason(self) -> str | None:
        """The stop string that ended it, if one did."""
        return self.answer.stop_reason if self.finish_reason == "stop" else None

    def take(self) -> str:
        """The text of all tokens not yet taken; after it, finish_reason is up to date."""
        text = "".join(self.answer.pieces[self.taken : self.ready])
        self.taken = self.ready
        self.told = self.finish_reason is not None
        return text


@dataclass(slots=True)
class Live:
    """A call in the engine."""

    choices: list[Choice]
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    error: ApiError | None = None

    @property
    def done(self) -> bool:
        """All was taken, and every choice has ended."""
        return all(choice.told for choice in self.choices)

    async def news(self) -> list[Choice]:
        """Wait for choices that have news. Raises the call's error once all tokens are taken."""
        while True:
            fresh = [choice for choice in self.choices if choice.has_news]
            if fresh:
                return fresh
            if self.error is not None:
                raise self.error
            self.changed.clear()
            await self.changed.wait()


class Driver:
    """Owns the engine, its metrics page and the faults that bear on both."""

    def __init__(self, spec: EngineSpec, model_name: str, busy_status: int = 503) -> None:
        self._spec = spec
        self._busy_status = HTTPStatus(busy_status)
        self._model_name = model_name
        self._live: dict[str, tuple[Live, Choice]] = {}
        self._serial = 0
        self._work = asyncio.Event()
        self._thawed = asyncio.Event()
        self._cold_until_s = 0.0
        self.responsive = asyncio.Event()  # cleared while the API process hangs
        self.on_death: Callable[[str], None] = lambda _mode: None
        self.dead = False
        self.arrived_total = 0  # these two count on over restarts, for who watches from outside
        self.tokens_total = 0
        self.faults = Faults()
        self.restart()

    def restart(self, cold_until_s: float = 0.0) -> None:
        """A new engine, all counters at 0, with nobody in it."""
        self.fail_all(dead_error())
        self.dead = False
        self._cold_until_s = cold_until_s
        self.engine = Engine(self._spec)
        self.page = MetricsPage(self.engine, self._model_name, wall_s())
        self.set_faults(self.faults)

    def set_faults(self, faults: Faults) -> None:
        """Let these faults hold from now on."""
        self.faults = faults
        limit = self._spec.max_num_queued_reqs if faults.queue_limit is None else faults.queue_limit
        self.engine.spec = replace(self._spec, max_num_queued_reqs=limit)
        for event, on in ((self._thawed, not faults.freeze), (self.responsive, not faults.hang)):
            if on:
                event.set()
            else:
                event.clear()

    def busy_error(self, reason: str) -> ApiError:
        """What vLLM says when a queue limit is reached, or a limiter before it (429)."""
        status, advice = self._busy_status, " Please try again later or on a different instance."
        return ApiError(int(status), status.phrase.title(), _BUSY[reason] + advice)

    def fail_all(self, error: ApiError) -> None:
        """The engine core is gone: every call in it fails."""
        for live, _ in self._live.values():
            live.error = error
            live.changed.set()

    @contextmanager
    def admit(self, call: Call) -> Iterator[Live]:
        """Put a call into the engine for the length of a block; a 503 if a queue limit is hit."""
        live = Live([])
        try:
            for prompt_index, text in enumerate(call.prompts):
                for variant in range(call.n):
                    answer = write(text, call.limits[prompt_index], variant)
                    self._submit(live, call, call.prompt_tokens[prompt_index], answer)
            yield live
        finally:
            for choice in live.choices:
                self._live.pop(choice.request_id, None)
                self.engine.abort(now_s(), choice.request_id)
            self._work.set()

    async def run(self) -> None:
        """Step the engine for ever, each step as long as the model says."""
        while True:
            await self._thawed.wait()
            due_s = self.engine.next_step_at
            if due_s is None:
                self._work.clear()
                await self._work.wait()
                continue
            await asyncio.sleep(max(0.0, due_s - now_s()))
            if not self._thawed.is_set() or due_s != self.engine.next_step_at:
                continue
            warming = now_s() < self._cold_until_s
            self.engine.slowdown = self.faults.slow * (_WARMING_SLOWDOWN if warming else 1.0)
            for event in self.engine.step(max(due_s, now_s())).tokens:
                self.tokens_total += event.n_tokens
                self._deliver(event)

    def _submit(self, live: Live, call: Call, prompt: list[bytes], answer: Answer) -> None:
        if self.dead:
            raise dead_error()
        self._serial += 1
        request = Request(
            request_id=f"{self._serial}",
            prompt_tokens=len(prompt),
            output_tokens=len(answer.pieces),
            finished_reason=answer.finish_reason,
            block_hashes=block_hashes(prompt, self._spec.block_size),
            max_tokens=call.max_tokens,
            n=call.n,
        )
        if (reason := self.engine.submit(now_s(), request)) is not None:
            raise self.busy_error(reason)
        choice = Choice(len(live.choices), request.request_id, len(prompt), answer)
        live.choices.append(choice)
        self._live[request.request_id] = live, choice
        self._work.set()

    def _deliver(self, event: TokenEvent) -> None:
        found = self._live.get(event.request_id)
        if found is None:
            return
        live, choice = found
        if not self._strike(live, choice):
            choice.ready += event.n_tokens
            choice.finish_reason = event.finished_reason
        live.changed.set()

    def _strike(self, live: Live, choice: Choice) -> bool:
        """Let a fault that counts tokens take the place of the next one."""
        faults = self.faults
        if faults.die_mid_stream is not None and choice.ready >= faults.die_mid_stream.after_tokens:
            self.on_death(faults.die_mid_stream.mode)
        elif faults.error_in_stream is not None and choice.ready >= faults.error_in_stream:
            live.error = request_error()
        elif faults.abort_after is not None and choice.ready >= faults.abort_after:
            choice.finish_reason = "abort"
            self.engine.abort(now_s(), choice.request_id, counted=True)
        else:
            return False
        return True
