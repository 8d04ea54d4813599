"""What an address or a URL must look like, said so that the reader can put it right at once.

Rule: each check returns "" when all is well, else the problem as the end of a sentence, with the
nearest right value where one can be guessed. Values that may hold a password are not repeated.
"""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, time, timedelta

_URL = re.compile(r"https?://(?P<host>\[[0-9A-Fa-f:.]+\]|[\w.-]+):(?P<port>\d{1,5})/?")
_LOOSE_URL = re.compile(
    r"(?P<scheme>https?)?:?/*(?P<host>\[[0-9A-Fa-f:.]+\]|[\w.-]+)(?::(?P<port>\d{1,5}))?(?P<path>/.*)?"
)
_UNIT = re.compile(r"[A-Za-z0-9:_.\\-][A-Za-z0-9:_.@\\-]{0,240}\.service")
_CREDENTIAL = re.compile(r"[A-Za-z0-9._-]{1,255}")
_ORIGIN = re.compile(r"https?://(?:\[[0-9a-f:.]+\]|[a-z0-9.-]+)(?::\d{1,5})?")
_ADDRESS = re.compile(r"(?P<host>\[[0-9A-Fa-f:.]+\]|[\w.-]+):(?P<port>\d{1,5})")
_API = re.compile(
    r"(?:https://[\w.-]+|http://(?:127\.0\.0\.1|localhost|\[::1\]))(?::\d{1,5})?(?:/[\w./-]*)?"
)
_PATH = re.compile(r"(/[A-Za-z0-9_-]+)+")
_PORT_LIMIT = 65_535
_VLLM_PORT = "8000"
_ETCD_PORT = "2379"
_OTLP_PORT = "4317"


def url_problem(text: str) -> str:
    """An engine's base URL: http(s)://host:port."""
    return _url_problem(text, _VLLM_PORT, "put the key in upstream_key")


def etcd_problem(text: str) -> str:
    """An etcd endpoint: http(s)://host:port."""
    return _url_problem(text, _ETCD_PORT, "put them in etcd.username and etcd.password")


def otlp_problem(text: str) -> str:
    """An OTLP receiver: http(s)://host:port."""
    return _url_problem(text, _OTLP_PORT, "put what it asks for in otlp.token")


def api_problem(text: str) -> str:
    """An API's base URL; encrypted, as a key and prompts go there, unless it is on this machine."""
    if "@" in text:
        return "holds a user or password: put the key in key"
    if _API.fullmatch(text):
        return ""
    return f'"{text}" is not a URL like https://host/v1 (http:// only on this machine)'


def _url_problem(text: str, usual_port: str, advice: str) -> str:
    match = _URL.fullmatch(text)
    if match and 0 < int(match["port"]) <= _PORT_LIMIT:
        return ""
    if "@" in text:
        return f"holds a user or password: give http://host:port and {advice}"
    if match:
        return f'"{text}" has no such port: 1 to {_PORT_LIMIT}'
    guess = _guess_url(text, usual_port)
    hint = f' (did you mean "{guess}"?)' if guess else ""
    return f'"{text}" is not a URL like http://host:port{hint}'


def _guess_url(text: str, usual_port: str) -> str:
    match = _LOOSE_URL.fullmatch(text.strip())
    if not match or match["host"].isdigit():
        return ""
    scheme = match["scheme"] or "http"
    guess = f"{scheme}://{match['host']}:{match['port'] or usual_port}"
    return guess if _URL.fullmatch(guess) else ""


def origin_problem(text: str) -> str:
    """A web origin as browsers spell it: scheme://host, and :port unless it is the usual one."""
    if _ORIGIN.fullmatch(text):
        return ""
    return f'"{text}" is not an origin as browsers spell it, like https://portal.lab'


def address_problem(text: str) -> str:
    """An address to listen on: HOST:PORT."""
    match = _ADDRESS.fullmatch(text)
    if match and int(match["port"]) <= _PORT_LIMIT:
        return ""
    if match:
        return f'"{text}" has no such port: 0 to {_PORT_LIMIT}'
    guess = _guess_address(text.strip())
    hint = f' (did you mean "{guess}"?)' if guess else ""
    return f'"{text}" is not HOST:PORT{hint}'


def no_or_unit_problem(text: str) -> str:
    """A systemd service unit, or nothing."""
    if not text or _UNIT.fullmatch(text):
        return ""
    return f'"{text}" is not a service unit like vllm@0.service'


def no_or_address_problem(text: str) -> str:
    """An address to listen on, or nothing."""
    return address_problem(text) if text else ""


def no_or_credential_problem(text: str) -> str:
    """What systemd may name a credential; the text is not repeated: it may be the secret."""
    if not text or (_CREDENTIAL.fullmatch(text) and text.strip(".")):
        return ""
    return "not a credential's name: letters, digits, dots, dashes and underscores"


def _guess_address(text: str) -> str:
    bare = re.sub(r"^https?://", "", text).split("/")[0]
    if re.fullmatch(r":?\d{1,5}", bare):
        bare = f"127.0.0.1:{bare.lstrip(':')}"
    return bare if _ADDRESS.fullmatch(bare) else ""


def path_problem(text: str) -> str:
    """A path of an engine's API."""
    if _PATH.fullmatch(text):
        return ""
    return f'"{text}" is not a path like /v1/chat/completions/batch'


def sha256_problem(text: str) -> str:
    """A SHA-256 in hex. The text itself is not repeated: it may be the key, put here by mistake."""
    if re.fullmatch(r"[0-9a-fA-F]{64}", text):
        return ""
    return f"is not a SHA-256: 64 hex digits, not {len(text)} characters"


def moment_problem(text: str) -> str:
    """A day, or a time with its zone."""
    if not text:
        return ""
    try:
        moment_ms(text)
    except ValueError:
        return f'"{text}" is neither a day like 2027-03-31 nor a time like 2027-03-31T18:00+02:00'
    return ""


def moment_ms(text: str) -> int:
    """Unix time of a text that passed `moment_problem`; of a day alone, its end in UTC."""
    if len(text) == len("2027-03-31"):
        moment = datetime.combine(date.fromisoformat(text), time.min, UTC) + timedelta(days=1)
    else:
        moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError("without a zone it is no moment")
    return round(1000 * moment.timestamp())


def moment(unix_ms: int) -> str:
    """Unix time as the file may have it."""
    return datetime.fromtimestamp(unix_ms / 1000, UTC).isoformat()


def split_address(text: str) -> tuple[str, int]:
    """Host and port of a text that passed `address_problem`."""
    host, _, port = text.rpartition(":")
    return host.strip("[]"), int(port)
