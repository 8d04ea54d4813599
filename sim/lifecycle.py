"""Life and death of the simulated process: its port, its restarts, and who may order them.

The data port is bound before it listens, so that it is known, and refuses, as vLLM's does while it
starts. One task compares what should be with what is (rule: nothing else opens or closes the
port). Orders come over HTTP on a port of their own, which works whatever the engine's state:
GET, POST (a JSON object to merge) and DELETE (health, revived) of /sim/faults; GET of /sim/counts.
"""

import asyncio
import math
import socket

import msgspec
from aiohttp import web

from sim.driver import Driver, dead_error
from sim.faults import Faults, read_change
from trimtab.runtime.clock import now_s

_CORPSE_S = 0.4  # vLLM's port closes this long after its engine core died
_BACKLOG = 2048


class Lifecycle:
    """Opens and closes the data port as faults, deaths and cold starts demand."""

    def __init__(self, driver: Driver, runner: web.AppRunner, host: str, port: int) -> None:
        self._driver = driver
        self._runner = runner
        self._socket = _bind(host, port)
        self.host, self.port = self._socket.getsockname()[:2]
        self._site: web.SockSite | None = None
        self._changed = asyncio.Event()
        self._settling = asyncio.Lock()
        self._opens_at_s = 0.0
        self._closes_at_s = math.inf
        driver.on_death = self.die

    def restart(self, cold_s: float = 0.0) -> None:
        """Cut everything and start afresh: closed for `cold_s`, then slow for as long."""
        self._cut_connections()
        self._opens_at_s, self._closes_at_s = now_s() + cold_s, math.inf
        self._driver.restart(cold_until_s=self._opens_at_s + cold_s)
        self._changed.set()

    def die(self, mode: str) -> None:
        """The API process (at once) or the engine core (with last words) is gone for good."""
        if self._driver.dead:
            return
        self._driver.dead = True
        if mode == "api":
            self._closes_at_s = now_s()
            self._cut_connections()
        else:
            self._closes_at_s = now_s() + _CORPSE_S
            self._driver.fail_all(dead_error())
        self._changed.set()

    def set_faults(self, faults: Faults) -> None:
        """Let these faults hold; a death that waits for no token comes now."""
        self._driver.set_faults(faults)
        if faults.die_mid_stream is not None and faults.die_mid_stream.after_tokens == 0:
            self.die(faults.die_mid_stream.mode)
        self._changed.set()

    async def settle(self) -> float:
        """Bring the port into the state it should have now; returns when to look again."""
        async with self._settling:
            now = now_s()
            refuse = self._driver.faults.refuse
            await self._set_open(not refuse and self._opens_at_s <= now < self._closes_at_s)
            later = (at for at in (self._opens_at_s, self._closes_at_s) if at > now)
            return min(later, default=math.inf)

    async def run(self) -> None:
        """Keep the port as it should be."""
        while True:
            self._changed.clear()
            again_at_s = await self.settle()
            wait_s = None if again_at_s == math.inf else max(0.0, again_at_s - now_s())
            try:
                async with asyncio.timeout(wait_s):
                    await self._changed.wait()
            except TimeoutError:
                continue

    async def _set_open(self, is_open: bool) -> None:
        if is_open and self._site is None:
            self._site = web.SockSite(self._runner, self._socket, backlog=_BACKLOG)
            await self._site.start()
        elif not is_open and self._site is not None:
            await self._site.stop()
            self._site = None
            self._socket = _bind(self.host, self.port)

    def _cut_connections(self) -> None:
        """Every client's connection ends here, as if the process had been killed."""
        for connection in self._runner.server.connections if self._runner.server else ():
            if connection.transport is not None:
                connection.transport.abort()


class Control:
    """The handlers of /sim/faults and /sim/counts."""

    def __init__(self, lifecycle: Lifecycle, driver: Driver) -> None:
        self._lifecycle = lifecycle
        self._driver = driver

    def app(self) -> web.Application:
        """Its own application, for its own port."""
        app = web.Application()
        app.router.add_get("/sim/faults", self._show)
        app.router.add_post("/sim/faults", self._change)
        app.router.add_delete("/sim/faults", self._clear)
        app.router.add_get("/sim/counts", self._counts)
        return app

    async def _show(self, _request: web.Request) -> web.Response:
        body = msgspec.json.encode(self._driver.faults)
        return web.Response(body=body, content_type="application/json")

    async def _counts(self, _request: web.Request) -> web.Response:
        """What an observer wants to know even of a dead engine: never reset, never refused."""
        driver = self._driver
        counts = {
            "arrived_total": driver.arrived_total,
            "tokens_total": driver.tokens_total,
            "running": driver.engine.num_running,
            "waiting": driver.engine.num_waiting,
        }
        return web.json_response(counts)

    async def _change(self, request: web.Request) -> web.Response:
        try:
            faults, orders = read_change(self._driver.faults, await request.read())
        except ValueError as error:
            raise web.HTTPBadRequest(text=f"{error}\n") from None
        self._lifecycle.set_faults(faults)
        if orders.restart or orders.cold_start_s:
            self._lifecycle.restart(orders.cold_start_s)
        await self._lifecycle.settle()  # an answer means that the change is in force
        return await self._show(request)

    async def _clear(self, request: web.Request) -> web.Response:
        self._lifecycle.set_faults(Faults())
        if self._driver.dead:
            self._lifecycle.restart()
        await self._lifecycle.settle()
        return await self._show(request)


def _bind(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    bound = socket.socket(family, socket.SOCK_STREAM)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    bound.bind((host, port))
    return bound
