"""The status page: assets, the document, a stream of changes, and the timeline's past.

Rules: nothing can be changed here, every path answers GET and HEAD alone; nothing is loaded from
elsewhere and no script stands in the HTML (`POLICY`); a moment a second is worked out once for all
who watch, and only the history when nobody does; at most WATCHERS_MAX watch, and who reads too
slowly is cut off, as browsers come back and begin anew. Under /public/ is the same without names.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import math
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from importlib import resources
from typing import Any, Protocol

import msgspec
from aiohttp import web

from trimtab import history, status
from trimtab.runtime import clock
from trimtab.runtime.service import ConfigError
from trimtab.runtime.tasks import TaskRunner

WATCHERS_MAX = 32
BEHIND_MAX = 20  # updates: as many seconds
PERIOD_S = 1.0
EDGE_S = 0.02  # into each second, so that a timer which is early stays in its cell
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-cache",
}
TYPES = {
    "html": "text/html; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
}
log = logging.getLogger("page")


class Source(Protocol):
    """What one process knows."""

    def remember(self, at_s: float) -> list[history.Finished]:
        """Note this moment, in seconds since 1970; the cells of the timeline it finished."""

    def look(self, at_s: float) -> status.Look:
        """Everything now."""

    def past(self) -> history.History:
        """Everything before."""

    async def explain(self, replica: str) -> object:
        """Why a replica gets the traffic it gets, as plain data; KeyError for an unknown name."""


class _Channel:
    """Those who watch the same document."""

    def __init__(self) -> None:
        self.watchers: set[asyncio.Queue[bytes | None]] = set()
        self.document: status.Document = {}

    def join(self, document: status.Document) -> asyncio.Queue[bytes | None]:
        """One more; the others go on from the same document."""
        self.tell(document, [])
        watcher: asyncio.Queue[bytes | None] = asyncio.Queue(maxsize=BEHIND_MAX)
        watcher.put_nowait(_event("whole", document))
        self.watchers.add(watcher)
        return watcher

    def tell(self, document: status.Document, cells: list[status.Document]) -> None:
        """What has changed since the last time."""
        change = status.delta(self.document, document) if self.watchers else {}
        message = _event("change", {**change, "cells": cells})
        self.document = document
        for watcher in list(self.watchers):
            if watcher.full():
                self._cut(watcher)
            else:
                watcher.put_nowait(message)

    def end(self) -> None:
        """Nobody watches any more."""
        for watcher in list(self.watchers):
            self._cut(watcher)

    def _cut(self, watcher: asyncio.Queue[bytes | None]) -> None:
        self.watchers.discard(watcher)
        while not watcher.empty():
            watcher.get_nowait()
        watcher.put_nowait(None)


class Page:
    """See the rules at the top of this file."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._assets = _assets()
        self._channels = {False: _Channel(), True: _Channel()}

    def mount(self, app: web.Application) -> None:
        """Put it into an operators' address, at its root."""
        for prefix in ("", "/public"):
            app.router.add_get(f"{prefix}/", self._root)
            app.router.add_get(f"{prefix}/stream", self._stream)
            app.router.add_get(f"{prefix}/history", self._history)
            app.router.add_get(f"{prefix}/assets/{{name}}", self._asset)
        app.router.add_get("/explain/{replica}", self._explain)
        app.on_shutdown.append(self._end)

    async def run(self) -> None:
        """Look once a second, for ever."""
        failed = False
        while True:
            at_s = clock.wall_s()
            await asyncio.sleep(PERIOD_S + EDGE_S - math.fmod(at_s, PERIOD_S))
            try:
                self._tick(clock.wall_s())
                failed = False
            except Exception:  # what shows the fleet must never end it
                if not failed:
                    log.exception("the status page misses moments")
                failed = True

    def _tick(self, at_s: float) -> None:
        finished = self._source.remember(at_s)
        if any(channel.watchers for channel in self._channels.values()):
            cells = status.cells(self._source.past(), finished)
            whole = status.document(self._source.look(at_s))
            for is_public, channel in self._channels.items():
                if channel.watchers:
                    channel.tell(status.public(whole) if is_public else whole, cells)

    def _now(self, request: web.Request) -> status.Document:
        whole = status.document(self._source.look(clock.wall_s()))
        return status.public(whole) if _is_public(request) else whole

    async def _root(self, request: web.Request) -> web.StreamResponse:
        form = request.query.get("format", "html")
        if form == "json":
            return _json(self._now(request))
        if form != "html":
            raise web.HTTPBadRequest(text="format is one of html, json.\n")
        return self._file(request, "index.html")

    async def _asset(self, request: web.Request) -> web.StreamResponse:
        return self._file(request, request.match_info["name"])

    def _file(self, request: web.Request, name: str) -> web.Response:
        found = self._assets.get(name)
        if found is None:
            raise web.HTTPNotFound(text="There is no such part of the page.\n")
        body, tag = found
        headers = {**HEADERS, "etag": f'"{tag}"', "content-type": TYPES[name.rpartition(".")[2]]}
        if request.headers.get("if-none-match") == headers["etag"]:
            return web.Response(status=304, headers=headers)
        return web.Response(body=body, headers=headers)

    async def _history(self, request: web.Request) -> web.StreamResponse:
        span = request.query.get("span", history.SPANS[0].name)
        try:
            view = self._source.past().view(span)
        except KeyError:
            known = ", ".join(one.name for one in history.SPANS)
            raise web.HTTPBadRequest(text=f"span is one of {known}.\n") from None
        response = _json(view)
        response.enable_compression()  # in a thread: it is a megabyte with many replicas
        return response

    async def _explain(self, request: web.Request) -> web.StreamResponse:
        name = request.match_info["replica"]
        try:
            return _json(await self._source.explain(name))
        except KeyError:
            raise web.HTTPNotFound(text="There is no such replica now.\n") from None

    async def _stream(self, request: web.Request) -> web.StreamResponse:
        if sum(len(channel.watchers) for channel in self._channels.values()) >= WATCHERS_MAX:
            raise web.HTTPServiceUnavailable(text=f"{WATCHERS_MAX} others watch already.\n")
        channel = self._channels[_is_public(request)]
        watcher = channel.join(self._now(request))
        response = web.StreamResponse(headers={**HEADERS, "content-type": "text/event-stream"})
        try:
            await response.prepare(request)
            while (message := await watcher.get()) is not None:
                await response.write(message)
        except ConnectionError:
            pass  # it has left
        finally:
            channel.watchers.discard(watcher)
        return response

    async def _end(self, _app: web.Application) -> None:
        for channel in self._channels.values():
            channel.end()


@asynccontextmanager
async def serving(app: web.Application, host: str, port: int, page: Page) -> AsyncIterator[None]:
    """Serve an operators' address with the page on it for the block; raises ConfigError."""
    page.mount(app)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        await _listen(runner, host, port)
        async with TaskRunner() as tasks:
            tasks.forever("status page", page.run())
            yield
    finally:
        await runner.cleanup()


async def _listen(runner: web.AppRunner, host: str, port: int) -> None:
    try:
        await web.TCPSite(runner, host, port).start()
    except OSError as error:
        where = f"cannot listen on {host}:{port}"
        raise ConfigError(f"{where}: {error.strerror or error}") from error


def _assets() -> Mapping[str, tuple[bytes, str]]:
    """Every file of the page, and a tag of its content."""
    folder = resources.files("trimtab.runtime") / "assets"
    files = {file.name: file.read_bytes() for file in folder.iterdir() if file.is_file()}
    known = {name: body for name, body in files.items() if name.rpartition(".")[2] in TYPES}
    return {name: (body, hashlib.sha256(body).hexdigest()[:16]) for name, body in known.items()}


def _is_public(request: web.Request) -> bool:
    return request.path.startswith("/public/")


def _event(name: str, data: Any) -> bytes:
    return b"event: %s\ndata: %s\n\n" % (name.encode(), msgspec.json.encode(data))


def _json(value: Any) -> web.Response:
    body = msgspec.json.encode(value)
    return web.Response(body=body, headers=HEADERS, content_type="application/json")
