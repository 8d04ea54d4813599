"""Writes docs/configuration.md from the schema: `./run docs` (write) or `./run docs --check`.

Rule: what the page says of a key is in trimtab/runtime/config_words.py.
"""

from __future__ import annotations

import inspect

import msgspec

from docs import generated
from trimtab.runtime import config
from trimtab.runtime.config_words import Setting, kind, settings

PAGE = generated.ROOT / "docs/configuration.md"
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
    config.Otlp,
)
PART = "[{0}](#{1})"
INTRO = """\
<!-- Generated from trimtab/runtime/config.py by `./run docs`: change it there. -->
# Configuration

One file, YAML or JSON, read by every binary with `--config FILE`; flags override it. `trimtab up`
needs none, and `trimtab init` writes one that has all of this page as comments. Every key is
optional unless it is marked. Unknown keys, wrong types and names used twice are errors, and all of
them are listed at once with line and column. Secrets are references, so the file can live in git.
YAML aliases are refused; the file may have 1 MiB.

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
    title = "The file" if struct is config.Config else struct.__name__
    lines = [f"## {title}", ""]
    if struct is not config.Config:
        lines += [inspect.cleandoc(struct.__doc__ or ""), ""]
    lines += ["| key | value | default | change | meaning |", "|---|---|---|---|---|"]
    for one in settings(struct):
        cells = (kind(one.hint, PART), default_of(one), one.change, one.meaning)
        row = " | ".join(cells).replace("<", "&lt;")
        lines.append(f"| `{one.name}` | {row} |")
    return "\n".join([*lines, ""])


def default_of(setting: Setting) -> str:
    """A default for people; what is empty is shown as a dash, and its meaning says what holds."""
    if setting.required:
        return "**required**"
    if setting.default in ("", (), None) or isinstance(setting.default, msgspec.Struct):
        return "-"
    return f"`{setting.default}`"


if __name__ == "__main__":
    raise SystemExit(generated.main(lambda: {PAGE: page()}))
