"""What `trimtab up` is asked to do: flags over the file, and the one file that its children read.

Rules: what can't be done is said here, in one sentence, before anything starts; a flag beats the
file, except --engine, which adds to the file's engines; the written file holds no key's text.
"""

from __future__ import annotations

import dataclasses
import hashlib
import pathlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from msgspec.structs import replace

from standalone import serving
from trimtab.runtime import config as file
from trimtab.runtime import shapes
from trimtab.runtime.service import ConfigError

_KEY_LEAST_CHARACTERS = 8


@dataclass(frozen=True, slots=True)
class Flags:
    """The command line."""

    engines: tuple[str, ...] = ()
    listen: str = ""
    admin: str = ""
    key: str = ""
    config: pathlib.Path | None = None
    state: pathlib.Path | None = None
    demo: bool = False
    serve: serving.Wish = serving.NOTHING


@dataclass(frozen=True, slots=True)
class Plan:
    """What to run: `base` is the file with the flags over it; `key` is empty unless given."""

    base: file.Config
    state_dir: pathlib.Path
    is_default_state: bool
    key: str = ""
    upstream_key: str = ""
    demo: bool = False
    serve: serving.Wish = serving.NOTHING

    @property
    def engines(self) -> tuple[file.Engine, ...]:
        """Every engine that the operator named."""
        pooled = (engine for pool in self.base.pools for engine in pool.engines)
        return (*pooled, *self.base.engines)

    @property
    def admins(self) -> list[str]:
        """Where the edges' /metrics are."""
        host, first = shapes.split_address(self.base.admin)
        host = f"[{host}]" if ":" in host else host
        return [f"{host}:{first + more}" for more in range(self.base.edge.workers)]


def plan(flags: Flags, environ: Mapping[str, str]) -> Plan:
    """Check and merge; raises ConfigError."""
    for problem in _flag_problems(flags):
        raise ConfigError(problem)
    serving.check(flags.serve)
    base = file.load(flags.config) if flags.config else file.Config()
    default = default_state_dir(environ)
    state_dir = flags.state or (pathlib.Path(base.state_dir) if base.state_dir else default)
    state_dir = state_dir.expanduser().absolute()
    secret = base.upstream_key
    merged = Plan(
        base=_merge(base, flags),
        state_dir=state_dir,
        is_default_state=state_dir == default,
        key=flags.key,
        upstream_key=file.resolve(secret, "upstream_key")
        if secret
        else environ.get(file.UPSTREAM_KEY_ENV, ""),
        demo=flags.demo,
        serve=flags.serve,
    )
    own = [
        name for name, given in (("--demo", merged.demo), ("--serve", merged.serve.model)) if given
    ]
    if own and (merged.engines or len(own) > 1):
        raise ConfigError(f"{own[0]} brings its own engines: leave it out, or the other engines")
    if merged.base.listen in merged.admins:
        raise ConfigError(
            f"clients and /metrics can't both be at {merged.base.listen}: see --admin"
        )
    return merged


def with_page(plan: Plan, find: Callable[[int], int]) -> Plan:
    """With an address of loopback for the fleet's status page, unless the file names one.

    `find` gives a free port at or above one: it is the first after the edges' own addresses.
    """
    if plan.base.controlplane_metrics:
        return plan
    _, first = shapes.split_address(plan.base.admin)
    page = f"127.0.0.1:{find(first + plan.base.edge.workers)}"
    return dataclasses.replace(plan, base=replace(plan.base, controlplane_metrics=page))


def default_state_dir(environ: Mapping[str, str]) -> pathlib.Path:
    """Where state is kept unless told otherwise; `ctl` looks in the same place."""
    base = environ.get("XDG_STATE_HOME") or pathlib.Path.home() / ".local" / "state"
    return pathlib.Path(base) / "trimtab"


def effective(
    plan: Plan, controlplane: str, engines: Sequence[file.Engine], key: str
) -> file.Config:
    """The file that the children read; `engines` were found or made, beside those of the plan.

    Engines that are started here are a pool from the beginning, so that their model is known, and
    waited for, before they say what they serve.
    """
    keys = [replace(k, sha256=_hash_of(k), key=None) for k in plan.base.keys]
    if key and sha256(key) not in {k.sha256 for k in keys}:
        keys.append(file.Key(name="trimtab-up", sha256=sha256(key)))
    pools, loose = plan.base.pools, tuple(engines)
    if plan.serve.model:
        pools, loose = _with_pool(pools, serving.names(plan.serve), loose), ()
    return replace(
        plan.base,
        controlplane=controlplane,
        state_dir=str(plan.state_dir),
        pools=pools,
        engines=(*plan.base.engines, *loose),
        keys=tuple(keys),
    )


def _with_pool(
    pools: Sequence[file.Pool], names: Sequence[str], engines: tuple[file.Engine, ...]
) -> tuple[file.Pool, ...]:
    """With these engines in the pool of that name, which the file may have settings for."""
    name, *aliases = names
    found = next((pool for pool in pools if pool.name == name), file.Pool(name=name))
    more = tuple(alias for alias in aliases if alias not in found.aliases)
    made = replace(found, aliases=(*found.aliases, *more), engines=engines)
    return (*(pool for pool in pools if pool.name != name), made)


def sha256(key: str) -> str:
    """What is kept of a key, in hex."""
    return hashlib.sha256(key.encode()).hexdigest()


def _flag_problems(flags: Flags) -> Iterator[str]:
    given = [("--engine", url, shapes.url_problem) for url in flags.engines]
    given += [("--listen", flags.listen, shapes.address_problem)] * bool(flags.listen)
    given += [("--admin", flags.admin, shapes.address_problem)] * bool(flags.admin)
    for name, text, check in given:
        if problem := check(text):
            yield f"{name} {problem}"
    if flags.key and (len(flags.key) < _KEY_LEAST_CHARACTERS or not _is_token(flags.key)):
        yield f"--key: at least {_KEY_LEAST_CHARACTERS} visible ASCII characters, please"


def _is_token(text: str) -> bool:
    """Whether a client can send it in a header, and a shell can take it between quotes."""
    return text.isascii() and text.isprintable() and not set(text) & set(" '\"\\")


def _merge(base: file.Config, flags: Flags) -> file.Config:
    known = {engine.url.rstrip("/") for engine in Plan(base, pathlib.Path(), False).engines}
    added = dict.fromkeys(url.rstrip("/") for url in flags.engines)
    engines = tuple(file.Engine(url=url) for url in added if url not in known)
    return replace(
        base,
        listen=flags.listen or base.listen,
        admin=flags.admin or base.admin,
        engines=(*base.engines, *engines),
    )


def _hash_of(key: file.Key) -> str:
    return (
        key.sha256.lower()
        if key.key is None
        else sha256(file.resolve(key.key, f"keys.{key.name}.key"))
    )
