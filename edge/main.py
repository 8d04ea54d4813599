"""The edge: wires its parts together and ends them in order."""

from __future__ import annotations

import pathlib
import random
import sys
from collections.abc import Sequence
from contextlib import AsyncExitStack

from edge import listening, questions, tracing, ways
from edge.admission import Admission
from edge.beliefs import Beliefs
from edge.config import EdgeConfig, from_args
from edge.core.dispatch import Dispatch
from edge.core.table import RoutingTable
from edge.feed import Feed
from edge.http.server import serving
from edge.metrics import EdgeMetrics
from edge.proxy import Proxy
from edge.reload import Configured
from edge.server import Endpoint, admin_app
from trimtab.policy.autonomy import Mode
from trimtab.runtime import log, page, service
from trimtab.runtime.listener_tls import ListenerTls
from trimtab.runtime.notify import notify, stay_alive
from trimtab.runtime.page import Page
from trimtab.runtime.reload import Reloading
from trimtab.runtime.renewal import keep_renewed
from trimtab.runtime.service import ConfigError
from trimtab.runtime.targets import Targets
from trimtab.runtime.tasks import TaskRunner
from trimtab.runtime.tls import Identity

STATUS_PERIOD_S = 1.0
STOP_MARGIN_S = 10.0


async def serve(config: EdgeConfig) -> None:
    """Run until told to stop."""
    stop = service.stop_event()
    table = RoutingTable()
    dispatch = Dispatch(table, random.Random())  # noqa: S311 - where a request goes is no secret
    admission = Admission(table, dispatch)
    metrics = EdgeMetrics(dispatch, config.identity, tls := _tls(config))
    feed = Feed(config, table, dispatch, admission, metrics)
    feed.restore()
    async with AsyncExitStack() as stack:
        leading = ways.connect(config.upstream_key, config.fallbacks, metrics)
        proxy = Proxy(table, dispatch, admission, await stack.enter_async_context(leading), metrics)
        endpoint = Endpoint(proxy, table, dispatch, config.headers, config.extra_paths)
        endpoint.finished.append(metrics.turned_away)
        await stack.enter_async_context(tracing.exported(config.otlp, endpoint, table, metrics))
        configured = Configured(config, endpoint, metrics)
        stack.push_async_callback(configured.access.close)
        await stack.enter_async_context(proxy.ledgers.shared(config.workers))
        callers = await stack.enter_async_context(serving(endpoint.handle, endpoint.refuse))
        public = await listening.public(callers, config, tls)
        feed.tellers = questions.tellers(proxy.decisions, proxy.arrivals, dispatch, tls)
        beliefs = Beliefs(config, table, dispatch, admission, endpoint, proxy, feed)
        operators = admin_app(endpoint, metrics, proxy.decisions), *config.admin_address
        await stack.enter_async_context(page.serving(*operators, Page(beliefs)))
        async with TaskRunner() as runner:
            _keep_up(runner, config, tls)
            reloading = configured.follow(runner, tls)
            _follow(runner, feed)
            runner.forever("pump", admission.pump_forever())
            runner.forever("keep-alive", proxy.keeper.run())
            await feed.settle()
            service.rarely_collect()
            await public.start_serving()
            runner.forever("status", _tell_status(feed, endpoint, dispatch, metrics, reloading))
            await stop.wait()
            endpoint.draining = True
            notify(stopping=True, more_s=configured.now.drain_s + STOP_MARGIN_S)
            public.close()
            await callers.retire(configured.now.drain_s)
            await proxy.tunnels.close()


def _keep_up(runner: TaskRunner, config: EdgeConfig, tls: ListenerTls | None) -> None:
    """Signs of life, and certificates that do not expire."""
    runner.forever("watchdog", stay_alive())
    if config.identity:
        runner.forever("renewal", _renewal(config.identity, config.controlplane))
    if tls is not None:
        runner.forever("certificate", tls.follow())


def _follow(runner: TaskRunner, feed: Feed) -> None:
    """Do as the control plane says."""
    runner.forever("feed", feed.run())
    runner.forever("listen", feed.listen_forever())
    runner.forever("snapshot file", feed.save_forever())


async def _renewal(identity: Identity, controlplane: str) -> None:
    await keep_renewed(identity, Targets(controlplane).listed, random.SystemRandom())


def _tls(config: EdgeConfig) -> ListenerTls | None:
    if config.tls is None:
        return None
    return ListenerTls(pathlib.Path(config.tls.cert), pathlib.Path(config.tls.key))


async def _tell_status(
    feed: Feed,
    endpoint: Endpoint,
    dispatch: Dispatch,
    metrics: EdgeMetrics,
    reloading: Reloading,
) -> None:
    await feed.fresh.wait()
    notify(ready=True)
    told = ""
    while True:
        inflight, queued = dispatch.totals()
        upstream_state = "" if feed.connected else ", control plane unreachable"
        mode = "" if dispatch.mode is Mode.NORMAL else f", {dispatch.mode.name}"
        status = f"serving {inflight} requests, {queued} waiting{upstream_state}{mode}"
        status = "; ".join(filter(None, (status, reloading.problem)))
        if status != told and not endpoint.draining:
            notify(status=status)
            told = status
        await metrics.sleep(STATUS_PERIOD_S)


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
