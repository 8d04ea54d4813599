"""A control plane's AdminService in threads of its own, so that `ctl` can run in the test's.

It serves the fleet it was last given, pushes each new one to those who watch, keeps the state that
it was sent, and refuses on demand.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent import futures
from dataclasses import dataclass, field, replace
from typing import Any

import grpc

from tests.fakes.configs import FakeConfigs
from tests.fakes.steer import FakeSteer
from trimtab import codec
from trimtab.facts import FleetFacts, ProcessFacts
from trimtab.runtime import clock
from trimtab.v1 import (
    admin_pb2,
    admin_pb2_grpc,
    config_pb2_grpc,
    doctor_pb2,
    doctor_pb2_grpc,
    explain_pb2,
    explain_pb2_grpc,
    steer_pb2_grpc,
)
from trimtab.views import Account, Explanation, Fleet, FleetEvent, StateHeader, StateRecord


@dataclass
class FakeAdmin:
    """`start()`, `show(fleet)`, `stop()`; `steer` holds what it was told."""

    target: str
    fleet: Fleet
    refusal: tuple[grpc.StatusCode, str] | None = None
    silent: bool = False  # watchers get nothing
    state: dict[str, bytes] = field(default_factory=dict)
    explanations: dict[str, Explanation] = field(default_factory=dict)
    accounts: dict[tuple[str, str], Account] = field(default_factory=dict)
    """By subject and name."""
    events: list[FleetEvent] = field(default_factory=list)
    restores: list[admin_pb2.RestoreStateRequest] = field(default_factory=list)  # the first of each
    facts: FleetFacts = field(default_factory=lambda: FleetFacts(ProcessFacts()))
    configs: FakeConfigs = field(default_factory=FakeConfigs)
    _changed: threading.Condition = field(default_factory=threading.Condition)
    _server: grpc.Server | None = None

    def __post_init__(self) -> None:
        """What it is told to change, it keeps there."""
        self.steer = FakeSteer(lambda: self.fleet)

    def start(self) -> FakeAdmin:
        """Listen."""
        server = grpc.server(futures.ThreadPoolExecutor(max_workers=4))
        # The stubs are typed for grpc.aio only; at run time the registration is the same.
        untyped: Any = admin_pb2_grpc.add_AdminServiceServicer_to_server
        untyped(self, server)
        explaining: Any = explain_pb2_grpc.add_ExplainServiceServicer_to_server
        explaining(self, server)
        steering: Any = steer_pb2_grpc.add_SteerServiceServicer_to_server
        steering(self.steer, server)
        configuring: Any = config_pb2_grpc.add_ConfigServiceServicer_to_server
        configuring(self.configs, server)
        examining: Any = doctor_pb2_grpc.add_DoctorServiceServicer_to_server
        examining(self, server)
        server.add_insecure_port(self.target)
        server.start()
        self._server = server
        return self

    def stop(self) -> None:
        """Break every stream and stop listening."""
        if self._server is None:
            return
        stopped, self._server = self._server.stop(grace=0), None
        with self._changed:
            self._changed.notify_all()
        stopped.wait(5)

    def show(self, fleet: Fleet) -> None:
        """Push a fleet."""
        with self._changed:
            self.fleet = fleet
            self._changed.notify_all()

    def GetFleet(  # noqa: N802  the contract's name
        self, _request: admin_pb2.GetFleetRequest, context: grpc.ServicerContext
    ) -> admin_pb2.GetFleetResponse:
        """Answer or refuse."""
        if self.refusal is not None:
            context.abort(*self.refusal)
        return admin_pb2.GetFleetResponse(fleet=codec.encode(self.fleet))

    def GetFacts(  # noqa: N802  the contract's name
        self, _request: doctor_pb2.GetFactsRequest, _context: grpc.ServicerContext
    ) -> doctor_pb2.GetFactsResponse:
        """As given, but told now."""
        leader = replace(self.facts.leader, at_ms=round(1000 * clock.wall_s()))
        return doctor_pb2.GetFactsResponse(facts=codec.encode(replace(self.facts, leader=leader)))

    def ExplainReplica(  # noqa: N802  the contract's name
        self, request: admin_pb2.ExplainReplicaRequest, context: grpc.ServicerContext
    ) -> admin_pb2.ExplainReplicaResponse:
        """What it was given, or nothing of that name."""
        found = self.explanations.get(request.replica)
        if found is None:
            context.abort(grpc.StatusCode.NOT_FOUND, f"there is no replica {request.replica!r}")
            raise AssertionError
        return admin_pb2.ExplainReplicaResponse(explanation=codec.encode(found))

    def ExplainRequest(  # noqa: N802  the contract's name
        self, request: explain_pb2.ExplainRequestRequest, context: grpc.ServicerContext
    ) -> explain_pb2.ExplainResponse:
        """What it was given, or nothing of that name."""
        return self._account("request", request.request_id, context)

    def ExplainTenant(  # noqa: N802  the contract's name
        self, request: explain_pb2.ExplainTenantRequest, context: grpc.ServicerContext
    ) -> explain_pb2.ExplainResponse:
        """What it was given, or nothing of that name."""
        return self._account("tenant", request.tenant, context)

    def ExplainModel(  # noqa: N802  the contract's name
        self, request: explain_pb2.ExplainModelRequest, context: grpc.ServicerContext
    ) -> explain_pb2.ExplainResponse:
        """What it was given, or nothing of that name."""
        return self._account("model", request.model, context)

    def _account(
        self, subject: str, name: str, context: grpc.ServicerContext
    ) -> explain_pb2.ExplainResponse:
        found = self.accounts.get((subject, name))
        if found is None:
            context.abort(grpc.StatusCode.NOT_FOUND, f"nobody knows {name!r}")
            raise AssertionError
        return explain_pb2.ExplainResponse(account=codec.encode(found))

    def WatchEvents(  # noqa: N802  the contract's name
        self, request: admin_pb2.WatchEventsRequest, context: grpc.ServicerContext
    ) -> Iterator[admin_pb2.WatchEventsResponse]:
        """Its events, and those that are added."""
        told = 0
        while context.is_active() and self._server is not None:
            with self._changed:
                events, told = self.events[told:], len(self.events)
            chosen = [e for e in events if request.about in {"", e.about}]
            found = [codec.encode(e) for e in chosen if request.what in e.what]
            if found:
                yield admin_pb2.WatchEventsResponse(events=found[-request.limit :])
            if not request.follow:
                return
            with self._changed:
                if told == len(self.events):
                    self._changed.wait(timeout=0.1)

    def happen(self, event: FleetEvent) -> None:
        """Tell those who follow."""
        with self._changed:
            self.events.append(event)
            self._changed.notify_all()

    def SetIntent(  # noqa: N802  the contract's name
        self, _request: admin_pb2.SetIntentRequest, context: grpc.ServicerContext
    ) -> admin_pb2.SetIntentResponse:
        """An older ctl's: see `steer`."""
        context.abort(grpc.StatusCode.UNIMPLEMENTED, "")
        raise AssertionError

    def SaveState(  # noqa: N802  the contract's name
        self, _request: admin_pb2.SaveStateRequest, _context: grpc.ServicerContext
    ) -> Iterator[admin_pb2.SaveStateResponse]:
        """The state in messages of one record."""
        header = StateHeader(self.fleet.name, "0.1.0", 1, 412, 1_700_000_000_000, len(self.state))
        yield admin_pb2.SaveStateResponse(header=codec.encode(header))
        for key, value in self.state.items():
            record = codec.encode(StateRecord(key, value))
            yield admin_pb2.SaveStateResponse(records=[record])

    def RestoreState(  # noqa: N802  the contract's name
        self, requests: Iterator[admin_pb2.RestoreStateRequest], context: grpc.ServicerContext
    ) -> admin_pb2.RestoreStateResponse:
        """Take a state, or look at it."""
        first = next(requests)
        self.restores.append(first)
        state = {record.key: record.value for part in requests for record in part.records}
        if self.refusal is not None:
            context.abort(*self.refusal)
        added, removed = len(state.keys() - self.state), len(self.state.keys() - state)
        changed = sum(self.state.get(key, value) != value for key, value in state.items())
        if not first.preview:
            self.state = state
        return admin_pb2.RestoreStateResponse(
            added=added, changed=changed, removed=removed, fleet=self.fleet.name
        )

    def WatchFleet(  # noqa: N802  the contract's name
        self, _request: admin_pb2.WatchFleetRequest, context: grpc.ServicerContext
    ) -> Iterator[admin_pb2.WatchFleetResponse]:
        """Send each fleet that is shown."""
        while context.is_active() and self._server is not None:
            with self._changed:
                fleet = self.fleet
            if not self.silent:
                yield admin_pb2.WatchFleetResponse(fleet=codec.encode(fleet))
            with self._changed:
                if fleet is self.fleet:
                    self._changed.wait(timeout=0.1)
