"""Named fleets: which control plane is meant, and who asks, without typing it every time.

Rules: --server and $TRIMTAB_SERVER beat the file, the file beats this machine's socket; a context
named by --context or $TRIMTAB_CONTEXT must exist, and so must the one the file calls current. The
file is read only when it decides.
"""

from __future__ import annotations

import os
import pathlib

import msgspec

from ctl import nouns
from ctl.exits import CtlError, Exit
from ctl.options import CONTEXT

FILE = "TRIMTAB_CONFIG"


class Context(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """One fleet."""

    name: str
    server: str
    tls_dir: str = ""


class Contexts(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """The file."""

    current: str = ""
    contexts: tuple[Context, ...] = ()

    def find(self, name: str) -> Context:
        """The one of that name; CtlError when there is none."""
        for context in self.contexts:
            if context.name == name:
                return context
        known = [context.name for context in self.contexts]
        hint = nouns.closest(name, known) or f" There are: {', '.join(known) or 'none'}."
        raise CtlError(Exit.NOT_FOUND, f'{path()}: there is no context "{name}".{hint}')


def path() -> pathlib.Path:
    """Where they are kept."""
    base = os.environ.get("XDG_CONFIG_HOME") or pathlib.Path.home() / ".config"
    return pathlib.Path(os.environ.get(FILE) or pathlib.Path(base) / "trimtab" / "ctl.yaml")


def load() -> Contexts:
    """All of them; none when there is no file. Raises CtlError."""
    from trimtab.runtime import config, yaml_source  # noqa: PLC0415  only who has a file pays
    from trimtab.runtime.service import ConfigError  # noqa: PLC0415

    if not path().exists():
        return Contexts()
    reader = yaml_source.Reader()
    try:
        node = yaml_source.compose(config.text_of(path()))
    except ConfigError as error:
        raise CtlError(Exit.USAGE, str(error)) from None
    if isinstance(node, yaml_source.Problem):
        reader.problems.append(node)
        node = None
    found = reader.read(node, Contexts, "") if node is not None else Contexts()
    reader.unique({Context: {"name": "context name"}})
    if reader.problems or not isinstance(found, Contexts):
        lines = "\n".join(problem.render(str(path())) for problem in sorted(reader.problems))
        raise CtlError(Exit.USAGE, lines)
    return found


def save(contexts: Contexts) -> None:
    """Keep them."""
    import yaml  # noqa: PLC0415  30 ms

    from ctl import state_file  # noqa: PLC0415  so many ways to make a file

    text = yaml.safe_dump(msgspec.to_builtins(contexts), sort_keys=False)
    path().parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    state_file.save(str(path()), text.encode())


def chosen() -> Context | None:
    """The one that is meant when no server is named; None: this machine."""
    name = os.environ.get(CONTEXT, "")
    if not name and not path().exists():
        return None
    contexts = load()
    name = name or contexts.current
    return contexts.find(name) if name else None
