"""The pictures of docs/status-page.md: a storm by two rules, a frozen engine, at three widths.

Rules: at most PICTURE_BYTES each; `pngquant` (of Debian) makes them a third as large where it is.
"""

from __future__ import annotations

import base64
import pathlib
import shutil
import subprocess

from msgspec.structs import replace
from playwright.async_api import Browser, Page

from bench.page import storm
from tests.fakes.browser import chromium
from tests.fakes.page import served
from trimtab.runtime.page import Source

FOLDER = pathlib.Path(__file__).parents[2] / "docs" / "images"
WIDE, TABLET, PHONE = 1400, 800, 360
PICTURE_BYTES = 200_000


async def draw() -> None:
    """All of them."""
    theirs, ours = storm.theirs(storm.STORM), storm.ours(storm.STORM)
    sick = storm.ours(replace(storm.STORM, faults=(storm.FROZEN,)))
    FOLDER.mkdir(exist_ok=True)
    async with chromium() as browser:
        halves = [await _shot(browser, source, WIDE, upto="#timeline") for source in (theirs, ours)]
        await _stacked(browser, halves, FOLDER / "status-storm.png")
        for name, width, scheme in (
            ("status-dark", WIDE, "dark"),
            ("status-tablet", TABLET, "light"),
            ("status-phone", PHONE, "light"),
        ):
            (FOLDER / f"{name}.png").write_bytes(await _shot(browser, sick, width, scheme))
    for path in FOLDER.glob("status-*.png"):
        _shrink(path)


def _shrink(path: pathlib.Path) -> None:
    quantizer = shutil.which("pngquant")
    if quantizer:
        subprocess.run(
            [quantizer, "--force", "--skip-if-larger", "--output", path, path], check=False
        )
    if path.stat().st_size > PICTURE_BYTES:
        raise ValueError(f"{path} has {path.stat().st_size} bytes: apt-get install pngquant")


async def _shot(
    browser: Browser, source: Source, width: int, scheme: str = "light", upto: str = "footer"
) -> bytes:
    """The page down to the end of a part of it."""
    async with served(source) as url:
        page = await browser.new_page(viewport={"width": width, "height": 800})
        await page.emulate_media(color_scheme="dark" if scheme == "dark" else "light")
        await page.goto(url)
        await page.wait_for_selector("#lanes canvas")
        await page.wait_for_timeout(500)  # all that it draws first
        box = await page.locator(upto).bounding_box()
        assert box is not None
        height = round(box["y"] + box["height"] + 12)
        clip = {"x": 0, "y": 0, "width": width, "height": height}
        picture = await page.screenshot(full_page=True, clip=clip)  # type: ignore[arg-type]
        await page.close()
        return picture


async def _stacked(browser: Browser, pictures: list[bytes], path: pathlib.Path) -> None:
    """One above the other."""
    page: Page = await browser.new_page(viewport={"width": WIDE, "height": 800})
    sources = [f"data:image/png;base64,{base64.b64encode(one).decode()}" for one in pictures]
    images = "".join(f'<img src="{source}" style="display:block">' for source in sources)
    await page.set_content(f'<body style="margin:0">{images}</body>')
    await page.screenshot(path=path, full_page=True)
    await page.close()
