"""Settings that every test runs under."""

from __future__ import annotations

import os
import signal

from hypothesis import HealthCheck, settings

# no deadlines: the machine may be busy, and time is measured by benches, not asserted by tests
BUSY = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("default", BUSY)
settings.register_profile("ci", BUSY, derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "default")

# a shell's background job ignores SIGINT, and so would all that tests start and then interrupt
signal.signal(signal.SIGINT, signal.default_int_handler)
