"""What a control plane serves to its peers and operators; who may call is controlplane/guard's."""

from __future__ import annotations

import grpc

from controlplane import (
    service_admin,
    service_agent,
    service_config,
    service_doctor,
    service_edge,
    service_explain,
    service_scaler,
    service_steer,
    service_whatif,
)
from controlplane.seat import Seat
from trimtab.runtime.tls import Identity
from trimtab.v1 import admin_pb2_grpc, agent_pb2_grpc, steer_pb2_grpc

NAMES = (
    service_agent.NAME,
    service_edge.NAME,
    service_admin.NAME,
    service_explain.NAME,
    service_config.NAME,
    service_doctor.NAME,
    service_whatif.NAME,
    service_steer.NAME,
    service_scaler.NAME,
)


def register(seat: Seat, server: grpc.aio.Server, identity: Identity | None = None) -> None:
    """Serve all of them; `identity` is ours."""
    agent_pb2_grpc.add_AgentServiceServicer_to_server(service_agent.AgentService(seat), server)
    service_edge.register(service_edge.EdgeService(seat), server)
    admin_pb2_grpc.add_AdminServiceServicer_to_server(service_admin.AdminService(seat), server)
    service_explain.register(service_explain.ExplainService(seat), server)
    steer_pb2_grpc.add_SteerServiceServicer_to_server(service_steer.SteerService(seat), server)
    service_config.register(service_config.ConfigService(seat), server)
    service_doctor.register(service_doctor.DoctorService(seat), server)
    service_whatif.register(seat, server)
    service_scaler.register(service_scaler.ScalerService(seat, identity), server)
