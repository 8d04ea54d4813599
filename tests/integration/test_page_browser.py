"""The status page in a real Chromium: what people see, how wide it is, by day and by night."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace

import pytest
import pytest_asyncio
from playwright.async_api import Browser, Page, Response, expect

from tests.fakes.browser import chromium
from tests.fakes.page import ShownFleet, fleet_of, served, storm
from trimtab import status
from trimtab.runtime import clock
from trimtab.steered import Override, OverrideKind

pytestmark = pytest.mark.asyncio(loop_scope="module")
BUDGET_BYTES = 150_000
HEALTHY = ["gpu0", "gpu2"]
CANARY = "canary-tenant"
expect.set_options(timeout=20_000)  # a loaded machine
PANELS = ("share", "lanes", "admission", "events")


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def browser() -> AsyncIterator[Browser]:
    async with chromium() as found:
        yield found


@dataclass
class Opened:
    """A page in the browser, and everything that it asked for or complained of."""

    page: Page
    url: str
    source: ShownFleet
    complaints: list[str] = field(default_factory=list)
    answers: list[Response] = field(default_factory=list)


@pytest_asyncio.fixture(loop_scope="module")
async def opened(browser: Browser) -> AsyncIterator[Opened]:
    at_s = clock.wall_s()
    source = ShownFleet(fleet_of(HEALTHY, "gpu1"), storm([*HEALTHY, "gpu1"], at_s), since_s=at_s)
    source.tenants = (status.Tenant(CANARY, "m", 3, 4.5, None, 0.7),)
    async with served(source) as url:
        page = await browser.new_page(viewport={"width": 1400, "height": 900})
        found = Opened(page, url, source)
        page.on("console", lambda m: found.complaints.append(m.text) if m.type != "log" else None)
        page.on("pageerror", lambda error: found.complaints.append(str(error)))
        page.on("response", lambda one: found.answers.append(one))  # noqa: PLW0108  # no builtin
        await page.goto(url)
        await drawn(page)
        yield found
        await page.close()
        assert found.complaints == []


async def drawn(page: Page) -> None:
    """Wait for the timeline."""
    for panel in PANELS:
        await expect(page.locator(f"#{panel} canvas")).to_be_visible()


async def ink(page: Page, panel: str) -> int:
    """How many different colours a panel has."""
    script = """id => { const c = document.querySelector(`#${id} canvas`), found = new Set();
        const { data } = c.getContext("2d").getImageData(0, 0, c.width, c.height);
        for (let i = 0; i < data.length; i += 4) if (data[i + 3] > 250)
            found.add(data[i] << 16 | data[i + 1] << 8 | data[i + 2]);
        return found.size; }"""
    found: int = await page.evaluate(script, panel)
    return found


async def test_it_names_the_sick_replica_first_and_loads_nothing_from_elsewhere(
    opened: Opened,
) -> None:
    page = opened.page
    await expect(page.locator("#verdict .word")).to_have_text("▲ DEGRADED")
    await expect(page.locator("#verdict li").first).to_contain_text("gpu1: lost, ejected")
    first = page.locator("#replicas tbody tr").first
    await expect(first).to_contain_text("gpu1")
    await expect(first).to_contain_text("✕")  # not by colour alone
    await expect(first).to_contain_text("ejected, STALLED")
    assert await page.title() == "▲ lab-a"
    assert all(answer.url.startswith(opened.url) for answer in opened.answers)
    parts = [one for one in opened.answers if "/assets/" in one.url or one.url == opened.url]
    assert len(parts) >= 9
    assert sum([len(await one.body()) for one in parts]) < BUDGET_BYTES
    for panel in PANELS:
        assert await ink(page, panel) > 1, panel


async def test_one_cursor_goes_through_all_panels(opened: Opened) -> None:
    page = opened.page
    box = await page.locator("#share .u-over").bounding_box()
    assert box is not None
    await page.mouse.move(box["x"] + 0.95 * box["width"], box["y"] + 20)
    await expect(page.locator("#at")).to_contain_text(re.compile(r"at \d\d:\d\d:\d\d"))
    await expect(page.locator("#lanes-legend .told")).to_contain_text("gpu1: ejected")
    await expect(page.locator("#share-legend span", has_text="gpu1").locator("b")).to_have_text(
        "0 %"
    )
    moved = "e => new DOMMatrix(getComputedStyle(e).transform).m41"
    places = [await page.locator(f"#{p} .u-cursor-x").evaluate(moved) for p in PANELS]
    assert max(places) - min(places) <= 1
    assert places[0] > 0.9 * box["width"]
    await page.mouse.move(box["x"] + 0.3 * box["width"], box["y"] + 20)
    await expect(page.locator("#lanes-legend .told")).to_have_text("")
    await page.mouse.move(5, 5)
    await expect(page.locator("#at")).to_contain_text("now")


async def test_why_opens_the_explanation_with_commands_to_copy(opened: Opened) -> None:
    page = opened.page
    await page.locator("#replicas tr[data-replica=gpu1] button.ask").click()
    why = page.locator("#why")
    await expect(why).to_contain_text("gpu1 gets no new requests: engine STALLED")
    await expect(why.locator("dd").first).to_have_class("BLOCKS")
    chip = why.locator(".chip", has_text="ctl drain gpu1")
    await chip.click()
    await expect(chip).to_have_class(re.compile("copied"))
    await page.keyboard.press("Escape")
    await expect(why).to_be_hidden()
    lanes = await page.locator("#lanes canvas").bounding_box()
    assert lanes is not None
    await page.mouse.click(lanes["x"] + 300, lanes["y"] + 45)  # the second lane
    await expect(why).to_contain_text("every cause")


async def test_it_fits_by_day_and_by_night(opened: Opened) -> None:
    page, background = opened.page, "getComputedStyle(document.body).backgroundColor"
    by_day = await page.evaluate(background)
    await page.emulate_media(color_scheme="dark")
    by_night = await page.evaluate(background)
    assert max(map(int, re.findall(r"\d+", by_night))) < 50
    assert min(map(int, re.findall(r"\d+", by_day))) > 200
    for width in (360, 800, 1400):
        await page.set_viewport_size({"width": width, "height": 780})
        room = await page.locator("#lanes").evaluate("e => e.clientWidth")
        await expect(page.locator("#lanes canvas")).to_have_js_property("clientWidth", room)
        assert await page.evaluate("document.documentElement.scrollWidth") <= width
        await expect(page.locator("#verdict li").first).to_be_in_viewport()
        for part in ("#verdict li button.ask", "#spans button", "#replicas button.ask"):
            assert await page.locator(part).first.is_visible()
        assert await ink(page, "lanes") > 1


async def test_what_changes_is_seen_and_silence_is_told(opened: Opened) -> None:
    page, source = opened.page, opened.source
    hold = Override(OverrideKind.HOLD_OPEN, "gpu3", actor="anna", left_ms=600_000)
    source.fleet = replace(fleet_of([*HEALTHY, "gpu3"], "gpu1"), name="lab-b", overrides=(hold,))
    await expect(page.locator("#replicas tr[data-replica=gpu3]")).to_contain_text("healthy")
    await expect(page.locator("#fleet")).to_have_text("lab-b")
    await expect(page.locator("#verdict li.hand")).to_contain_text("gpu3 is held out, by anna")
    await expect(page.locator("#lanes-legend")).to_contain_text("healthy")
    await page.locator("#spans button", has_text="6h").click()
    await expect(page.locator("#span-name")).to_have_text("6 hours")
    await expect(page.locator("#since")).to_contain_text("this leader began then")
    source.fleet = None  # type: ignore[assignment]  # so nothing is told any more
    await page.evaluate("Date.now = (now => () => now() + 60_000)(Date.now)")
    await expect(page.locator("body")).to_have_class(re.compile("stale"))
    await expect(page.locator("#lost")).to_contain_text("No word from control plane cp1")


async def test_the_public_page_shows_no_tenant_and_asks_nothing(opened: Opened) -> None:
    page = opened.page
    assert CANARY in await page.content()
    await page.goto(f"{opened.url}public/")
    await drawn(page)
    await expect(page.locator("#verdict")).to_contain_text("take requests")
    assert CANARY not in await page.content()
    assert await page.locator("button.ask").count() == 0
    await page.locator("#lanes .u-over").click()
    await expect(page.locator("#why")).to_be_hidden()


async def test_of_several_models_the_one_in_trouble_is_shown_first(opened: Opened) -> None:
    page, fleet = opened.page, opened.source.fleet
    moved = replace(fleet.replicas[0], route=replace(fleet.replicas[0].route, pool="a"))
    none = replace(fleet.replicas[1], route=replace(fleet.replicas[1].route, pool=""))
    pools = (replace(fleet.pools[0], pool="a"), *fleet.pools)
    opened.source.fleet = replace(fleet, replicas=(moved, none, fleet.replicas[2]), pools=pools)
    await page.goto(f"{opened.url}?")
    await drawn(page)
    await expect(page.locator("#replicas tbody tr .name")).to_have_text(["gpu1", "gpu2"])
    await expect(page.locator("#of-pool")).to_have_text(" of m")
    await page.locator(".pool[data-pool=a]").click()
    await expect(page.locator("#replicas tbody tr .name")).to_have_text(["gpu0", "gpu2"])
    assert "pool=a" in page.url


async def test_many_replicas_show_those_with_something_to_tell(opened: Opened) -> None:
    names = [f"node{i // 8}-gpu{i % 8}" for i in range(59)]
    at_s = clock.wall_s()
    opened.source.fleet = fleet_of(names, "sick")
    opened.source.kept = storm([*names, "sick"], at_s, 240)
    page = opened.page
    await page.reload()
    await drawn(page)
    more = page.locator("#more")
    await expect(more).to_contain_text("show all 60")
    await expect(page.locator("#share-legend")).to_contain_text("others")
    await expect(page.locator("#share-legend")).to_contain_text("sick")
    short = await page.locator("#lanes canvas").evaluate("e => e.clientHeight")
    await more.click()
    tall = await page.locator("#lanes canvas").evaluate("e => e.clientHeight")
    assert tall > 30 * short / 2
    await expect(page.locator("#replicas tbody tr")).to_have_count(40)
    await page.locator("#rows").click()
    await expect(page.locator("#replicas tbody tr")).to_have_count(60)
