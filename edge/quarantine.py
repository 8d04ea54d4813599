"""Keeps prompts that break engines away from the rest of them: policy/poison at this edge.

Rules: a prompt is hashed only when there is something to ask or to tell, as hashing takes time;
what is logged is the id of the request that made it known, never the prompt, nor its hash.
"""

from __future__ import annotations

import logging
import secrets

from edge.core import problems
from edge.core.dispatch import Dispatch, Placement
from edge.core.openai import Call
from edge.core.problems import Problem
from trimtab.policy.classify import Failure
from trimtab.policy.poison import Guard, fingerprint
from trimtab.runtime import clock

log = logging.getLogger("edge.quarantine")


class Quarantine:
    """Whose requests of what kind may not run now."""

    def __init__(self, dispatch: Dispatch) -> None:
        self._dispatch = dispatch
        self._guard = Guard()
        self._secret = secrets.token_bytes(32)

    @property
    def is_empty(self) -> bool:
        """Whether nothing may be refused."""
        return not len(self._guard)

    def refusal(self, tenant: str, call: Call) -> Problem | None:
        """Why a request may not run."""
        if self.is_empty:
            return None
        incident = self._guard.incident(self._prompt(tenant, call), clock.now_s())
        return problems.quarantined(incident) if incident else None

    def blame(self, placement: Placement, failure: Failure, call: Call, request_id: str) -> None:
        """An attempt failed before its first byte: that may be the prompt's own doing."""
        way = self._dispatch.strike(placement, failure)
        if way is None:
            return
        prompt, now_s = self._prompt(placement.ticket.tenant, call), clock.now_s()
        self._guard.struck(prompt, way, placement.route.replica, request_id, now_s)
        if incident := self._guard.incident(prompt, now_s):
            fields = {"incident": incident.name, "way": way.name, "replicas": incident.replicas}
            log.warning("a prompt is blocked: replicas fail on it", extra={"fields": fields})

    def _prompt(self, tenant: str, call: Call) -> bytes:
        return fingerprint(self._secret, tenant, call.path, call.body)
