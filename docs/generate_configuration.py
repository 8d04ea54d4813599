"""Writes docs/configuration.md from the schema: `./run docs` (write) or `./run docs --check`.

Rule: what the page says of a key is the comment below that key in trimtab/runtime/config.py, its
type and its default; there is no second text to keep in step.
"""

from __future__ import annotations

import argparse
import ast
import inspect
import itertools
import pathlib
import sys
import types
import typing

import msgspec

from trimtab.runtime import config, live_config

PAGE = pathlib.Path(__file__).with_name("configuration.md")
SECTIONS = (
    config.Config,
    config.Pool,
    config.Engine,
    config.Fallback,
    config.Key,
    config.Secret,
    config.Etcd,
    config.EdgeLimits,
    config.Remediation,
    config.AccessLog,
    config.Certificate,
    config.Tls,
)
# They stand only below settings that need a restart; RESTARTS says whose.
PARTS_OF_A_RESTART = (
    config.Fallback,
    config.Etcd,
    config.Remediation,
    config.Certificate,
    config.Tls,
)
PLAIN = {str: "text", int: "integer", float: "number", bool: "true or false"}
INTRO = """\
<!-- Generated from trimtab/runtime/config.py by `./run docs`: change it there. -->
# Configuration

One file, YAML or JSON, read by every binary with `--config FILE`; flags override it. `trimtab up`
needs none. Every key is optional unless it is marked. Unknown keys, wrong types and names used
twice are errors, and all of them are listed at once with line and column. Secrets are references,
so the file can live in git. YAML aliases are refused; the file may have 1 MiB.

What is *live* is put into effect by `ctl config apply FILE`, at once and while everything runs
([how](live-configuration.md)); the rest is read by the named processes when they start.

```yaml
pools:
  - name: gpt-oss-120b            # the name clients ask for
    aliases: [gpt-oss]
    engines:
      - url: http://10.0.0.7:8000
      - url: http://10.0.0.8:8000
keys:
  - name: imaging
    key: {env: IMAGING_KEY}       # or sha256: the hash of the key
upstream_key: {file: /etc/trimtab/upstream.key}
```
"""


def page() -> str:
    """The whole page; a section without its place in SECTIONS would be a link to nowhere."""
    if missing := {*config.Section.__subclasses__()} - {*SECTIONS}:
        raise ValueError(f"SECTIONS lacks {', '.join(sorted(kind.__name__ for kind in missing))}")
    return "\n".join([INTRO, *(section(struct) for struct in SECTIONS)])


def section(struct: type[msgspec.Struct]) -> str:
    """One table: the keys of a part of the file."""
    hints = typing.get_type_hints(struct, include_extras=True)
    comments = attribute_comments(struct)
    title = "The file" if struct is config.Config else struct.__name__
    lines = [f"## {title}", ""]
    if struct is not config.Config:
        lines += [inspect.cleandoc(struct.__doc__ or ""), ""]
    lines += ["| key | value | default | change | meaning |", "|---|---|---|---|---|"]
    for field in msgspec.structs.fields(struct):
        value = kind(hints[field.name])
        cells = (value, default_of(field), change(struct, field.name), comments[field.name])
        row = " | ".join(cells).replace("<", "&lt;")
        lines.append(f"| `{field.name}` | {row} |")
    return "\n".join([*lines, ""])


def attribute_comments(struct: type[msgspec.Struct]) -> dict[str, str]:
    """The text below each attribute of a class."""
    body = typing.cast("ast.ClassDef", ast.parse(inspect.getsource(struct)).body[0]).body
    return {
        field.target.id: " ".join(text.value.value.split())
        for field, text in itertools.pairwise(body)
        if isinstance(field, ast.AnnAssign)
        and isinstance(field.target, ast.Name)
        and isinstance(text, ast.Expr)
        and isinstance(text.value, ast.Constant)
        and isinstance(text.value.value, str)
    }


def kind(hint: object) -> str:
    """A type for people."""
    arguments = typing.get_args(hint)
    if typing.get_origin(hint) in {typing.Union, types.UnionType}:
        return " or ".join(kind(item) for item in arguments if item is not types.NoneType)
    if typing.get_origin(hint) is typing.Literal:
        return " or ".join(f"`{word}`" for word in arguments)
    if typing.get_origin(hint) is tuple:
        return f"list of {kind(arguments[0])}"
    if isinstance(hint, type) and issubclass(hint, msgspec.Struct):
        return f"[{hint.__name__}](#{hint.__name__.lower()})"
    if typing.get_origin(hint) is typing.Annotated:
        return constrained(arguments[0], arguments[1])
    return PLAIN[typing.cast("type", hint)]


def constrained(base: type, meta: msgspec.Meta) -> str:
    """A type with its limits."""
    limits = {"≥": meta.ge, ">": meta.gt, "≤": meta.le}
    words = [f"{sign} {limit:,}" for sign, limit in limits.items() if limit is not None]
    return " ".join([meta.title or PLAIN[base], ", ".join(words)]).strip()


def change(struct: type[msgspec.Struct], name: str) -> str:
    """How another value comes into effect."""
    if struct in PARTS_OF_A_RESTART:
        return "restart"
    if struct is config.AccessLog:
        return f"restart: {live_config.EDGES_RELOAD}"
    if struct is config.Secret:
        return "as what it is for"
    who = live_config.RESTARTS.get(struct, {}).get(name)
    return f"restart: {who}" if who else "live"


def default_of(field: msgspec.structs.FieldInfo) -> str:
    """A default for people; what is empty is shown as a dash, and its meaning says what holds."""
    if field.required:
        return "**required**"
    value = field.default
    if value in ("", (), None) or isinstance(value, msgspec.Struct):
        return "-"
    return f"`{value}`"


def main() -> int:
    """Exit 0 when the page is written or fresh, 1 when it is stale."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="compare, write nothing")
    check: bool = parser.parse_args().check
    text = page()
    if not check:
        PAGE.write_text(text)
    elif not PAGE.exists() or PAGE.read_text() != text:
        sys.stderr.write("docs/configuration.md: stale, run ./run docs\n")
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
