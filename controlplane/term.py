"""One term after the other: elected, leading, deposed, for as long as the process lives.

Rules: everything soft is made for a term and dropped with it; what the store can't give makes us
wait, never end, but for a state that this software can't work with; whoever leaves in order writes
what is left and lets the next lead at once.
"""

from __future__ import annotations

import asyncio
import logging
import random

from controlplane import migrations, state
from controlplane.leader import DeposedError, Election, Tenure
from controlplane.loop import ControlLoop
from controlplane.seat import Seat
from controlplane.settings import Settings
from controlplane.store.protocol import Store, StoreError
from trimtab.runtime.backoff import Backoff
from trimtab.runtime.tasks import TaskRunner

BACKOFF_CAP_S = 1.0  # a store that is back must not wait long for a leader
FLUSH_S = 1.0  # within the lease's time
log = logging.getLogger("controlplane.leader")


class Office:
    """Leads whenever it is elected."""

    def __init__(self, settings: Settings, store: Store, election: Election, seat: Seat) -> None:
        self._settings = settings
        self._store = store
        self._election = election
        self._seat = seat
        self._trouble = ""

    async def run(self) -> None:
        """For ever; when cancelled, leave in order."""
        backoff = Backoff(random.SystemRandom(), cap_s=BACKOFF_CAP_S)
        while True:
            try:
                await self._lead(await self._election.win(self._seat.leave), backoff)
            except DeposedError as error:
                log.warning("leads no longer", extra={"fields": {"reason": str(error)}})
            except StoreError as error:
                self._seat.leave()
                self._note(str(error))
            await asyncio.sleep(backoff.next_s())

    async def _lead(self, tenure: Tenure, backoff: Backoff) -> None:
        """One term; raises DeposedError, StoreError."""
        loop: ControlLoop | None = None
        farewell = "this control plane leads no longer"
        try:
            async with TaskRunner() as runner:
                runner.forever("leader's lease", self._election.keep(tenure))
                await migrations.migrate(self._store, tenure)
                term = await state.next_term(self._store, tenure)
                loop = ControlLoop(self._settings, self._store, term, tenure)
                loop.load(await state.load(self._store))
                self._seat.take(loop)
                backoff.reset()
                self._note("")
                log.info("leads", extra={"fields": {"term": term}})
                await loop.run()
        except asyncio.CancelledError:
            farewell = "the control plane is stopping"
            raise
        finally:
            self._seat.leave()
            if loop is not None:
                loop.end(farewell)
                await self._write_the_rest(loop)
            await self._election.resign(tenure)

    async def _write_the_rest(self, loop: ControlLoop) -> None:
        try:
            async with asyncio.timeout(FLUSH_S):
                await loop.flush()
        except DeposedError:
            pass  # the next leader knows better
        except (StoreError, TimeoutError) as error:
            log.warning("not everything was stored", extra={"fields": {"error": str(error)}})

    def _note(self, trouble: str) -> None:
        """Log the store's trouble when it is new."""
        if trouble and not self._trouble:
            log.error("cannot lead: the store fails", extra={"fields": {"error": trouble}})
        self._trouble = trouble
