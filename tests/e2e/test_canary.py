"""What callers say, and keys, are nowhere: strings go through everything, and are looked for.

Real processes answer, refuse, fail, retry and continue requests that carry a string of their own in
every place that a caller controls; then whatever the processes wrote or serve is searched.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import pathlib
import socket
import stat
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from ctl.main import main
from tests.e2e.starter import Starter, Up, free_address
from trimtab.runtime.clock import now_s

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(240)]

MARK = "zq-canary"
KEY, UPSTREAM, OUTSIDE = (f"sk-{MARK}-{name}-0123456789" for name in ("key", "upstream", "outside"))
CHAT, TEXT = "/v1/chat/completions", "/v1/completions"
DEADLINE_S = 60.0


def canary(place: str) -> str:
    """A string for one place."""
    return f"{MARK}-{place}"


def conversation(**more: Any) -> dict[str, Any]:
    """A chat with something in every field."""
    call = {"name": canary("function"), "arguments": json.dumps({"a": canary("argument")})}
    said = {"role": "assistant", "content": None, "tool_calls": [
        {"id": canary("call"), "type": "function", "function": call}]}  # fmt: skip
    return {
        "model": "demo",
        "messages": [
            {"role": "system", "content": canary("system")},
            {"role": "user", "content": canary("user"), "name": canary("name")},
            said,
            {"role": "tool", "tool_call_id": canary("call"), "content": canary("result")},
        ],
        "user": canary("enduser"),
        "metadata": {canary("metakey"): canary("metavalue")},
        "prompt_cache_key": canary("cachekey"),
        "stop": [canary("stop")],
        "max_tokens": 5,
        canary("unknownfield"): canary("unknownvalue"),
    } | more


TOOL = {"name": canary("tool"), "description": canary("tooldoc"), "parameters": {}}
TOOLS = [{"type": "function", "function": TOOL}]
SHOWN = "what-the-caller-calls-it"
HEADERS = {
    "x-request-id": SHOWN,
    "authorization": f"Bearer {KEY}",
    "content-type": "application/json",
    "cookie": f"session={canary('cookie')}",
    "user-agent": canary("agent"),
    "x-session-id": canary("session"),
    "traceparent": canary("traceparent"),
    "tracestate": f"{canary('tracestate')}=1",
    "anthropic-beta": canary("beta"),
    "referer": f"http://{canary('referer')}/",
    "x-forwarded-for": canary("forwarded"),
    canary("header"): canary("headervalue"),
}


class Fleet:
    """A running fleet, and requests to it."""

    def __init__(self, up: Up, starter: Starter, audit: pathlib.Path) -> None:
        self.up = up
        self.starter = starter
        self.audit = audit
        self.ids: list[str] = []

    def ask(self, path: str, body: Any, **headers: str | None) -> int:
        """One request to its end; its status."""
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        sent = HEADERS | {name.replace("_", "-"): text for name, text in headers.items()}
        connection = http.client.HTTPConnection(self.starter.listen, timeout=20)
        given = {name: text for name, text in sent.items() if text}
        connection.request("POST", path, content, given)
        answer = connection.getresponse()
        self.ids.append(answer.headers["x-request-id"])
        with contextlib.suppress(http.client.IncompleteRead):  # a stream that ended in an error
            answer.read()
        connection.close()
        return answer.status

    def fault(self, number: int, **faults: Any) -> None:
        """Let an engine go wrong; with nothing it is well again."""
        method = "POST" if faults else "DELETE"
        content = json.dumps(faults).encode()
        url = self.starter.controls[number]
        request = urllib.request.Request(url, content, method=method)  # noqa: S310 - ours
        urllib.request.urlopen(request).close()  # noqa: S310

    def until_open(self, replicas: int) -> None:
        """Wait until so many may get requests."""
        deadline_s = now_s() + DEADLINE_S
        ready = f"http://{self.starter.admin}/readyz"
        while json.load(urllib.request.urlopen(ready))["open_replicas"] < replicas:
            assert now_s() < deadline_s


@pytest.fixture
def fleet(
    starter: Starter, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Fleet]:
    secrets = tmp_path / "credentials"
    secrets.mkdir()
    for name, text in (("lab", KEY), ("engines", UPSTREAM), ("outside", OUTSIDE)):
        (secrets / name).write_text(text + "\n")
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(secrets))
    config = tmp_path / "t.yaml"
    config.write_text(f"""
controlplane_metrics: {free_address()}
upstream_key: {{credential: engines}}
keys: [{{name: lab, key: {{credential: lab}}, fallback: true}}]
pools:
  - name: demo
    engines: [{{url: "{starter.engine()}", name: r0}}, {{url: "{starter.engine()}", name: r1}}]
    fallback: {{url: http://127.0.0.1:9/v1, model: away, key: {{credential: outside}}}}
edge:
  access_log: {{lines: all, file: {starter.state}/access.log, client_address: true}}
""")
    up = starter.start("--config", str(config))
    up.wait_for("ready in")
    fleet = Fleet(up, starter, tmp_path / "audit")
    fleet.until_open(2)
    yield fleet
    assert up.end() == 0


def form(boundary: str) -> bytes:
    """A form with a file."""
    fields = {
        'name="model"': "demo",
        'name="prompt"': canary("formprompt"),
        f'name="file"; filename="{canary("file")}.wav"': canary("content"),
    }
    parts = [
        f"--{boundary}\r\ncontent-disposition: form-data; {name}\r\n\r\n{value}\r\n"
        for name, value in fields.items()
    ]
    return "".join([*parts, f"--{boundary}--\r\n"]).encode()


def well(fleet: Fleet) -> None:
    """What is answered."""
    text = {"model": "demo", "prompt": canary("prompt"), "suffix": canary("suffix")}
    assert fleet.ask(CHAT, conversation()) == 200
    assert fleet.ask(f"{CHAT}?api_key={canary('query')}", conversation(stream=True)) == 200
    fleet.ask(CHAT, conversation(tool_choice=canary("choice"), tools=TOOLS))
    for _ in range(2):  # the second time it is replayed
        assert fleet.ask(TEXT, text, idempotency_key=canary("idempotency")) == 200
    assert fleet.ask(TEXT, {}, idempotency_key=canary("idempotency")) in {409, 422}
    fleet.ask("/v1/messages", conversation(system=canary("msystem")))
    instructions = {"instructions": canary("instructions"), "input": canary("input")}
    fleet.ask("/v1/responses", {"model": "demo"} | instructions)
    fleet.ask("/v1/embeddings", {"model": "demo", "input": [canary("embedded")]})
    fleet.ask("/tokenize", {"model": "demo", "prompt": canary("tokenized")})
    kind = f"multipart/form-data; boundary={MARK}-boundary"
    fleet.ask("/v1/audio/transcriptions", form(f"{MARK}-boundary"), content_type=kind)


def refused(fleet: Fleet) -> None:
    """What is not: by us, or by the engine, which quotes what it did not like."""
    assert fleet.ask(TEXT, {}, authorization=f"Bearer sk-{canary('badkey')}-x") == 401
    assert fleet.ask(TEXT, {}, authorization=None, x_api_key=canary("xapikey")) == 401
    assert fleet.ask(TEXT, {"model": canary("model"), "prompt": "x"}) == 404
    assert fleet.ask(f"/v1/{canary('path')}?{canary('name')}={canary('value')}", {}) == 404
    assert fleet.ask(f"/v1/responses/{canary('id')}/cancel", {}) == 404
    assert fleet.ask(TEXT, b'{"prompt": "%s' % canary("broken").encode()) == 400
    assert fleet.ask(TEXT, {}, content_type=canary("type")) in {400, 415}
    assert fleet.ask(TEXT, b"x", content_encoding=canary("encoding")) in {400, 415}
    for field, value in (("max_tokens", canary("number")), ("prompt", {"a": canary("shape")})):
        fleet.ask(TEXT, {"model": "demo", "prompt": "x", field: value})
    for line in (f"GET /{canary('line')} HTTP/9.9\r\n\r\n", f"{canary('rubbish')}\r\n\r\n"):
        host, port = fleet.starter.listen.split(":")
        with socket.create_connection((host, int(port)), timeout=20) as raw:
            raw.sendall(line.encode())
            raw.recv(1_000)


def failing(fleet: Fleet) -> None:
    """What is tried again, goes on elsewhere, is blocked, or finds no replica."""
    text = {"model": "demo", "prompt": canary("retried"), "max_tokens": 5}
    fleet.fault(0, reject=True)
    assert fleet.ask(TEXT, text) == 200
    fleet.fault(0, error_rate=1.0)
    for _ in range(3):
        assert fleet.ask(TEXT, text) == 200
    fleet.fault(0)
    streamed = {"stream": True, "ignore_eos": True, "max_tokens": 40}
    fleet.fault(0, die_mid_stream={"after_tokens": 5, "mode": "api"})
    fleet.fault(1, error_in_stream=5)
    for place in ("first", "second"):
        body = {"model": "demo", "prompt": canary(place), **streamed}
        fleet.ask(TEXT, body)
    fleet.fault(1, error_rate=1.0)
    for _ in range(3):
        fleet.ask(TEXT, {"model": "demo", "prompt": canary("poison")})


def by_ctl(fleet: Fleet, capsys: pytest.CaptureFixture[str]) -> Iterator[tuple[str, bytes]]:
    """Everything that `ctl` tells."""
    server = f"unix:{fleet.starter.state}/control.sock"
    saved = fleet.audit.with_name("saved.state")
    lines = [
        *("status", "status -o json", "events", "audit", "doctor", "config show --origin"),
        *("config history", "get replicas -o json", "get edges -o json", "get agents -o json"),
        *("describe replica r0", "explain replica r0", "explain tenant lab", "explain model demo"),
        *("simulate --replicas +1", f"snapshot save {saved}", "version"),
        *(f"explain request {request_id}" for request_id in fleet.ids),
    ]
    for line in lines:
        main(["--server", server, *line.split()])
        said = capsys.readouterr()
        yield f"ctl {line}", (said.out + said.err).encode()
    assert saved.exists()
    yield "snapshot", saved.read_bytes()


def by_http(fleet: Fleet) -> Iterator[tuple[str, bytes]]:
    """What operators' addresses serve."""
    page = fleet.up.row("page").rstrip("/")
    edge = f"http://{fleet.starter.admin}"
    paths = ("/metrics", "/", "/?format=json", "/public/", "/history", "/public/history")
    urls = [*(f"{where}{path}" for where in (page, edge) for path in paths), f"{page}/explain/r0"]
    urls += [f"{edge}/decisions?limit=1000", f"{edge}/readyz"]
    urls += [f"{edge}/decisions/{request_id}" for request_id in fleet.ids]
    for url in urls:
        try:
            with urllib.request.urlopen(url) as answer:  # noqa: S310 - ours
                yield url, answer.read()
        except urllib.error.HTTPError as error:
            yield url, error.read()


def by_process(fleet: Fleet) -> Iterator[tuple[str, bytes]]:
    """What the processes wrote, and what others on the machine see of them."""
    for path in sorted(fleet.starter.state.rglob("*")):
        if path.is_file() and path.name != "upstream.key":  # the secret itself, where it belongs
            yield str(path), path.read_bytes()
    for pid in [fleet.up.process.pid, *(child.pid for child in fleet.up.children())]:
        for name in ("environ", "cmdline"):
            yield f"{name} of {pid}", pathlib.Path(f"/proc/{pid}/{name}").read_bytes()
    yield "what it said", "\n".join(fleet.up.lines).encode()


def test_nothing_of_callers_and_no_key_is_anywhere(
    fleet: Fleet, capsys: pytest.CaptureFixture[str]
) -> None:
    well(fleet)
    refused(fleet)
    failing(fleet)
    log = fleet.starter.state / "access.log"
    wait_for(lambda: len(log.read_text().splitlines()) >= len(fleet.ids) + 2)
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert {line["request_id"] for line in lines} >= set(fleet.ids)
    outcomes = {line["outcome"] for line in lines}
    assert outcomes >= {"ok", "client_error", "replica_error"}
    assert any(line["failovers"] for line in lines)
    key = fleet.starter.state / "run" / "upstream.key"
    assert stat.S_IMODE(key.stat().st_mode) == 0o600

    told = [*by_ctl(fleet, capsys), *by_http(fleet), *by_process(fleet)]
    assert len([where for where, _ in told if where.startswith("http")]) > len(fleet.ids)
    shown = {where for where, content in told if SHOWN.encode() in content}
    assert str(log) in shown  # so what is not found is not there
    found = {where for where, content in told if MARK.encode() in content.lower()}
    assert found == set()


def wait_for(condition: Callable[[], bool]) -> None:
    """Until it holds."""
    deadline_s = now_s() + DEADLINE_S
    while not condition():
        assert now_s() < deadline_s
