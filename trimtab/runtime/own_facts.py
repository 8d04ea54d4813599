"""What a process of ours can tell of itself for `ctl doctor`."""

from __future__ import annotations

import os
import pathlib
import resource

from trimtab.facts import ProcessFacts
from trimtab.runtime import clock

_DESCRIPTORS = pathlib.Path("/proc/self/fd")


def own_facts(certificate_expires_s: float | None = None) -> ProcessFacts:
    """Now; the certificate is the one that clients are shown, in seconds since 1970."""
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    expires_ms = None if certificate_expires_s is None else round(1000 * certificate_expires_s)
    opened = len(os.listdir(_DESCRIPTORS)) if _DESCRIPTORS.exists() else 0
    return ProcessFacts(round(1000 * clock.wall_s()), opened, min(limit, 2**31), expires_ms)
