"""Settings that every test runs under."""

from __future__ import annotations

import os

from hypothesis import settings

# no deadlines: the machine may be busy, and time is measured by benches, not asserted by tests
settings.register_profile("default", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "default")
