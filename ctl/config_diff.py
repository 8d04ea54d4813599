"""Two configurations beside each other, and one with where each setting comes from. Pure.

Rules: what is compared are settings by their paths; a key's hash is never shown, only that it is
another one; of what needs a restart only what the file says is compared, as flags may say the rest.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ctl.pages import Page
from ctl.render import Table
from trimtab.runtime import config as file
from trimtab.runtime import live_config
from trimtab.runtime.live_config import HIDDEN, Outline
from trimtab.views import ConfigRevision, ConfigSetting

AT_ONCE = "at once"
WATCHED = "at once, and when an agent is started that watches it"
SECRET = "sha256"  # noqa: S105 - the name of a field
_SIGNS = {(False, True): "+", (True, False): "-", (True, True): "~"}


@dataclass(frozen=True, slots=True)
class Difference:
    """One setting that is another; `before` or `after` None: it is not there."""

    path: str
    before: Any
    after: Any
    restart: str = ""
    """Which processes must be started anew for it; empty: none."""

    @property
    def sign(self) -> str:
        """As in a diff."""
        return _SIGNS[self.before is not None, self.after is not None]

    @property
    def effect(self) -> str:
        """When it counts."""
        if self.restart:
            return f"restart: {self.restart}"
        return WATCHED if self.sign == "+" and self.path.startswith("engines.") else AT_ONCE


def live_differences(before: Outline, after: Outline) -> list[Difference]:
    """What applying would change."""
    found: list[Difference] = []
    for path in sorted(before.keys() | after.keys()):
        old, new = before.get(path), after.get(path)
        if old is None or new is None:
            found.append(Difference(path, _shown(old), _shown(new)))
        else:
            found += _fields(path, old, new)
    return found


def restart_differences(leaders: Sequence[ConfigSetting], base: file.Config) -> list[Difference]:
    """What a file says otherwise than the leader's own, and applying does not change."""
    theirs = {setting.path: json.loads(setting.value) for setting in leaders}
    who = live_config.restarts(base)
    mine = {setting.path: json.loads(setting.value) for setting in live_config.settings(base)}
    return [
        Difference(path, theirs.get(path), value, who[path])
        for path, value in sorted(mine.items())
        if theirs.get(path) != value
    ]


def page(found: Sequence[Difference]) -> Page:
    """As a table, or as data."""
    rows = [(d.sign, d.path, words(d.before), words(d.after), d.effect) for d in found]
    items = tuple(
        {"path": d.path, "before": d.before, "after": d.after, "restart": d.restart or None}
        for d in found
    )
    table = Table(("", "SETTING", "NOW", "THEN", "TAKES EFFECT"), tuple(rows))
    return Page("ConfigDifference", items, tuple(d.path for d in found), table)


def origins(revision: ConfigRevision, config: Outline, settings: Sequence[ConfigSetting]) -> Page:
    """Every setting with where it comes from."""
    whose = f"file of {revision.file_of}" if revision.is_file else f"revision {revision.revision}"
    rows: list[tuple[str, Any, str]] = []
    usual = live_config.defaults()
    for path, fields in sorted(config.items()):
        if path == "edge":
            limits = fields.items()
            rows += [(f"edge.{k}", v, "default" if v == usual[k] else whose) for k, v in limits]
        else:
            rows.append((path, _shown(fields), whose))
    rows += [(one.path, json.loads(one.value), "file of the leader") for one in settings]
    items = tuple({"path": path, "value": value, "origin": origin} for path, value, origin in rows)
    cells = tuple((path, words(value), origin) for path, value, origin in rows)
    names = tuple(path for path, _, _ in rows)
    return Page("ConfigOrigin", items, names, Table(("SETTING", "VALUE", "FROM"), cells))


def words(value: Any) -> str:
    """A value on a line."""
    if value is None:
        return "-"
    if isinstance(value, dict):
        return ", ".join(f"{name} {words(part)}" for name, part in value.items()) or "as it is"
    return value if isinstance(value, str) else json.dumps(value)


def _fields(path: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> list[Difference]:
    return [
        Difference(f"{path}.{name}", _plain(name, old.get(name)), _plain(name, new.get(name)))
        for name in sorted(old.keys() | new.keys())
        if old.get(name) != new.get(name)
    ]


def _shown(fields: Mapping[str, Any] | None) -> dict[str, Any] | None:
    if fields is None:
        return None
    return {name: _plain(name, value) for name, value in fields.items() if name != "name"}


def _plain(name: str, value: Any) -> Any:
    return HIDDEN if name == SECRET else value
