"""Every service that a control plane offers."""

from __future__ import annotations

from collections.abc import Sequence

import grpc

from controlplane import (
    service_admin,
    service_agent,
    service_config,
    service_edge,
    service_identity,
)
from controlplane.members import Members
from controlplane.seat import Seat
from trimtab.runtime.rpc import Register
from trimtab.v1 import admin_pb2_grpc, agent_pb2_grpc, config_pb2_grpc

NAMES = (service_agent.NAME, service_edge.NAME, service_admin.NAME, service_config.NAME)


def offered(seat: Seat, members: Members | None = None) -> tuple[Sequence[str], Register]:
    """Their full names, and what adds them to a server."""

    def register(server: grpc.aio.Server) -> None:
        agent_pb2_grpc.add_AgentServiceServicer_to_server(service_agent.AgentService(seat), server)
        service_edge.register(service_edge.EdgeService(seat), server)
        admin_pb2_grpc.add_AdminServiceServicer_to_server(service_admin.AdminService(seat), server)
        config = service_config.ConfigService(seat)
        config_pb2_grpc.add_ConfigServiceServicer_to_server(config, server)
        if members:
            members.register(server)

    return (*NAMES, *(service_identity.NAMES if members else ())), register
