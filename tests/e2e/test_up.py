"""`trimtab up` end to end: real processes on loopback, simulated engines."""

from __future__ import annotations

import http.client
import json
import os
import pathlib
import shlex
import signal
import socket
import urllib.parse
import urllib.request

import pytest
from openai import OpenAI

from tests.e2e.starter import Starter, Up, free_address

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(240)]


def paste(curl: str) -> dict[str, object]:
    """Do what a curl line does."""
    words = shlex.split(curl)
    assert words[:2] == ["curl", "-sS"]
    options = list(zip(words[3::2], words[4::2], strict=True))
    headers = dict(value.split(": ", 1) for name, value in options if name == "-H")
    (body,) = (value for name, value in options if name == "-d")
    url = urllib.parse.urlsplit(words[2])
    connection = http.client.HTTPConnection(url.netloc, timeout=20)
    connection.request("POST", url.path, body, headers)
    response = connection.getresponse()
    answer: dict[str, object] = json.load(response)
    connection.close()
    assert response.status == 200, answer
    return answer


def client(up: Up) -> OpenAI:
    """The official client."""
    return OpenAI(base_url=up.row("endpoint"), api_key=up.row("key"), timeout=20)


def ask(up: Up, model: str = "demo") -> str:
    """A streamed answer through the official client."""
    with client(up) as openai:
        stream = openai.chat.completions.create(
            model=model, messages=[{"role": "user", "content": "hello"}], stream=True
        )
        return "".join(chunk.choices[0].delta.content or "" for chunk in stream if chunk.choices)


def test_the_demo_says_what_it_is_serves_and_ends_with_ctrl_c(starter: Starter) -> None:
    up = starter.start("--demo")
    up.wait_for("ready in")
    assert "SIMULATED" in up.lines[0]
    assert up.row("endpoint") == f"http://{starter.listen}/v1"
    answer = paste(up.row("try"))
    assert answer["model"] == "demo"
    assert ask(up)
    written = (starter.state / "run" / "trimtab.json").read_text()
    assert up.row("key") not in written
    assert len(up.children()) == 5
    assert up.end(signal.SIGINT) == 0
    assert up.wait_for("stopped")


def test_kill_minus_nine_leaves_nothing_and_the_next_start_has_the_same_key(
    starter: Starter,
) -> None:
    first = starter.start("--demo")
    key = first.row("key")
    assert first.end(signal.SIGKILL) == -signal.SIGKILL
    second = starter.start("--demo")
    assert second.row("key") == key
    assert ask(second)
    assert second.end(signal.SIGTERM) == 0


@pytest.mark.parametrize("module", ["controlplane", "agent", "edge"])
def test_a_killed_child_comes_back_and_the_fleet_serves(module: str, starter: Starter) -> None:
    up = starter.start("--demo")
    up.wait_for("ready in")
    up.child(module).kill()
    up.wait_for(f"{module} was killed by SIGKILL: starting it again")
    up.wait_for(f"{module} is back")
    assert ask(up)
    assert up.end() == 0


def test_a_second_one_with_the_same_state_is_refused(starter: Starter) -> None:
    up = starter.start("--demo")
    up.wait_for("ready in")
    code, said = starter.refused("--demo", "--listen", free_address())
    assert code == 64
    assert said.startswith(f"trimtab runs already in {starter.state} (process {up.process.pid})")
    assert up.end() == 0


def test_a_busy_port_is_refused(starter: Starter) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        code, said = starter.refused("--demo", "--listen", address)
    assert code == 64
    assert said.startswith(f"cannot listen on {address}: another program listens there")
    assert len(said.splitlines()) == 1


@pytest.mark.parametrize(
    ("args", "sentence"),
    [
        (("--engine", "http:/h:1"), 'is not a URL like http://host:port (did you mean "http://h:1'),
        (("--engine", "http://h:1/v1"), '(did you mean "http://h:1"?)'),
        (("--state", "/var/" + "x" * 90), "give a shorter --state"),
        (("--config", "/nowhere.yaml"), "cannot read /nowhere.yaml: No such file"),
        (("--key", "a b"), "--key: at least 8 visible ASCII characters"),
    ],
)
def test_what_cannot_be_done_is_one_sentence(
    args: tuple[str, ...], sentence: str, starter: Starter
) -> None:
    code, said = starter.refused(*args)
    assert (code, len(said.splitlines())) == (64, 1)
    assert sentence in said


def test_an_engine_that_is_not_there_yet_is_a_warning(starter: Starter) -> None:
    address = free_address()
    up = starter.start("--engine", f"http://{address}", "--key", "sk-of-mine")
    up.wait_for(f"! nobody listens at http://{address}: going on, because it may be starting")
    up.wait_for("ready in")
    assert up.row("key") == "sk-of-mine"
    assert up.row("try") == "no model is ready yet: the next line shows why"
    assert not (starter.state / "key").exists()
    assert up.end() == 0


def test_a_configuration_file_names_pools_and_keys(
    starter: Starter, tmp_path: pathlib.Path
) -> None:
    key, config = tmp_path / "key", tmp_path / "t.yaml"
    key.write_text("sk-imaging-lab\n")
    config.write_text(
        f"pools: [{{name: big, aliases: [b], engines: [{{url: '{starter.engine()}'}}]}}]\n"
        f"keys: [{{name: imaging, key: {{file: {key}}}}}]\n"
    )
    up = starter.start("--config", str(config))
    assert up.row("key") == "those of the configuration: imaging"
    assert '"model": "big"' in up.row("try")
    assert paste(up.row("try").replace("$TRIMTAB_KEY", "sk-imaging-lab"))["choices"]
    assert up.end() == 0


def two_ports() -> str:
    """The first of two free ports in a row, of those that no outgoing connection is given."""
    for port in range(20_000 + os.getpid() % 1000 * 10, 32_000, 2):
        try:
            for each in (port, port + 1):
                with socket.socket() as probe:
                    probe.bind(("127.0.0.1", each))
        except OSError:
            continue
        return f"127.0.0.1:{port}"
    raise AssertionError("no two free ports in a row")


def served(admin: str) -> float:
    """How many requests an edge has ended, as its /metrics say."""
    with urllib.request.urlopen(f"http://{admin}/metrics", timeout=20) as answer:
        lines = answer.read().decode().splitlines()
    return sum(
        float(line.rsplit(" ", 1)[1])
        for line in lines
        if line.startswith("trimtab_edge_requests_total{")
    )


def test_two_workers_share_a_port_and_one_is_enough(
    starter: Starter, tmp_path: pathlib.Path
) -> None:
    config = tmp_path / "t.yaml"
    config.write_text("edge: {workers: 2}\n")
    starter.admin = two_ports()
    host, _, port = starter.admin.partition(":")
    admins = [starter.admin, f"{host}:{int(port) + 1}"]
    up = starter.start("--demo", "--config", str(config))
    curl = up.row("try")
    for _ in range(200):  # the kernel deals out connections, by their ports
        assert paste(curl)["choices"]
        if all(served(admin) for admin in admins):
            break
    else:
        raise AssertionError([served(admin) for admin in admins])
    named = f"{curl} -H 'idempotency-key: once'"
    assert len({paste(named)["id"] for _ in range(12)}) == 1  # whichever worker was asked
    (second,) = (p for p in up.children() if p.cmdline()[-2:] == ["--worker", "2"])
    second.kill()
    up.wait_for("edge-2 was killed")
    for _ in range(5):
        assert paste(curl)["choices"]
    up.wait_for("edge-2 is back")
    assert up.end() == 0
