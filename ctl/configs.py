"""The fleet's configuration as commands see it: asked for, compared, applied, taken back.

Rules: what is applied was compared with what is in effect, and is refused when that is another one
by then; nobody is asked who is not there; every change says how it is undone.
"""

from __future__ import annotations

import asyncio
import datetime
import pathlib
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import typer

from ctl import config_diff
from ctl.care import actor
from ctl.client import DEADLINE_S, Client, identity
from ctl.columns import text
from ctl.config_diff import Difference
from ctl.exits import CtlError, Exit
from ctl.options import Format
from ctl.pages import Page
from ctl.render import Table, item
from ctl.screen import Screen
from trimtab import codec
from trimtab.runtime import config as file
from trimtab.runtime import live_config
from trimtab.runtime.service import ConfigError
from trimtab.v1 import config_pb2 as pb
from trimtab.v1.config_pb2_grpc import ConfigServiceStub as Stub
from trimtab.views import ConfigRevision, ConfigSetting, LiveConfig


@dataclass(frozen=True, slots=True)
class Kept:
    """One configuration, where it comes from, and what else the leader's file says."""

    revision: ConfigRevision
    config: LiveConfig
    settings: tuple[ConfigSetting, ...]
    current: int


def run(target: str, work: Callable[[Configs], Awaitable[Exit]]) -> Exit:
    """Do something with them."""

    async def connected() -> Exit:
        return await work(Configs(Client(target, identity())))

    return asyncio.run(connected())


def load(path: str) -> file.Config:
    """A file; CtlError when it may not be used."""
    try:
        base = file.load(pathlib.Path(path))
        live_config.live(base)  # the keys' texts are found
    except ConfigError as error:
        raise CtlError(Exit.USAGE, str(error)) from None
    return base


class Configs:
    """ConfigService."""

    def __init__(self, client: Client) -> None:
        self._client = client

    async def get(self, revision: int | None = None) -> Kept:
        """What is in effect, or was."""
        request = pb.GetConfigRequest(revision=revision)
        answer = await self._client.ask(
            lambda channel: Stub(channel).GetConfig(request, **self._how)
        )
        return Kept(
            codec.decode(answer.revision, ConfigRevision),
            codec.decode(answer.config, LiveConfig),
            tuple(codec.decode(one, ConfigSetting) for one in answer.settings),
            answer.current,
        )

    async def history(self) -> tuple[list[ConfigRevision], int]:
        """The newest last, and which is in effect."""
        request = pb.ListConfigsRequest()
        answer = await self._client.ask(
            lambda channel: Stub(channel).ListConfigs(request, **self._how)
        )
        return [codec.decode(one, ConfigRevision) for one in answer.revisions], answer.current

    async def apply(self, request: pb.ApplyConfigRequest) -> int:
        """The revision that is in effect then."""
        answer = await self._client.ask(
            lambda channel: Stub(channel).ApplyConfig(request, **self._how)
        )
        return answer.revision

    @property
    def _how(self) -> dict[str, Any]:
        return {"timeout": DEADLINE_S, "metadata": self._client.metadata}


async def compare(configs: Configs, base: file.Config) -> tuple[Kept, list[Difference]]:
    """What is in effect, and what a file says otherwise."""
    now = await configs.get()
    before, after = live_config.outline(now.config), live_config.outline(live_config.live(base))
    live = config_diff.live_differences(before, after)
    return now, [*live, *config_diff.restart_differences(now.settings, base)]


@dataclass(frozen=True, slots=True)
class Order:
    """What somebody wants changed: to a file's, or to a revision's."""

    screen: Screen
    reason: str
    yes: bool


async def apply(configs: Configs, base: file.Config, order: Order) -> None:
    """Put a file's live part into effect."""
    now, found = await compare(configs, base)
    live = [difference for difference in found if not difference.restart]
    wanted = codec.encode(live_config.live(base))
    request = pb.ApplyConfigRequest(config=wanted, expected_revision=now.current)
    if not base.keys:
        order.screen.talk("it has no keys: nobody could call")
    await _put(configs, request, found, live, order)


async def rollback(configs: Configs, revision: int, order: Order) -> None:
    """Put a kept one into effect again."""
    now, then = await configs.get(), await configs.get(revision)
    before, after = live_config.outline(now.config), live_config.outline(then.config)
    live = config_diff.live_differences(before, after)
    request = pb.ApplyConfigRequest(rollback_to=revision, expected_revision=now.current)
    await _put(configs, request, live, live, order)


async def _put(
    configs: Configs,
    request: pb.ApplyConfigRequest,
    found: list[Difference],
    live: list[Difference],
    order: Order,
) -> None:
    screen, before = order.screen, request.expected_revision
    if found:
        screen.data(config_diff.page(found).text(screen, Format.TABLE))
    if live and not order.yes:
        _ask()
    request.reason, request.actor = order.reason, actor()
    revision = await configs.apply(request)
    if revision == before:
        screen.data(f"revision {revision} says so already; nothing was applied\n")
    else:
        screen.data(f"revision {revision} is in effect, at every edge that is connected\n")
        screen.talk(f"Undo: ctl config rollback {before}")
    if len(live) < len(found):
        screen.talk(f"{len(found) - len(live)} of these need a restart, and are not in effect")


def history(revisions: list[ConfigRevision], current: int) -> Page:
    """As a table, the newest first."""
    rows = [
        (
            f"{one.revision}{' *' * (one.revision == current)}",
            _when(one.at_ms),
            text(one.actor),
            "the leader's file" if one.is_file else _sizes(one),
            text(one.reason),
        )
        for one in reversed(revisions)
    ]
    table = Table(("REVISION", "WHEN", "WHO", "WHAT", "WHY"), tuple(rows))
    items = tuple({**item(one), "in_effect": one.revision == current} for one in revisions)
    return Page("ConfigRevision", items, tuple(str(one.revision) for one in revisions), table)


def source(revision: ConfigRevision) -> str:
    """Where a configuration comes from, in a sentence."""
    if revision.is_file:
        return f"the file of {text(revision.file_of)}"
    why = f": {text(revision.reason)}" if revision.reason else ""
    return (
        f"revision {revision.revision}, applied {_when(revision.at_ms)} by "
        f"{text(revision.actor)}{why}"
    )


def _sizes(one: ConfigRevision) -> str:
    return f"{one.pools} pools, {one.engines} engines, {one.keys} keys"


def _when(at_ms: int) -> str:
    moment = datetime.datetime.fromtimestamp(at_ms / 1000).astimezone()
    return moment.strftime("%Y-%m-%d %H:%M:%S")


def _ask() -> None:
    if not sys.stdin.isatty():
        raise CtlError(Exit.USAGE, "nobody is there to ask: say --yes. Nothing was applied.")
    if not typer.confirm("Apply it?", err=True):
        raise CtlError(Exit.FAILED, "Nothing was applied.")
