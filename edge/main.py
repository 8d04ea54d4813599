"""The edge: wires its parts together and ends them in order."""

from __future__ import annotations

import asyncio
import contextlib
import pathlib
import random
import sys
from collections.abc import Sequence
from contextlib import AsyncExitStack

from aiohttp import web

from edge import questions, ways
from edge.admission import Admission
from edge.config import EdgeConfig, from_args
from edge.core.dispatch import Dispatch
from edge.core.table import RoutingTable
from edge.feed import Feed
from edge.proxy import Proxy
from edge.server import Endpoint, Server, admin_app
from trimtab.policy.autonomy import Mode
from trimtab.runtime import log, service
from trimtab.runtime.listener_tls import ListenerTls
from trimtab.runtime.notify import notify
from trimtab.runtime.renewal import keep_renewed
from trimtab.runtime.service import ConfigError
from trimtab.runtime.targets import Targets
from trimtab.runtime.tasks import TaskRunner
from trimtab.runtime.telemetry import EdgeMetrics

STATUS_PERIOD_S = 1.0
HANDSHAKE_LIMIT_S = 10.0  # a caller that never ends its TLS handshake


async def serve(config: EdgeConfig) -> None:
    """Run until told to stop."""
    stop = service.stop_event()
    table = RoutingTable()
    dispatch = Dispatch(table, random.SystemRandom())
    admission = Admission(table, dispatch)
    metrics = EdgeMetrics()
    feed = Feed(config, table, dispatch, admission, metrics)
    feed.restore()
    async with AsyncExitStack() as stack:
        leading = ways.connect(config.upstream_key, config.fallbacks, metrics)
        proxy = Proxy(table, dispatch, admission, await stack.enter_async_context(leading), metrics)
        feed.tellers = questions.tellers(proxy.decisions, dispatch)
        endpoint = Endpoint(proxy, table, dispatch, config.headers, config.extra_paths)
        tls = _tls(config)
        public = await _listen(Server(endpoint), config, tls)
        admin_runner = web.AppRunner(admin_app(endpoint, metrics, proxy.decisions), access_log=None)
        await admin_runner.setup()
        stack.push_async_callback(admin_runner.cleanup)
        await _listen_app(admin_runner, config.admin_host, config.admin_port)
        async with TaskRunner() as runner:
            runner.forever("feed", feed.run())
            runner.forever("listen", feed.listen_forever())
            runner.forever("snapshot file", feed.save_forever())
            runner.forever("pump", admission.pump_forever())
            runner.forever("keep-alive", proxy.keeper.run())
            if config.identity:
                renewal = keep_renewed(
                    config.identity, Targets(config.controlplane).listed, random.SystemRandom()
                )
                runner.forever("renewal", renewal)
            if tls is not None:
                runner.forever("certificate", tls.follow())
            await feed.settle()
            service.rarely_collect()
            await public.start_serving()
            runner.forever("status", _tell_status(feed, endpoint, dispatch))
            await stop.wait()
            endpoint.draining = True
            notify(stopping=True)
            public.close()
            await _drain(admission, config.drain_s)
            await proxy.tunnels.close()


def _tls(config: EdgeConfig) -> ListenerTls | None:
    if config.tls is None:
        return None
    return ListenerTls(pathlib.Path(config.tls.cert), pathlib.Path(config.tls.key))


async def _listen(server: Server, config: EdgeConfig, tls: ListenerTls | None) -> asyncio.Server:
    """Take the port, without serving yet."""
    loop = asyncio.get_running_loop()
    try:
        return await loop.create_server(
            server,
            config.host,
            config.port,
            backlog=1024,
            reuse_port=config.shares_port or None,
            start_serving=False,
            ssl=tls.context if tls else None,
            ssl_handshake_timeout=HANDSHAKE_LIMIT_S if tls else None,
        )
    except OSError as error:
        raise ConfigError(_cannot_listen(config.host, config.port, error)) from error


async def _listen_app(runner: web.AppRunner, host: str, port: int) -> None:
    try:
        await web.TCPSite(runner, host, port).start()
    except OSError as error:
        raise ConfigError(_cannot_listen(host, port, error)) from error


def _cannot_listen(host: str, port: int, error: OSError) -> str:
    return f"cannot listen on {host}:{port}: {error.strerror or error}"


async def _tell_status(feed: Feed, endpoint: Endpoint, dispatch: Dispatch) -> None:
    await feed.fresh.wait()
    notify(ready=True)
    told = ""
    while True:
        inflight, queued = dispatch.totals()
        upstream_state = "" if feed.connected else ", control plane unreachable"
        mode = "" if dispatch.mode is Mode.NORMAL else f", {dispatch.mode.name}"
        status = f"serving {inflight} requests, {queued} waiting{upstream_state}{mode}"
        if status != told and not endpoint.draining:
            notify(status=status)
            told = status
        await asyncio.sleep(STATUS_PERIOD_S)


async def _drain(admission: Admission, within_s: float) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(within_s):
            await admission.idle()


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; exit status."""
    log.configure("edge")
    try:
        config = from_args(argv)
    except ConfigError as error:
        print(error, file=sys.stderr)  # noqa: T201
        return service.EXIT_CONFIG
    return service.run(serve(config))


if __name__ == "__main__":
    raise SystemExit(main())
