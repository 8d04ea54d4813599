"""LiteLLM's virtual keys, from its database as CSV: their hashes are ours, so they go on working.

Rules: a key is left out when what it may ask for is not in its row; what it was limited to and is
not here is said once for all keys; the file has hashes only, and no line shows one whole.
"""

from __future__ import annotations

import csv
import io
import pathlib
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

from trimtab.runtime import config as file
from trimtab.runtime.service import ConfigError

_ALL = {"*", "all-proxy-models"}
_HASH = re.compile(r"[0-9a-f]{64}")
_LIMITS = (
    *("max_parallel_requests", "tpm_limit", "rpm_limit", "tpd_limit", "allowed_routes"),
    *("max_budget", "budget_id", "model_max_budget", "budget_limits"),
)
_NOTHING = {"", "{}", "[]", "null"}
Lines = list[tuple[str, str]]


def read(path: pathlib.Path, known: Sequence[file.Key]) -> tuple[tuple[file.Key, ...], Lines]:
    """The keys of an export beside those known, and a line for what is not carried over."""
    rows = list(csv.DictReader(io.StringIO(file.text_of(path))))
    if not rows or "token" not in rows[0]:
        raise ConfigError(f"{path}: not LiteLLM's keys as CSV: it has no keys, or no column token")
    names, tokens = {key.name for key in known}, {key.sha256 for key in known}
    found: list[file.Key] = []
    lines: Lines = []
    for row in rows:
        token = row["token"] or ""
        name = _unused(row.get("key_alias") or row.get("key_name") or f"key-{token[:8]}", names)
        if reason := _refusal(row):
            lines.append((f"key {name}", reason))
        elif token not in tokens:
            names.add(name)
            tokens.add(token)
            found.append(_key(name, token, row))
    lines.append((f"{len(rows)} keys of {path.name}", f"keys: {len(found)}, by their hashes"))
    return tuple(found), lines + _losses(rows)


def _refusal(row: Mapping[str, str]) -> str:
    """Why a key is left out."""
    if not _HASH.fullmatch(row["token"] or ""):
        return "left out: its token is no SHA-256; a key of an old LiteLLM was made anew"
    if row.get("blocked") in {"t", "true", "True"}:
        return "left out: it is blocked"
    if special := [name for name in _models(row) if name.startswith(("all-team", "no-default"))]:
        return f"left out: its models are {special[0]}; write the names into the column models"
    return ""


def _key(name: str, token: str, row: Mapping[str, str]) -> file.Key:
    models = _models(row)
    everything = not models or bool(_ALL & {*models})
    return file.Key(
        name,
        sha256=token,
        models=None if everything else tuple(models),
        expires=_moment(row.get("expires") or ""),
    )


def _models(row: Mapping[str, str]) -> list[str]:
    """A list as PostgreSQL writes it: {a,"b c"}."""
    text = (row.get("models") or "").strip("{}")
    return [name for name in next(csv.reader([text]), []) if name]


def _moment(text: str) -> str:
    """LiteLLM keeps times in UTC, without saying so."""
    try:
        moment = datetime.fromisoformat(text.strip()) if text else None
    except ValueError:
        raise ConfigError(f'expires: "{text}" is no time like 2027-03-31 18:00:00') from None
    if moment is None:
        return ""
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).isoformat()


def _losses(rows: list[dict[str, str]]) -> Lines:
    """What some keys were limited to and are no more."""
    limited = Counter(name for row in rows for name in _LIMITS if _is_set(row, name))
    lines = [
        (f"{name} of {count} keys", "not here: no limits by rate and no budgets")
        for name, count in limited.items()
    ]
    if teams := sum(_is_set(row, "team_id") and not _models(row) for row in rows):
        text = "look: what their teams may ask for is not in the export; they may ask for all"
        lines.append((f"team_id of {teams} keys", text))
    return lines


def _is_set(row: Mapping[str, str], name: str) -> bool:
    return (row.get(name) or "") not in _NOTHING


def _unused(name: str, names: set[str]) -> str:
    """The name, with a number behind it when another key has it."""
    number = 2
    found = name
    while found in names:
        found, number = f"{name}-{number}", number + 1
    return found
