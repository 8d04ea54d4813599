"""What `trimtab up` says. The texts are pure; Console prints them.

Rules: a line that starts with "ready" appears when all is up, and not before; what is printed to
be pasted works as pasted; colour only on a terminal, and never with NO_COLOR; simulated engines
are called simulated wherever they are mentioned.
"""

from __future__ import annotations

import asyncio
import json
import os
import pathlib
import shlex
import shutil
from collections.abc import Sequence
from typing import TextIO

from standalone.config import Plan
from standalone.discover import PORTS, Found, Kind
from standalone.state import State
from trimtab.runtime import config as file
from trimtab.runtime.shapes import split_address

_BOLD, _DIM, _YELLOW = "1", "2", "33"
_ANY_HOST = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}  # noqa: S104 - shown, not bound
_WHERE = f"127.0.0.1:{PORTS.start}-{PORTS.stop - 1}"
NO_ENGINES = f"no vLLM found on {_WHERE} (to name one: --engine http://host:port)"
SIMULATED = (
    "starting two SIMULATED engines: they behave like vLLM, but no model runs and the answers are"
    " made-up words"
)


def endpoint(listen: str) -> str:
    """The base URL that clients on this machine use."""
    host, port = split_address(listen)
    shown = f"[{host}]" if ":" in host else host
    return f"http://{_ANY_HOST.get(host, shown)}:{port}/v1"


def curl(base_url: str, key: str, model: str) -> str:
    """A chat completion, ready to paste; without a key it takes $TRIMTAB_KEY."""
    body = json.dumps({"model": model, "messages": [{"role": "user", "content": "Say hello"}]})
    bearer = f"'Authorization: Bearer {key}'" if key else '"Authorization: Bearer $TRIMTAB_KEY"'
    content = "'Content-Type: application/json'"
    return f"curl -sS {base_url}/chat/completions -H {bearer} -H {content} -d {shlex.quote(body)}"


def watch(ctl: str, target: str, is_default: bool) -> str:
    """How to look at the fleet."""
    return f"{ctl} status" if is_default else f"{ctl} --server {shlex.quote(target)} status"


def rows(plan: Plan, state: State, base_url: str, key: str, model: str) -> list[tuple[str, str]]:
    """What to do with a fleet that is up; without a known key or model it says so."""
    names = ", ".join(entry.name for entry in plan.base.keys)
    no_model = "no model is ready yet: the next line shows why"
    ctl, page = os.environ.get("TRIMTAB_CTL", "trimtab-ctl"), plan.base.controlplane_metrics
    return [
        ("endpoint", base_url),
        ("key", key or f"those of the configuration: {names}"),
        ("try", curl(base_url, key, model) if model else no_model),
        ("watch", watch(ctl, state.control_target, plan.is_default_state)),
        *([("page", f"http://{page}/")] if page else []),
        ("logs", str(state.logs)),
    ]


def found_lines(found: Sequence[Found]) -> list[str]:
    """What looking for engines brought up."""
    lines = []
    for item in found:
        if item.kind is Kind.VLLM:
            lines.append(f"found {item.url}: vLLM {item.version}, serves {', '.join(item.models)}")
        elif item.kind is Kind.LOCKED:
            lines.append(f"found {item.url}: vLLM {item.version}, wants a key")
        elif item.kind is Kind.OTHER:
            lines.append(f"left alone {item.url}: it answers, but not like vLLM")
    return lines


def serving(model: str, engines: Sequence[file.Engine], logs: pathlib.Path) -> list[str]:
    """Which engines are started, and where each writes its log."""
    each = [f"  {engine.name}  {engine.url}  {logs / engine.name}.log" for engine in engines]
    return [f"starting vLLM for {model}:", *each]


def loading(page: str | None) -> str:
    """While no engine is ready."""
    shown = f"; the page http://{page}/ shows them" if page else ""
    return f"the endpoint is up, and waits for its engines{shown}"


def warning(item: Found, has_key: bool) -> str:
    """One sentence about a named engine that does not answer as it should; "" when it does."""
    going_on = "going on, because it may be starting"
    match item.kind:
        case Kind.VLLM:
            return ""
        case Kind.LOCKED:
            wrong = "does not take the key in" if has_key else "wants a key: set"
            return f"{item.url} {wrong} TRIMTAB_UPSTREAM_KEY or upstream_key"
        case Kind.REFUSED:
            return f"nobody listens at {item.url}: {going_on}"
        case Kind.SILENT:
            return f"{item.url} does not answer within a second: {going_on}"
        case Kind.OTHER:
            return f"{item.url} answers, but not like vLLM: {going_on}"


class Console:
    """Prints to people, and is the supervisor's audience."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._is_terminal = stream.isatty()
        self._has_colour = self._is_terminal and not os.environ.get("NO_COLOR")
        self._statuses: dict[str, str] = {}
        self._shown = ""
        self.has_engine = asyncio.Event()
        """Whether one that was started here has been ready."""

    @property
    def status_period_s(self) -> float:
        """How often a new status is worth a line."""
        return 1.0 if self._is_terminal else 10.0

    def say(self, text: str, style: str = "") -> None:
        """Print a line."""
        text = f"\x1b[{style}m{text}\x1b[0m" if style and self._has_colour else text
        if self._is_terminal and self._shown:
            text = f"\r\x1b[K{text}"
            self._shown = ""
        print(text, file=self._stream, flush=True)

    def warn(self, text: str) -> None:
        """Print what needs attention."""
        self.say(f"! {text}", _YELLOW)

    def ready(self, seconds: float, rows: Sequence[tuple[str, str]]) -> None:
        """All is up; the rows say what to do with it."""
        self.say(f"ready in {seconds:.1f} s", _BOLD)
        width = max(len(name) for name, _ in rows)
        for name, text in rows:
            self.say(f"  {name.ljust(width)}  {text}")
        self.say("Ctrl-C ends everything in order", _DIM)

    def died(self, name: str, how: str, wait_s: float, log: pathlib.Path) -> None:
        """A child ended by itself and will be started again."""
        self._statuses.pop(name, None)
        again = f"starting it again in {wait_s:.1f} s ({log})"
        self.warn(f"{name} {how}\n  {again}" if "\n" in how else f"{name} {how}: {again}")

    def back(self, name: str) -> None:
        """A child that had died is ready again."""
        if not name.startswith("edge"):
            self._statuses.pop(name, None)  # of its loading
        self.say(f"{name} is back")

    def loaded(self, name: str) -> None:
        """An engine is ready for the first time."""
        self._statuses.pop(name, None)
        self.has_engine.set()
        self.say(f"{name} is ready")

    def given_up(self, why: str) -> None:
        """An engine is not started again; the others go on."""
        self.warn(why)

    def status(self, name: str, text: str) -> None:
        """Keep the edges' and engines' words for `show_status`; the rest is in `ctl status`."""
        if name not in {"controlplane", "agent"}:
            self._statuses[name] = text if name == "edge" else f"{name} {text}"

    async def keep_showing(self, up: asyncio.Event) -> None:
        """Show what is new, now and then, once all are up."""
        await up.wait()
        while True:
            await asyncio.sleep(self.status_period_s)
            self.show_status()

    def show_status(self) -> None:
        """Show the newest status if it is news: on a terminal always in the same line."""
        status = "; ".join(text for _, text in sorted(self._statuses.items()))
        if status == self._shown:
            return
        if self._is_terminal:
            text = status[: shutil.get_terminal_size().columns - 1]
            print(f"\r\x1b[K{text}", end="", file=self._stream, flush=True)
        else:
            self.say(status)
        self._shown = status
