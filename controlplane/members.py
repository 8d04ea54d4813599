"""Closed wires as the control plane's main sees them: one object, there when TLS is configured."""

from __future__ import annotations

import asyncio
import logging
from typing import Self

import grpc

from controlplane.authority import Authority
from controlplane.config import TlsConfig
from controlplane.enroll_http import Enrolment
from controlplane.enrolment import Registrar
from controlplane.guard import Guard
from controlplane.service_identity import IdentityService, NodeService
from controlplane.store.protocol import Store, StoreError
from trimtab.runtime import clock
from trimtab.runtime.log import Trouble
from trimtab.runtime.service import ConfigError
from trimtab.runtime.tasks import TaskRunner
from trimtab.v1 import identity_pb2_grpc

LOOK_PERIOD_S = 60.0  # at the own certificate's age; wall time may step
log = logging.getLogger("controlplane.members")


class Members:
    """Who may come in and what they may do."""

    def __init__(self, config: TlsConfig, store: Store) -> None:
        self._config = config
        self._authority = Authority(config.directory, config.fleet, config.names, config.life_s)
        self.identity = self._authority.introduce(config.name)
        self._registrar = Registrar(self._authority, store)
        self.guard = Guard(store)
        self._enrolment = Enrolment(self._registrar, self.identity)

    @classmethod
    async def open(cls, config: TlsConfig, store: Store) -> Self:
        """Know who is out before anybody is served; raises ConfigError."""
        members = cls(config, store)
        try:
            await members.guard.revocations.load()
        except StoreError as error:
            raise ConfigError(str(error)) from error
        return members

    def register(self, server: grpc.aio.Server) -> None:
        """Add the services."""
        registrar = self._registrar
        nodes = NodeService(registrar, self._config.enroll_url)
        identity_pb2_grpc.add_IdentityServiceServicer_to_server(IdentityService(registrar), server)
        identity_pb2_grpc.add_NodeServiceServicer_to_server(nodes, server)

    async def start(self, runner: TaskRunner) -> None:
        """Begin to follow, to watch, and to let nodes join; raises ConfigError."""
        runner.forever("revocations", self.guard.revocations.run())
        runner.forever("guard", self.guard.run())
        runner.forever("own certificate", self._renew())
        if self._config.enroll:
            await self._enrolment.start(self._config.enroll)

    async def stop(self) -> None:
        """Let nobody join any more."""
        await self._enrolment.stop()

    async def _renew(self) -> None:
        trouble = Trouble(log, "no new certificate", "there is a new certificate")
        while True:
            await asyncio.sleep(LOOK_PERIOD_S)
            if clock.wall_s() >= self.identity.peer.renew_at_s:
                try:
                    self._authority.introduce(self._config.name)
                except ConfigError as error:  # a full disk, say; there is a third of its life left
                    trouble.on(error=str(error))
                    continue
                trouble.off()
                self._enrolment.reload()
                log.info("renewed the own certificate")
