"""A real Chromium for tests, without a screen.

It is the system's own (on Debian: apt-get install chromium, which `.ci/run` does). Without one, the
tests that want it say so and are skipped; under CI that would hide them, and is a failure.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from playwright.async_api import Browser, async_playwright

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
MISSING = "no chromium on this machine: apt-get install chromium, and the page is tested, too"


def program() -> str:
    """Where it is; skips the test where it is not."""
    found = next((path for path in map(shutil.which, NAMES) if path), "")
    if not found and os.environ.get("CI") == "true":
        pytest.fail(MISSING)
    if not found:
        pytest.skip(MISSING)
    return found


@asynccontextmanager
async def chromium() -> AsyncIterator[Browser]:
    """One, for the length of the block."""
    path = program()
    flags = ["--no-sandbox"] if os.geteuid() == 0 else []  # it refuses root without
    async with async_playwright() as play:
        browser = await play.chromium.launch(executable_path=path, args=flags)
        try:
            yield browser
        finally:
            await browser.close()
