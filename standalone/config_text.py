"""A configuration as a file for people: what is set, and every other setting as a comment.

Rules: an explanation is `# words`, a setting that is off is `#name: value`, with what holds anyway
or an example; without its # it is right. The words are those of docs/configuration.md.
"""

from __future__ import annotations

import os
import pathlib
import textwrap
from collections.abc import Iterator

import msgspec
import yaml

from trimtab.runtime import config as file
from trimtab.runtime import config_words
from trimtab.runtime.config_words import Setting
from trimtab.runtime.service import ConfigError

_WIDTH = 100
_SECRET = {"file": "/etc/trimtab/secret"}
# What stands there in place of a default that is empty.
EXAMPLES: dict[tuple[type[msgspec.Struct], str], object] = {
    (file.Config, "node"): "gpu-box",
    (file.Config, "controlplane"): "unix:/run/trimtab/control.sock",
    (file.Config, "controlplane_metrics"): "127.0.0.1:4002",
    (file.Config, "state_dir"): "/var/lib/trimtab",
    (file.Pool, "name"): "gpt-oss-120b",
    (file.Pool, "aliases"): ["gpt-oss"],
    (file.Pool, "request_timeout_s"): 600,
    (file.Pool, "idle_timeout_s"): 120,
    (file.Engine, "url"): "http://10.0.0.7:8000",
    (file.Engine, "name"): "left",
    (file.Engine, "served_as"): "gpt-oss-120b",
    (file.Engine, "max_num_seqs"): 128,
    (file.Engine, "unit"): "vllm@0.service",
    (file.Fallback, "url"): "https://api.example.com/v1",
    (file.Otlp, "endpoint"): "https://collector.lab:4317",
    (file.Otlp, "ca"): "/etc/trimtab/collector-ca.pem",
    (file.Fallback, "model"): "gpt-oss-120b",
    (file.Key, "name"): "imaging",
    (file.Key, "sha256"): "0" * 64,
    (file.Key, "models"): ["gpt-oss-120b"],
    (file.Key, "expires"): "2027-03-31",
    (file.Etcd, "endpoints"): ["https://10.0.0.1:2379", "https://10.0.0.2:2379"],
    (file.Etcd, "username"): "trimtab",
    (file.Etcd, "ca"): "/etc/trimtab/etcd-ca.crt",
    (file.Etcd, "cert"): "/etc/trimtab/etcd.crt",
    (file.Etcd, "key"): "/etc/trimtab/etcd.key",
    (file.EdgeLimits, "extra_paths"): ["/v1/chat/completions/batch"],
    (file.EdgeLimits, "cors_origins"): ["https://portal.lab"],
    (file.Certificate, "cert"): "/etc/trimtab/edge.crt",
    (file.Certificate, "key"): "/etc/trimtab/edge.key",
    (file.AccessLog, "file"): "/var/lib/trimtab/access.log",
    (file.Tls, "dir"): "/var/lib/trimtab/tls",
    (file.Tls, "enroll"): "0.0.0.0:7444",
    (file.Tls, "names"): ["cp1.lan"],
}


def text(value: file.Config, heading: str) -> str:
    """The whole file."""
    lines = _Lines()
    lines.say(0, heading)
    lines.part(0, file.Config, value)
    made = "\n".join(lines.made) + "\n"
    file.parse(made, "this file")
    return made


def save(path: pathlib.Path, content: str, force: bool) -> None:
    """Write a new file; raises ConfigError when there is one, unless forced."""
    how = os.O_TRUNC if force else os.O_EXCL
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | how, 0o640)
    except FileExistsError:
        text = f"{path} is there already, and was left alone: give another name, or --force"
        raise ConfigError(text) from None
    except OSError as error:
        raise ConfigError(f"cannot write {path}: {error.strerror}") from None
    with os.fdopen(descriptor, "w") as stream:
        stream.write(content)


class _Lines:
    """Collects lines; each part of the file is explained where it stands first."""

    def __init__(self) -> None:
        self.made: list[str] = []
        self._explained: set[type[msgspec.Struct]] = set()

    def say(self, indent: int, words: str) -> None:
        """Explain."""
        start = " " * indent + "# "
        self.made += textwrap.wrap(words, _WIDTH, initial_indent=start, subsequent_indent=start)

    def part(
        self,
        indent: int,
        struct: type[msgspec.Struct],
        value: msgspec.Struct | None,
        dash: str = "",
    ) -> None:
        """The settings of a part: of `value`, or all of them off."""
        explain = struct not in self._explained
        self._explained.add(struct)
        for number, one in enumerate(config_words.settings(struct)):
            now = getattr(value, one.name) if value is not None else one.default
            is_on = value is not None and (one.required or now != one.default)
            if not (is_on or explain or (value is None and one.required)):
                continue
            if struct is file.Config:
                self.made.append("")
            start = indent - len(dash) if number == 0 else indent
            if explain:
                self.say(start, _explanation(one))
            name = f"{dash if number == 0 else ''}{one.name}:"
            self._setting(start, name, (struct, one, now if is_on else None))

    def _setting(
        self, indent: int, name: str, what: tuple[type[msgspec.Struct], Setting, object]
    ) -> None:
        struct, one, value = what
        start = " " * indent + ("" if value is not None else "#") + name
        part = config_words.part_of(one.hint)
        if part in {None, file.Secret}:
            self.made.append(f"{start} {_flow(value, struct, one)}".rstrip())
            return
        self.made.append(start)
        inner = indent + (4 if name.startswith("- ") else 2)
        for item in _items(value):
            is_list = config_words.is_list(one.hint)
            self.part(inner + 2 * is_list, part, item, "- " * is_list)


def _items(value: object) -> Iterator[msgspec.Struct | None]:
    """The parts that a setting holds; one that is off when it holds none."""
    if isinstance(value, tuple):
        yield from value
    else:
        yield value if isinstance(value, msgspec.Struct) else None


def _explanation(one: Setting) -> str:
    kind = config_words.kind(one.hint).removeprefix("text")
    if config_words.part_of(one.hint) is file.Secret:
        kind = "a secret: {credential: NAME}, {env: NAME} or {file: PATH}"
    elif config_words.part_of(one.hint):
        kind = ""
    notes = [kind, "" if one.change == "live" else one.change, "needed" if one.required else ""]
    aside = "; ".join(filter(None, notes))
    return f"{one.meaning} ({aside})" if aside else one.meaning


def _flow(value: object, struct: type[msgspec.Struct], one: Setting) -> str:
    """A plain value or a secret on one line; what holds, or an example, of one that is off."""
    if value is None:
        empty = one.default in ("", (), None)
        value = EXAMPLES.get((struct, one.name)) if empty else one.default
        if config_words.part_of(one.hint) is file.Secret:
            value = _SECRET
        if value is None:
            return ""
    plain = msgspec.to_builtins(value)
    if isinstance(value, file.Secret):
        plain = {name: where for name, where in plain.items() if where}
    shown: str = yaml.safe_dump(
        plain, default_flow_style=True, width=10_000, allow_unicode=True, sort_keys=False
    )
    return shown.removesuffix("\n").removesuffix("\n...")
