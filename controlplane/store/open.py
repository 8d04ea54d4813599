"""Which store this control plane has: the only place that chooses."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator

from controlplane.config import ControlConfig
from controlplane.store.embedded import EmbeddedStore
from controlplane.store.etcd import EtcdStore
from controlplane.store.protocol import Store, StoreError
from trimtab.runtime import clock
from trimtab.runtime.service import ConfigError
from trimtab.runtime.tasks import TaskRunner


@contextlib.asynccontextmanager
async def opened(config: ControlConfig) -> AsyncIterator[Store]:
    """The store, for the length of the block; raises ConfigError when there is none."""
    store: EmbeddedStore | EtcdStore
    try:
        if config.etcd is not None:
            store = await EtcdStore.open(config.etcd.access, config.etcd.prefix)
        elif config.store is not None:
            store = await EmbeddedStore.open(config.store, clock.now_s)
        else:
            raise ConfigError("nowhere to keep state")
    except StoreError as error:
        raise ConfigError(str(error)) from error
    try:
        async with TaskRunner() as runner:
            if isinstance(store, EmbeddedStore):  # etcd ends leases by itself
                runner.forever("lease expiry", store.expire_leases())
            yield store
    finally:
        await store.close()
