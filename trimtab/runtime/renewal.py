"""Keeping a certificate alive: a new one from the control plane after two thirds of its life.

Rules: each goes at its own moment (jitter), so that nodes that joined together do not renew
together; failures back off and are told once; time is looked at again and again, because wall time
steps. The key stays; the next connection uses the new certificate.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence

import grpc

from trimtab.policy.dice import Dice
from trimtab.runtime import certificates, clock, rpc, tls
from trimtab.runtime.backoff import Backoff
from trimtab.runtime.service import ConfigError
from trimtab.runtime.tls import Identity
from trimtab.v1 import identity_pb2, identity_pb2_grpc

LOOK_PERIOD_S = 60.0
JITTER_RATIO = 0.1  # of what is left after two thirds
DEADLINE_S = 10.0
RETRY_CAP_S = 300.0
log = logging.getLogger("renewal")


async def keep_renewed(identity: Identity, targets: Sequence[str], dice: Dice) -> None:
    """Renew when it is time, for ever."""
    backoff = Backoff(dice, first_s=1.0, cap_s=RETRY_CAP_S)
    told, late_ratio, tries = "", JITTER_RATIO * dice.random(), 0
    while True:
        peer = identity.peer
        due_s = peer.renew_at_s + late_ratio * (peer.not_after_s - peer.renew_at_s)
        if (wait_s := due_s - clock.wall_s()) > 0:
            await asyncio.sleep(min(wait_s, LOOK_PERIOD_S))
            continue
        try:
            await renew(identity, targets[tries % len(targets)])
            log.info("certificate renewed", extra={"fields": {"peer": str(identity.peer)}})
            backoff.reset()
            told = ""
        except (grpc.aio.AioRpcError, ConfigError) as error:
            tries += 1
            why = rpc.explain(error) if isinstance(error, grpc.aio.AioRpcError) else str(error)
            state = "expired" if peer.not_after_s <= clock.wall_s() else "not renewed"
            if state != told:
                told = state
                advice = "; join again" if state == "expired" else ""
                fields = {"peer": str(peer), "error": f"{why}{advice}"}
                log.warning(f"certificate {state}", extra={"fields": fields})  # noqa: G004 - two words
            await asyncio.sleep(backoff.next_s())


async def renew(identity: Identity, target: str) -> None:
    """Once, now; raises AioRpcError, ConfigError."""
    request = identity_pb2.RenewRequest(csr=certificates.signing_request(identity.files().key))
    async with rpc.channel(target, identity) as channel:
        stub = identity_pb2_grpc.IdentityServiceStub(channel)
        answer = await stub.Renew(request, timeout=DEADLINE_S)
    tls.check(answer.certificate, identity.files().key)
    tls.write(identity.directory / tls.CA, answer.ca)
    tls.write(identity.directory / tls.CERTIFICATE, answer.certificate)
