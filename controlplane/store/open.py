"""Which store this control plane has: the only place that chooses."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections.abc import AsyncIterator, Iterator

from controlplane.config import ControlConfig, EtcdConfig
from controlplane.store.embedded import EmbeddedStore
from controlplane.store.etcd import EtcdStore
from controlplane.store.etcd_client import UnreachableError
from controlplane.store.protocol import Store, StoreError
from trimtab.runtime import clock
from trimtab.runtime.backoff import Backoff
from trimtab.runtime.service import ConfigError
from trimtab.runtime.tasks import TaskRunner

BACKOFF_CAP_S = 2.0
log = logging.getLogger("controlplane.store")


@contextlib.asynccontextmanager
async def opened(config: ControlConfig, stop: asyncio.Event) -> AsyncIterator[Store | None]:
    """The store, for the length of the block; raises ConfigError when there can be none.

    An etcd that does not answer is waited for; None when we are told to stop before it does.
    """
    if config.etcd is not None:
        store: EmbeddedStore | EtcdStore | None = await _etcd(config.etcd, stop)
    elif config.store is not None:
        with _as_config_error():
            store = await EmbeddedStore.open(config.store, clock.now_s)
    else:
        raise ConfigError("nowhere to keep state")
    if store is None:
        yield None
        return
    try:
        async with TaskRunner() as runner:
            if isinstance(store, EmbeddedStore):  # etcd ends leases by itself
                runner.forever("lease expiry", store.expire_leases())
            yield store
    finally:
        await store.close()


async def _etcd(config: EtcdConfig, stop: asyncio.Event) -> EtcdStore | None:
    backoff = Backoff(random.SystemRandom(), cap_s=BACKOFF_CAP_S)
    told = False
    while not stop.is_set():
        try:
            with _as_config_error():
                return await EtcdStore.open(config.access, config.prefix)
        except UnreachableError as error:
            if not told:
                log.warning("waiting for etcd", extra={"fields": {"error": str(error)}})
                told = True
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(backoff.next_s()):
                await stop.wait()
    return None


@contextlib.contextmanager
def _as_config_error() -> Iterator[None]:
    try:
        yield
    except UnreachableError:
        raise  # that may pass
    except StoreError as error:
        raise ConfigError(str(error)) from error
