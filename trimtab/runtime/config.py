"""The one configuration file: its schema and its reader.

Rules: every binary reads the same file and takes what concerns it; unknown keys are errors; every
error names line, column and what is allowed, all of them at once; secrets are references, so that
the file can live in git. docs/configuration.md is generated from this schema and its comments.
"""

from __future__ import annotations

import os
import pathlib
from collections import Counter
from collections.abc import Sequence
from typing import Annotated, Literal

import msgspec

from trimtab.runtime import shapes, yaml_source
from trimtab.runtime.service import ConfigError

FILE_LIMIT_BYTES = 1024 * 1024
UPSTREAM_KEY_ENV = "TRIMTAB_UPSTREAM_KEY"
"""What holds the engines' own key, before `upstream_key`."""
WORKERS_MAX = 32
Url = Annotated[str, msgspec.Meta(title="URL", extra={"check": shapes.url_problem})]
ApiUrl = Annotated[str, msgspec.Meta(title="URL", extra={"check": shapes.api_problem})]
OtlpUrl = Annotated[str, msgspec.Meta(title="URL", extra={"check": shapes.otlp_problem})]
EtcdUrl = Annotated[str, msgspec.Meta(title="URL", extra={"check": shapes.etcd_problem})]
Address = Annotated[str, msgspec.Meta(title="HOST:PORT", extra={"check": shapes.address_problem})]
Origin = Annotated[str, msgspec.Meta(title="origin", extra={"check": shapes.origin_problem})]
ApiPath = Annotated[str, msgspec.Meta(title="path", extra={"check": shapes.path_problem})]
Sha256 = Annotated[str, msgspec.Meta(title="hex digits", extra={"check": shapes.sha256_problem})]
Moment = Annotated[str, msgspec.Meta(title="time", extra={"check": shapes.moment_problem})]
Unit = Annotated[str, msgspec.Meta(title="unit", extra={"check": shapes.no_or_unit_problem})]
Name = Annotated[str, msgspec.Meta(min_length=1, max_length=256)]
Positive = Annotated[int, msgspec.Meta(ge=1)]
Seconds = Annotated[float, msgspec.Meta(gt=0, le=86_400)]


class Section(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, omit_defaults=True
):
    """Base of every part of the file; written back without what equals its default."""


class Secret(Section, frozen=True):
    """A secret by reference: exactly one of `credential`, `file` and `env`.

    A service under systemd should have `credential`: an environment is seen by every child.
    """

    credential: Annotated[str, msgspec.Meta(extra={"check": shapes.no_or_credential_problem})] = ""
    """Name of a credential of the unit: `LoadCredential=NAME:/path` (docs/security.md)."""
    env: str = ""
    """Name of the environment variable that holds it."""
    file: str = ""
    """Path of a file that holds nothing else; relative to the working directory."""

    def __post_init__(self) -> None:
        if bool(self.credential) + bool(self.env) + bool(self.file) != 1:
            raise ValueError("give exactly one of credential, env and file")


class Engine(Section, frozen=True):
    """One vLLM engine."""

    url: Url
    """Base URL, like http://127.0.0.1:8000."""
    name: str = ""
    """The replica's name; by default <node>-<port>."""
    served_as: str = ""
    """Model name to ask it for; by default the first one it serves."""
    max_num_seqs: Positive | None = None
    """Requests it runs at once; by default read off its command line."""
    unit: Unit = ""
    """systemd unit that its agent may have restarted, like vllm@0.service; see remediation."""


class Fallback(Section, frozen=True):
    """An OpenAI-compatible API elsewhere; edges read it, and nobody else does."""

    url: ApiUrl
    """Its base URL as clients have it, like https://api.example.com/v1."""
    key: Secret
    """Its key."""
    model: Name
    """The model to ask it for."""
    max_requests: Positive = 16
    """Most requests at once of one edge."""


class Pool(Section, frozen=True):
    """Replicas that serve one model under one public name."""

    name: Name
    """The name clients ask for."""
    aliases: tuple[Name, ...] = ()
    """Other names for it."""
    failover: bool = True
    """Plain text streams whose replica is lost go on on another one."""
    request_timeout_s: Seconds | None = None
    """Longest time for one request, queue included; by default edge.total_timeout_s."""
    idle_timeout_s: Seconds | None = None
    """A replica that sends nothing for this long has failed; by default edge.idle_timeout_s."""
    hedge: bool = False
    """Streams whose first token is late get a second attempt, while there is idle room."""
    fallback: Fallback | None = None
    """Where requests go that the fleet would refuse, of keys that say `fallback: true`."""
    engines: tuple[Engine, ...] = ()
    """Its replicas."""


class Key(Section, frozen=True):
    """A key that may call; give its SHA-256 (hex) or a reference to its text."""

    name: Name
    """What people call it."""
    sha256: Sha256 = ""
    """SHA-256 of the key's text, 64 hex digits."""
    key: Secret | None = None
    """Where the key's text is."""
    fallback: bool = False
    """Its requests may leave the fleet, to the pool's fallback."""
    models: tuple[Name, ...] | None = None
    """Names of pools, aliases and adapters that it may ask for; by default all."""
    expires: Moment = ""
    """Good until then, like 2027-03-31 (its end, in UTC) or 2027-03-31T18:00+02:00."""

    def __post_init__(self) -> None:
        if bool(self.sha256) == (self.key is not None):
            raise ValueError("give exactly one of sha256 and key")
        if self.models == ():
            raise ValueError("give at least one of models, or leave it out: all")


class Etcd(Section, frozen=True):
    """The etcd cluster that several control planes share; TLS where its URLs begin with https."""

    endpoints: tuple[EtcdUrl, ...]
    """Its members' client URLs, like http://127.0.0.1:2379; name all of them."""
    prefix: str = "trimtab/"
    """What every key begins with; another one for each fleet in the same cluster."""
    username: str = ""
    """User, if the cluster asks for one."""
    password: Secret | None = None
    """Where the user's password is."""
    ca: str = ""
    """File with the authorities that may vouch for the members (PEM); by default the system's."""
    cert: str = ""
    """File with our certificate (PEM), if the cluster asks for one."""
    key: str = ""
    """File with its private key (PEM)."""
    allow_unsafe_version: bool = False
    """Use an etcd that may lose acknowledged writes: before 3.4.22, or 3.5.0 to 3.5.5."""

    def __post_init__(self) -> None:
        if not self.endpoints:
            raise ValueError("give at least one of endpoints")
        if bool(self.username) != (self.password is not None):
            raise ValueError("give both of username and password, or none")
        if bool(self.cert) != bool(self.key):
            raise ValueError("give both of cert and key, or none")
        if not self.prefix.endswith("/"):
            raise ValueError("prefix must end with a slash, so that no other begins with it")
        encrypted = {url.startswith("https:") for url in self.endpoints}
        if len(encrypted) > 1 or (False in encrypted and (self.ca or self.cert)):
            raise ValueError("give https for all endpoints, or for none and no ca, cert and key")


class Certificate(Section, frozen=True):
    """The certificate of the address that clients use; a renewed one is taken while it runs."""

    cert: Name
    """PEM file with the certificate and what leads to its CA."""
    key: Name
    """PEM file with its key, which only this user may read."""


class AccessLog(Section, frozen=True):
    """One line of JSON a request (docs/logs.md)."""

    lines: Literal["all", "errors", "none"] = "errors"
    """Which requests get one: `errors` are those that did not go well at once."""
    file: str = ""
    """Where they go; by default to standard output, as the journal wants it."""
    client_address: bool = False
    """Say in `client` where each request came from."""


class EdgeLimits(Section, frozen=True):
    """Limits and timers of every edge."""

    queue_limit: Positive = 256
    """Most requests that may wait for one pool at one edge."""
    queue_wait_s: Seconds = 45.0
    """Longest wait in that queue: 3/4 of the 60 s after which the common clients give up."""
    head_hold_s: Seconds = 10.0
    """A stream's status is held back this long at most, so that a refusal can still be a 503."""
    idle_timeout_s: Seconds = 120.0
    """A replica that sends nothing for this long has failed the request."""
    total_timeout_s: Seconds = 3_600.0
    """Longest time for one request whose caller says no shorter one: long answers take minutes."""
    drain_s: Seconds = 10.0
    """An edge that is to end lets the requests it has finish for this long; under systemd: 840."""
    body_limit_bytes: Positive = 64 * 1024 * 1024
    """Largest request body."""
    extra_paths: tuple[ApiPath, ...] = ()
    """More of vLLM's JSON paths to pass on, like /v1/chat/completions/batch; they answer whole."""
    tls: Certificate | None = None
    """Serve HTTPS in place of HTTP."""
    route_headers: bool = True
    """Say in x-trimtab-* headers which replica answered, after how many attempts and what wait."""
    cors_origins: tuple[Origin, ...] = ()
    """Origins whose pages may call from a browser, like https://portal.lab; by default none."""
    access_log: AccessLog = AccessLog()
    """One line of JSON a request."""
    workers: Annotated[int, msgspec.Meta(ge=1, le=WORKERS_MAX)] = 1
    """Edges that `trimtab up` runs on `listen`, one a core, each with an `admin` port, in a row."""


class Otlp(Section, frozen=True):
    """Where traces and metrics go by OpenTelemetry's protocol (docs/tracing.md)."""

    endpoint: OtlpUrl = ""
    """The receiver, like http://127.0.0.1:4317; by default OTEL_EXPORTER_OTLP_ENDPOINT, if set."""
    http: bool = False
    """Speak OTLP over HTTP to it (usually port 4318) in place of gRPC."""
    ca: str = ""
    """File with the authorities that may vouch for an https endpoint (PEM)."""
    token: Secret | None = None
    """Sent to it as `authorization: Bearer`."""
    ratio: Annotated[float, msgspec.Meta(ge=0, le=1)] = 1.0
    """The share of requests that are traced, of those whose callers do not trace themselves."""
    slow_s: Seconds = 30.0
    """Requests that wait longer for their first data are traced, whatever the share."""
    metrics_period_s: Annotated[float, msgspec.Meta(ge=1, le=3_600)] = 60.0
    """How often metrics go there."""


class Remediation(Section, frozen=True):
    """Restarts of engines that are stalled beyond doubt and have a `unit`; see docs/deploy.md."""

    restarts_per_hour: Annotated[int, msgspec.Meta(ge=0, le=10)] = 0
    """Most of one engine in an hour, and of a pool one at a time; 0: none, ever."""
    floor: Annotated[int, msgspec.Meta(ge=0)] = 1
    """So many others of its pool must serve; 0 for a pool of one."""
    after_s: Annotated[float, msgspec.Meta(ge=10, le=3_600)] = 60.0
    """For so long nothing must have moved in it, six times as long in its first steps."""


class Tls(Section, frozen=True):
    """Closed wires (docs/security.md): certificates on both sides of every TCP connection."""

    dir: str = ""
    """Directory with ca.crt, tls.crt and tls.key, on a control plane also ca.key."""
    enroll: Annotated[str, msgspec.Meta(extra={"check": shapes.no_or_address_problem})] = ""
    """HOST:PORT where a control plane lets nodes join; without it nobody joins there."""
    names: tuple[Name, ...] = ()
    """How others reach this control plane: host names or IPs; the first is in the join line."""
    certificate_days: Annotated[float, msgspec.Meta(ge=0.5, le=365)] = 7.0
    """How long the certificates that a control plane issues live; renewed after two thirds."""


class Config(Section, frozen=True):
    """The file."""

    fleet: str = "fleet"
    """The fleet's name, for display."""
    node: str = ""
    """This machine's name; by default its host name."""
    listen: Address = "127.0.0.1:4000"
    """Where clients connect."""
    admin: Address = "127.0.0.1:4001"
    """Where the status page, /metrics, /decisions, /healthz and /readyz are."""
    controlplane: str = ""
    """gRPC target of the control plane, unix:/path or host:port; several as a,b,c."""
    tls: Tls = Tls()
    """Certificates between the parts."""
    insecure: bool = False
    """Let a control plane listen beyond loopback without TLS: anybody there may steer the fleet."""
    controlplane_metrics: Address | None = None
    """Where the control plane's status page and /metrics are, like 127.0.0.1:4002; else nowhere."""
    state_dir: str = ""
    """Where state is kept."""
    etcd: Etcd | None = None
    """Where the control plane's state is kept instead, when there is more than one of it."""
    report_period_s: Annotated[float, msgspec.Meta(ge=0.1, le=60)] = 0.5
    """How often agents read their engines."""
    pools: tuple[Pool, ...] = ()
    """Pools with names of their own."""
    engines: tuple[Engine, ...] = ()
    """Engines whose pool is named after the model they serve."""
    keys: tuple[Key, ...] = ()
    """Keys that may call; none means nobody may."""
    upstream_key: Secret | None = None
    """The engines' own --api-key, if they have one."""
    edge: EdgeLimits = EdgeLimits()
    """Limits and timers."""
    otlp: Otlp = Otlp()
    """Where traces and metrics go by OTLP."""
    remediation: Remediation = Remediation()
    """What may be restarted without a person; by default nothing."""


# What may name one thing only.
_UNIQUE: yaml_source.Unique = {
    Pool: {"name": "model name", "aliases": "model name"},
    Engine: {"name": "engine name", "url": "engine URL"},
    Key: {"name": "key name", "sha256": "key"},
}


def load(path: pathlib.Path) -> Config:
    """Read a file; raises ConfigError with every problem in it."""
    return parse(text_of(path), str(path))


def parse(text: str, file: str) -> Config:
    """Read a file's text; `file` is its name for the errors."""
    value, reader = read(text)
    if value is None:
        raise ConfigError(report(reader.problems, file))
    return value


def read(text: str) -> tuple[Config | None, yaml_source.Reader]:
    """A file's content, None unless it is right; and who read it, with all problems."""
    node, reader = yaml_source.compose(text), yaml_source.Reader()
    if node is None:
        return Config(), reader
    if isinstance(node, yaml_source.Problem):
        reader.problems.append(node)
        return None, reader
    value = reader.read(node, Config, "")
    reader.unique(_UNIQUE)
    return (value if isinstance(value, Config) and not reader.problems else None), reader


def resolve(secret: Secret, where: str = "") -> str:
    """A secret's text; raises ConfigError, which names the setting `where`, never the text."""
    try:
        return _resolved(secret)
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}" if where else str(error)) from None


def _resolved(secret: Secret) -> str:
    if secret.env:
        text = os.environ.get(secret.env, "").strip()
        if not text:
            raise ConfigError(f"the environment variable {secret.env} is not set or empty")
        return text
    path = _credential(secret.credential) if secret.credential else pathlib.Path(secret.file)
    text = text_of(path).strip()
    if len(text.split()) != 1:
        raise ConfigError(f"{path}: must hold one secret and nothing else")
    return text


def _credential(name: str) -> pathlib.Path:
    """Where systemd put it (systemd.exec(5), CREDENTIALS)."""
    directory = os.environ.get("CREDENTIALS_DIRECTORY", "")
    how = f"say LoadCredential={name}:/path/to/it in the unit"
    if not directory:
        raise ConfigError(
            f"credential {name}: $CREDENTIALS_DIRECTORY is not set, as systemd does it: {how},"
            " or use file"
        )
    try:
        known = sorted(os.listdir(directory))
    except OSError as error:
        raise ConfigError(f"credential {name}: {directory}: {error.strerror}") from None
    if name not in known:
        raise ConfigError(f"credential {name}: the unit has {', '.join(known) or 'none'}: {how}")
    return pathlib.Path(directory) / name


def text_of(path: pathlib.Path) -> str:
    """A file's text; raises ConfigError."""
    try:
        with path.open("rb") as stream:
            content = stream.read(FILE_LIMIT_BYTES + 1)
        if len(content) <= FILE_LIMIT_BYTES:
            return content.decode()
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not UTF-8 at byte {error.start}") from None
    raise ConfigError(f"{path}: larger than {FILE_LIMIT_BYTES} bytes")


def report(problems: Sequence[yaml_source.Problem], file: str) -> str:
    """Every problem on a line, and how many there are."""
    width = max(len(f"{file}:{problem.line}:{problem.column}") for problem in problems)
    lines = [problem.render(file, width) for problem in sorted(problems)]
    counts = Counter(problem.severity for problem in problems)
    words = [_counted(counts["error"], "error"), _counted(counts["warn"], "warning")]
    nothing = " Nothing was applied." if counts["error"] else ""
    return "\n".join([*lines, f"{', '.join(filter(None, words))}.{nothing}"])


def _counted(number: int, word: str) -> str:
    return f"{number} {word}{'s' * (number > 1)}" if number else ""
