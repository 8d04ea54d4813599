"""Where nodes join, over HTTPS: a token and a signing request in, a certificate out.

Rules: who fails FAILURES_LIMIT times in a minute is not listened to for the rest of it; failures
are logged once a burst, tokens never; bodies are small, and slow ones are dropped.
"""

from __future__ import annotations

import asyncio
import logging
import ssl

import msgspec
from aiohttp import web

from controlplane.authority import BadRequestError
from controlplane.core.bursts import WINDOW_S, Bursts
from controlplane.enrolment import RefusedError, Registrar
from controlplane.store.protocol import StoreError
from trimtab.runtime import clock, tls
from trimtab.runtime.service import ConfigError
from trimtab.runtime.shapes import split_address

BODY_LIMIT_BYTES = 16 * 1024
BODY_TIMEOUT_S = 10.0
FAILURES_LIMIT = 10
IN_FLIGHT_LIMIT = 32
STOP_GRACE_S = 1.0
log = logging.getLogger("controlplane.enroll")


class JoinRequest(msgspec.Struct, frozen=True):
    """What a node sends; `trimtab/runtime/join.py` is the other end."""

    token: str
    csr: str
    name: str = ""
    """What it wants to be called."""
    hostname: str = ""
    """What it may be called when neither it nor the token says."""


class Enrolment:
    """The HTTPS listener; `start`, `reload` with new certificates, `stop`."""

    def __init__(self, registrar: Registrar, identity: tls.Identity) -> None:
        self._registrar = registrar
        self._identity = identity
        self._failures = Bursts()
        self._in_flight = 0
        self._tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._tls.minimum_version = ssl.TLSVersion.TLSv1_3
        self.reload()
        app = web.Application(client_max_size=BODY_LIMIT_BYTES)
        app.add_routes([web.get("/v1/ca", self._ca), web.post("/v1/join", self._join)])
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=STOP_GRACE_S)

    def reload(self) -> None:
        """Show the newest certificate from the next connection on."""
        directory = self._identity.directory
        self._tls.load_cert_chain(directory / tls.CERTIFICATE, directory / tls.KEY)

    async def start(self, address: str) -> None:
        """Listen on HOST:PORT; raises ConfigError."""
        host, port = split_address(address)
        await self._runner.setup()
        try:
            await web.TCPSite(self._runner, host, port, ssl_context=self._tls).start()
        except OSError as error:
            raise ConfigError(f"cannot listen on {address}: {error.strerror or error}") from None

    async def stop(self) -> None:
        """Stop listening."""
        await self._runner.cleanup()

    async def _ca(self, _: web.Request) -> web.Response:
        return web.Response(body=self._registrar.authority.certificate)

    async def _join(self, request: web.Request) -> web.Response:
        who = request.remote or ""
        too_many = self._failures.count(who, clock.now_s()) >= FAILURES_LIMIT
        if too_many or self._in_flight >= IN_FLIGHT_LIMIT:
            answer = _problem(429, "too many attempts: wait a minute")
            answer.headers["Retry-After"] = f"{WINDOW_S:.0f}"
            return answer
        self._in_flight += 1
        try:
            return await self._issue(request)
        except (RefusedError, BadRequestError) as error:
            self._failed(who, str(error))
            return _problem(403, str(error))
        except (msgspec.DecodeError, UnicodeDecodeError, TimeoutError):
            self._failed(who, "not a join request")
            return _problem(400, "a join request is JSON with token, csr and name")
        except StoreError as error:
            log.warning("cannot let a node join", extra={"fields": {"error": str(error)}})
            return _problem(503, "the store does not answer: try again; if the token is then "
                            "not known any more, make a new one")  # fmt: skip
        finally:
            self._in_flight -= 1

    async def _issue(self, request: web.Request) -> web.Response:
        async with asyncio.timeout(BODY_TIMEOUT_S):
            asked = msgspec.json.decode(await request.read(), type=JoinRequest)
        csr = asked.csr.encode()
        issued = await self._registrar.join(asked.token, csr, asked.name, asked.hostname)
        peer, ca = issued.peer, self._registrar.authority.bundle.decode()
        fields = {"role": peer.role, "name": peer.name, "serial": peer.serial}
        log.info("joined", extra={"fields": fields})
        return web.json_response({"cert": issued.certificate.decode(), "ca": ca})

    def _failed(self, who: str, problem: str) -> None:
        if self._failures.add(who, clock.now_s()):
            fields = {"from": who, "problem": problem, "failures": self._failures.total}
            log.warning("join refused", extra={"fields": fields})


def _problem(status: int, text: str) -> web.Response:
    return web.json_response({"error": text}, status=status)
