"""LiteLLM's configuration as ours: what each thing in it becomes, or why it is not carried over.

Rules: nothing is left out without a line that says so; no line and no file holds a secret's text;
what cannot be carried over safely (whose models, which limits) is left out, not guessed.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import yaml
from msgspec.structs import replace

from standalone.config import sha256
from standalone.litellm_words import verdict
from trimtab.runtime import config as file
from trimtab.runtime.service import ConfigError

ENV = "os.environ/"
UPSTREAM_KEY = "/etc/trimtab/upstream.key"
FALLBACK_KEY = "/etc/trimtab/fallback.key"
IDLE_LEAST_S = file.EdgeLimits().idle_timeout_s
SDK_TRIES = 3
_OPENAI = "https://api.openai.com/v1"
_VLLM = {"hosted_vllm", "vllm"}
_SPEAK_OPENAI = {"openai", "text-completion-openai", "custom_openai", "openai_like", *_VLLM}
_NO_KEYS = {"", "empty", "none", "null", "dummy", "fake", "fake-key", "not-needed", "sk-none"}
_SECRET_NAME = re.compile(r"key|password|token|secret|url|credential|dsn", re.IGNORECASE)
_SETTINGS = ("router_settings", "litellm_settings", "general_settings")
_ENTRY = {"model", "api_base", "base_url", "api_key", "timeout", "stream_timeout"}
_HANDLED = {
    "router_settings": {"model_group_alias", "fallbacks", "timeout", "stream_timeout"},
    "litellm_settings": {"model_group_alias", "fallbacks", "request_timeout"},
    "general_settings": {"master_key"},
}


@dataclass(frozen=True, slots=True)
class Carried:
    """What came of a file: our configuration, and for each thing what became of it."""

    config: file.Config
    lines: list[tuple[str, str]]


@dataclass(slots=True)
class _Group:
    """The entries of one model_name."""

    engines: list[file.Engine] = field(default_factory=list)
    outside: file.Fallback | None = None
    request_s: list[float] = field(default_factory=list)
    idle_s: list[float] = field(default_factory=list)


def document(text: str, name: str) -> dict[str, Any]:
    """LiteLLM's file as data; raises ConfigError."""
    try:
        found = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"{name}: not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(found, dict) or not isinstance(found.get("model_list"), list):
        raise ConfigError(f"{name}: not LiteLLM's configuration: it has no list model_list")
    return found


def carry(found: Mapping[str, Any], base: file.Config) -> Carried:
    """All of it, over `base`: where this machine keeps things."""
    return _Import(found, base).run()


class _Import:
    """One pass over a document."""

    def __init__(self, found: Mapping[str, Any], base: file.Config) -> None:
        self._found, self._base = found, base
        self._sections = {name: _mapping(found.get(name)) for name in _SETTINGS}
        self._lines: dict[tuple[str, str], None] = {}
        self._groups: dict[str, _Group] = {}
        self._upstream: dict[file.Secret, None] = {}

    def run(self) -> Carried:
        """The whole."""
        for entry in self._found["model_list"]:
            self._entry(_mapping(entry))
        pools = self._pools()
        keys = tuple(self._keys())
        upstream = next(iter(self._upstream), None)
        if len(self._upstream) > 1:
            self._say("api_key", f"{len(self._upstream)} different ones: engines must share one")
        self._others()
        made = replace(self._base, pools=pools, keys=keys, upstream_key=upstream)
        return Carried(made, list(self._lines))

    def _say(self, what: str, words: str) -> None:
        self._lines[what, words] = None

    def _entry(self, entry: Mapping[str, Any]) -> None:
        name, params = str(entry.get("model_name", "")), _mapping(entry.get("litellm_params"))
        if not name or "*" in name or "*" in str(params.get("model", "*")):
            self._say(f"model_list {name}", "not here: each model is named, or found in its engine")
            return
        group = self._groups.setdefault(name, _Group())
        provider, model = _provider(params)
        address = str(params.get("api_base") or params.get("base_url") or "")
        if _is_engine(provider, address):
            self._engine(name, group, (address, model), params.get("api_key"))
        elif address.startswith(ENV):
            words = "its api_base is in the environment: write the address there, and import again"
            self._say(f"model_list {name}: {model}", words)
        elif provider in _SPEAK_OPENAI and group.outside is None:
            key = _secret(params.get("api_key") or f"{ENV}OPENAI_API_KEY", FALLBACK_KEY)
            key = key or file.Secret(file=FALLBACK_KEY)
            group.outside = file.Fallback(address or _OPENAI, key, model)
        else:
            self._say(
                f"model_list {name}: {provider}/{model}",
                "not here: engines with an http:// api_base, and one OpenAI-compatible API a pool",
            )
        group.request_s += self._seconds("litellm_params.timeout", params.get("timeout"))
        group.idle_s += self._seconds("litellm_params.stream_timeout", params.get("stream_timeout"))
        self._verdicts("litellm_params", params, _ENTRY)
        self._verdicts("model_info", _mapping(entry.get("model_info")), set())

    def _engine(self, name: str, group: _Group, what: tuple[str, str], key: object) -> None:
        address, model = what
        url = _engine_url(address)
        if not url:
            words = "not an address http://host:port, maybe with /v1: name it in the file yourself"
            self._say(f"model_list {name}: {model}", words)
            return
        group.engines.append(file.Engine(url, served_as=model))
        secret = _secret(key, UPSTREAM_KEY)
        if secret:
            self._upstream[secret] = None
            words = f"upstream_key: {{env: {secret.env}}}" if secret.env else _put(UPSTREAM_KEY)
            self._say("litellm_params.api_key", words)

    def _pools(self) -> tuple[file.Pool, ...]:
        """A pool for each group with engines of its own; another name for them is an alias."""
        pools: dict[str, file.Pool] = {}
        owner: dict[str, tuple[str, str]] = {}
        for name, group in self._groups.items():
            theirs = [one for one in group.engines if one.url not in owner]
            if theirs:
                owner |= {one.url: (name, one.served_as) for one in theirs}
                pools[name] = self._pool(name, group, theirs)
            for one in {one.url: one for one in group.engines if one not in theirs}.values():
                self._shared(name, one, owner[one.url], pools)
        for alias, target in self._aliases():
            self._alias(f"model_group_alias {alias}", alias, target, pools)
        self._outside(pools)
        return _named(tuple(pools.values()))

    def _pool(self, name: str, group: _Group, engines: list[file.Engine]) -> file.Pool:
        engines = list({one.url: one for one in engines}.values())
        shown = ", ".join(f"{one.url} (served as {one.served_as})" for one in engines)
        self._say(f"model_list {name}", f"pools: {name}, of {len(engines)} engines: {shown}")
        return file.Pool(
            name,
            engines=tuple(engines),
            request_timeout_s=self._request_s(group),
            idle_timeout_s=self._idle_s(group),
        )

    def _shared(
        self, name: str, one: file.Engine, owner: tuple[str, str], pools: dict[str, file.Pool]
    ) -> None:
        """An engine that another group has already: an alias, or an adapter."""
        pool, model = owner
        if pool == name or one.served_as == model:
            self._alias(f"model_list {name}", name, pool, pools)
        elif one.served_as == name:
            words = f"nothing to set: {one.url} lists its adapters itself, as models of pool {pool}"
            self._say(f"model_list {name}", words)
        else:
            words = (
                f"not here: {one.url} serves {pool}; its adapter is asked for as {one.served_as}"
            )
            self._say(f"model_list {name}", words)

    def _alias(self, what: str, alias: str, target: str, pools: dict[str, file.Pool]) -> None:
        taken = {name for pool in pools.values() for name in (pool.name, *pool.aliases)}
        if target not in pools:
            self._say(what, f"not here: {target} is no pool")
        elif alias not in taken:
            pool = pools[target]
            pools[target] = replace(pool, aliases=(*pool.aliases, alias))
            self._say(what, f"pools: {target}, aliases: {alias}")

    def _aliases(self) -> Iterator[tuple[str, str]]:
        for section in self._sections.values():
            for alias, target in _mapping(section.get("model_group_alias")).items():
                named = target.get("model") if isinstance(target, dict) else target
                yield str(alias), str(named)

    def _outside(self, pools: dict[str, file.Pool]) -> None:
        """The APIs outside, of the same group or by `fallbacks`: off until a key says so."""
        wanted = {name: name for name, group in self._groups.items() if group.outside}
        for section in ("router_settings", "litellm_settings"):
            for pair in self._sections[section].get("fallbacks") or ():
                for name, others in _mapping(pair).items():
                    usable = [n for n in others or () if n in self._groups]
                    if usable and self._groups[usable[0]].outside and name in pools:
                        wanted[name] = usable[0]
                    else:
                        self._say(f"fallbacks {name}", verdict(section, "fallbacks"))
        used = set()
        for name, source in wanted.items():
            outside = self._groups[source].outside
            if name in pools and outside:
                used.add(source)
                pools[name] = replace(pools[name], fallback=outside)
                words = f"pools: {name}, fallback: {outside.url}, for keys with fallback: true"
                key = f"; {_put(FALLBACK_KEY)}" if outside.key.file else ""
                self._say(f"model_list {source}: {outside.model}", words + key)
        for name, group in self._groups.items():
            if group.outside and name not in used and name not in pools:
                words = f"not here: no engine of yours; clients call {group.outside.url} themselves"
                self._say(f"model_list {name}", words)

    def _request_s(self, group: _Group) -> float | None:
        settings = {
            "router_settings.timeout": self._sections["router_settings"].get("timeout"),
            "litellm_settings.request_timeout": self._sections["litellm_settings"].get(
                "request_timeout"
            ),
        }
        more = [s for name, value in settings.items() for s in self._seconds(name, value)]
        longest = max(group.request_s or more, default=None)
        if longest:
            self._say(f"timeout: {longest:g}", f"pools[].request_timeout_s: {longest:g}")
        return longest

    def _idle_s(self, group: _Group) -> float | None:
        setting = self._sections["router_settings"].get("stream_timeout")
        longest = max(
            group.idle_s or self._seconds("router_settings.stream_timeout", setting), default=None
        )
        if longest is None:
            return None
        if longest > IDLE_LEAST_S:
            self._say(f"stream_timeout: {longest:g}", f"pools[].idle_timeout_s: {longest:g}")
            return longest
        words = (
            f"dropped: {IDLE_LEAST_S:g} s without a byte is a failure of the replica "
            "(pools[].idle_timeout_s); shorter ones take a long prompt for one"
        )
        self._say(f"stream_timeout: {longest:g}", words)
        return None

    def _seconds(self, what: str, value: object) -> list[float]:
        if isinstance(value, int | float) and not isinstance(value, bool) and value > 0:
            return [float(value)]
        if value is not None:
            self._say(
                what, "not a number here: set pools[].request_timeout_s or idle_timeout_s yourself"
            )
        return []

    def _keys(self) -> Iterator[file.Key]:
        master = self._sections["general_settings"].get("master_key")
        if not isinstance(master, str) or not master:
            return
        env = master.removeprefix(ENV)
        key = file.Key("master", key=file.Secret(env=env)) if env != master else None
        self._say(
            "general_settings.master_key",
            "keys: master, which may call as before; what it administered is ctl's, on the machine",
        )
        yield key or file.Key("master", sha256=sha256(master))

    def _others(self) -> None:
        """A line for every setting that nothing above looked at."""
        for section, values in self._sections.items():
            self._verdicts(section, values, _HANDLED[section])
        self._verdicts("", self._found, {"model_list", *_SETTINGS})
        tries = self._sections["litellm_settings"].get("num_retries") or self._sections[
            "router_settings"
        ].get("num_retries")
        if isinstance(tries, int) and tries > 1:
            most = (tries + 1) * SDK_TRIES
            self._say(
                f"num_retries: {tries}",
                f"look: with the {SDK_TRIES} tries of an official SDK up to {most} attempts a "
                "request, just when engines are full",
            )

    def _verdicts(self, section: str, values: Mapping[str, Any], handled: set[str]) -> None:
        for name in values:
            if str(name) not in handled and (words := verdict(section, str(name))):
                label = f"{section}.{name}".lstrip(".")
                self._say(f"{label}{_shown(str(name), values[name])}", words)


def _named(pools: tuple[file.Pool, ...]) -> tuple[file.Pool, ...]:
    """With names for the engines where their ports, after which they are called, are the same."""
    places = [urlsplit(one.url) for pool in pools for one in pool.engines]
    if len({place.port for place in places}) == len(places):
        return pools
    hosts = Counter(place.hostname for place in places)

    def named(one: file.Engine) -> file.Engine:
        place = urlsplit(one.url)
        more = f"-{place.port}" if hosts[place.hostname] > 1 else ""
        return replace(one, name=f"{place.hostname}{more}")

    return tuple(replace(pool, engines=tuple(map(named, pool.engines))) for pool in pools)


def _mapping(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _provider(params: Mapping[str, Any]) -> tuple[str, str]:
    """Whose API, and the model's name there."""
    model = str(params.get("model", ""))
    first, slash, rest = model.partition("/")
    if given := params.get("custom_llm_provider"):
        return str(given), rest if slash and first == given else model
    return (first, rest) if slash else ("openai", model)


def _is_engine(provider: str, address: str) -> bool:
    http = address.startswith("http://") or (provider in _VLLM and not address.startswith(ENV))
    return bool(address) and http and provider in _SPEAK_OPENAI


def _engine_url(address: str) -> str:
    """An api_base as an engine's URL; empty when it is none."""
    try:
        parts = urlsplit(address)
        port = parts.port or {"http": 80, "https": 443}[parts.scheme]
    except (ValueError, KeyError):
        return ""
    if parts.path.rstrip("/") not in {"", "/v1"} or "@" in parts.netloc or not parts.hostname:
        return ""
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return f"{parts.scheme}://{host}:{port}"


def _secret(text: object, path: str) -> file.Secret | None:
    """Where a key is to be found: a key that stands in LiteLLM's file has to be put into one."""
    if not isinstance(text, str) or text.lower() in _NO_KEYS:
        return None
    if text.startswith(ENV):
        return file.Secret(env=text.removeprefix(ENV))
    return file.Secret(file=path)


def _put(path: str) -> str:
    return f"look: it stands in LiteLLM's file; put it into {path}, where the new file looks for it"


def _shown(name: str, value: object) -> str:
    """A value for a line; secrets and what is long are not shown."""
    plain = isinstance(value, bool | int | float)
    if plain or (isinstance(value, str) and not _SECRET_NAME.search(name) and len(value) < 40):
        return f": {str(value).lower() if isinstance(value, bool) else value}"
    return ""
