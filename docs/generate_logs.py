"""Writes docs/logs.md from the sources: `./run docs` (write) or `./run docs --check`.

Rules: what the page says of a field of the access log is the comment below it in
edge/core/access.py; the other lines are found where they are written, so that none is missing.
"""

from __future__ import annotations

import ast
import itertools
from collections.abc import Iterator

from docs import generated

ROOT = generated.ROOT
PAGE = ROOT / "docs/logs.md"
PARTS = ("agent", "controlplane", "edge", "trimtab/runtime")
EVERY_PART = "every part"
WORDS = {
    "str": "text",
    "int": "integer",
    "float": "number",
    "bool": "true or false",
    "int | None": "integer or null",
    "list[str]": "list of text",
    "str | msgspec.UnsetType": "text",
}
LEVELS = {"info": "info", "warning": "warning", "error": "error", "exception": "error"}
INTRO = """\
<!-- Generated from edge/core/access.py and from where lines are written, by `./run docs`. -->
# Logs

Every line is one JSON object. Three kinds: the **access log** of an edge, a line a request; the
**events**, a line whenever something has changed; and, if Python itself fails, an event with a
`trace`. Prompts, answers, names of files, arguments of tools, keys, tokens and private keys are in
none of them, nor in traces, metrics, the store, snapshots, `ctl explain` or the status page:
`tests/e2e/test_canary.py` sends strings through everything that callers control and looks for them
in all that the processes write and serve. What callers say and is shown: their `x-request-id` (64
printable ASCII characters), their trace id, and the name of a model, if there is one of that name.

```sh
journalctl -u 'trimtab-*' -o cat -f | jq -c 'select(.event != "request")'        # what changes
journalctl -u 'trimtab-edge@*' -o cat | jq -c 'select(.outcome == "shed")'        # who was refused
journalctl -u 'trimtab-edge@*' -o cat | jq -c 'select(.request_id == "req_...")'  # one request
```

## The access log

```yaml
edge:
  access_log:
    lines: all              # all, errors (by default: what did not go well at once), none
    file: /var/log/trimtab/access.log    # by default standard output: the journal
    client_address: true    # by default no address is written
```

`kill -HUP` or `systemctl reload` puts another choice into effect. A file is opened anew five times
a second, so logrotate needs no signal and no `copytruncate`; all workers of an edge may share one.
A line costs an edge about 6 us, off the path of the request; when nobody takes the lines (a full
disk, a journal that stands still), the edge keeps 16,384 and drops the rest, counted in
`trimtab_edge_access_lines_dropped_total`. journald itself keeps 10,000 lines in 30 s of a service;
`trimtab-edge@.service` lifts that. `/healthz` and `/readyz` get no line. Under `trimtab up` lines
are in `logs/edge.log` of the state directory. Of the file, logrotate keeps two weeks by

```
/var/log/trimtab/access.log {
    daily
    rotate 14
    compress
    delaycompress
    missingok
    su trimtab trimtab
}
```

Every line has every field, but `client`:

| field | value | meaning |
|---|---|---|
"""
EVENTS = """
## Events

On standard error, each with `ts` (seconds since 1970), `level`, `service` (`agent`, `controlplane`,
`edge`), `event`, and fields that say which, from what to what and why. A state is said when it
changes, not while it lasts; a trouble when it begins and when it is over. What may come from many
peers or requests at once is bounded, and says how many lines were left out.

| event | level | of |
|---|---|---|
"""


def page() -> str:
    """The whole page."""
    lines = [f"| {text} | {level} | {part} |" for text, level, part in events()]
    return INTRO + "\n".join(fields()) + "\n" + EVENTS + "\n".join(lines) + "\n"


def fields() -> Iterator[str]:
    """A row for each attribute of Line, with the text below it."""
    tree = ast.parse((ROOT / "edge" / "core" / "access.py").read_text())
    (line,) = (n for n in tree.body if isinstance(n, ast.ClassDef) and n.name == "Line")
    for field, below in itertools.pairwise(line.body):
        match field, below:
            case (
                ast.AnnAssign(target=ast.Name(id=name), annotation=kind),
                ast.Expr(value=ast.Constant(value=str(text))),
            ):
                yield f"| `{name}` | {WORDS[ast.unparse(kind)]} | {' '.join(text.split())} |"
            case _:
                continue


def events() -> list[tuple[str, str, str]]:
    """Text, level and part of every event that is written with a text of its own."""
    found = set()
    for part in PARTS:
        for path in sorted((ROOT / part).rglob("*.py")):
            who = EVERY_PART if part.startswith("trimtab") else part
            tree = ast.parse(path.read_text())
            found |= {(*event, who) for event in _events(tree)}
    return sorted(found)


def _events(tree: ast.Module) -> Iterator[tuple[str, str]]:
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        texts = [text for argument in node.args for text in _texts(argument)]
        match node.func:
            case ast.Attribute(value=ast.Name(id="log"), attr=level) if level in LEVELS:
                yield from ((text, LEVELS[level]) for text in texts[:1])
            case ast.Attribute(value=ast.Name(id="log"), attr="log"):
                yield from ((text, "info or warning") for text in texts[:1])
            case ast.Name(id="Noted"):
                yield from ((text, "info") for text in texts[:1])
            case ast.Name(id="Trouble"):
                yield from zip(texts, ("warning", "info"), strict=True)
            case _:
                continue


def _texts(node: ast.expr) -> Iterator[str]:
    """The text itself, not its parts; of a starred tuple each one."""
    match node:
        case ast.Constant(value=str(text)):
            yield text
        case ast.Starred(value=ast.Tuple(elts=elements)):
            for element in elements:
                yield from _texts(element)
        case _:
            return


if __name__ == "__main__":
    raise SystemExit(generated.main(lambda: {PAGE: page()}))
