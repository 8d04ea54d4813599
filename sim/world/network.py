"""Delay, loss and partition between the parts.

Rules: TCP under everything: what is lost on the way is late, never gone, and one stream's messages
stay in order; a partition lets nothing through, and a stream dies of it when gRPC's keep-alive
notices. Requests to engines are connections of their own, without order among them.
"""

from __future__ import annotations

import itertools
import math
from collections import deque
from collections.abc import Callable
from typing import Any

import msgspec

from sim.world.loop import Loop
from trimtab.policy.dice import Dice

RETRANSMIT_S = 0.2  # TCP's least retransmission timeout on Linux
KEEPALIVE_S = 7.0  # trimtab.runtime.rpc: a ping after 5 s, 2 s for its answer
STALLED_LIMIT = 1_000  # messages that wait in a stream's socket buffers


class NetworkSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How long things take from one part to another."""

    data_s: float = 0.0005
    """One way between edge and engine."""
    control_s: float = 0.005
    """One way between agent or edge and control plane."""
    jitter: float = 0.5
    """Up to this share of a delay is added at random."""
    loss: float = 0.0
    """This share of messages is lost once and sent again."""


class Network:
    """Delays drawn for each message, and which parts can't reach each other."""

    def __init__(self, loop: Loop, spec: NetworkSpec, dice: Dice) -> None:
        self.loop = loop
        self._spec = spec
        self._dice = dice
        self._cuts: set[frozenset[str]] = set()
        self._streams: set[Stream] = set()
        self._numbers = itertools.count(1)
        self.lag_s: dict[str, float] = {}
        """Extra delay of everything that a part sends or gets."""

    def data_delay_s(self, source: str, target: str) -> float:
        """How long something takes between an edge and an engine now."""
        return self._delay_s(self._spec.data_s, source, target)

    def control_delay_s(self, source: str, target: str) -> float:
        """How long a message takes to or from the control plane now."""
        return self._delay_s(self._spec.control_s, source, target)

    def is_cut(self, one: str, other: str) -> bool:
        """Whether nothing gets through between the two."""
        return bool(self._cuts) and frozenset((one, other)) in self._cuts

    def cut(self, one: str, other: str) -> None:
        """Let nothing through between the two."""
        self._cuts.add(frozenset((one, other)))

    def heal(self, one: str, other: str) -> None:
        """Let everything through again; what stood in buffers arrives."""
        self._cuts.discard(frozenset((one, other)))
        for stream in sorted(self._streams, key=lambda stream: stream.number):
            stream.flush()

    def register(self, stream: Stream) -> int:
        """A stream begins; its number."""
        self._streams.add(stream)
        return next(self._numbers)

    def unregister(self, stream: Stream) -> None:
        """A stream ended."""
        self._streams.discard(stream)

    def _delay_s(self, base_s: float, source: str, target: str) -> float:
        spec = self._spec
        delay_s = base_s * (1.0 + spec.jitter * self._dice.random())
        if self.lag_s:
            delay_s += self.lag_s.get(source, 0.0) + self.lag_s.get(target, 0.0)
        if spec.loss and self._dice.random() < spec.loss:
            delay_s += RETRANSMIT_S
        return delay_s


class Stream:
    """One gRPC stream between a client part and a server part."""

    def __init__(self, network: Network, client: str, server: str) -> None:
        self._network = network
        self._names = (client, server)
        self.on_end: tuple[Callable[[], None], ...] = ()  # what to tell the two sides
        self._arrives_s = [-math.inf, -math.inf]  # the last message's arrival, by direction
        self._stalled: deque[tuple[int, Callable[..., None], tuple[Any, ...]]] = deque()
        self.open = True
        self.number = network.register(self)

    def up(self, deliver: Callable[..., None], *args: Any) -> None:
        """Send from the client to the server."""
        self._send(0, deliver, args)

    def down(self, deliver: Callable[..., None], *args: Any) -> None:
        """Send from the server to the client."""
        self._send(1, deliver, args)

    def end(self) -> None:
        """One side is gone or closes: the other learns it a delay later."""
        if not self.open:
            return
        self.open = False
        self._network.unregister(self)
        delay_s = self._network.control_delay_s(*self._names)
        for on_end in self.on_end:
            self._network.loop.after(delay_s, on_end)

    def flush(self) -> None:
        """Let through what a partition held up, if it is over."""
        if self._stalled and not self._network.is_cut(*self._names):
            stalled, self._stalled = self._stalled, deque()
            for direction, deliver, args in stalled:
                self._send(direction, deliver, args)

    def _send(self, direction: int, deliver: Callable[..., None], args: tuple[Any, ...]) -> None:
        if not self.open:
            return
        network = self._network
        if network.is_cut(*self._names):
            if not self._stalled:
                network.loop.after(KEEPALIVE_S, self._give_up)
            if len(self._stalled) < STALLED_LIMIT:
                self._stalled.append((direction, deliver, args))
            return
        delay_s = network.control_delay_s(*self._names)
        arrives_s = max(network.loop.now_s + delay_s, self._arrives_s[direction])
        self._arrives_s[direction] = arrives_s
        network.loop.at(arrives_s, self._deliver, deliver, args)

    def _deliver(self, deliver: Callable[..., None], args: tuple[Any, ...]) -> None:
        if self.open:
            deliver(*args)

    def _give_up(self) -> None:
        if self._stalled and self._network.is_cut(*self._names):
            self.end()
