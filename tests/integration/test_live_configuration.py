"""`ctl config` against a real control plane: what is applied counts at once, whole, for good."""

from __future__ import annotations

import hashlib
import pathlib
from dataclasses import replace
from typing import Any

import aiohttp
import pytest
from msgspec.structs import replace as changed

from ctl.client import Client
from ctl.configs import Configs, Order, apply, compare, load, rollback
from ctl.exits import CtlError, Exit
from ctl.screen import Screen
from tests.fakes.edge import KEY, EdgeUnderTest
from tests.fakes.local_engine import local_engine
from tests.fakes.peers import facts, fake_agent, fake_edge, sample
from tests.fakes.running_control_plane import config, running
from tests.fakes.wait import until
from tests.fakes.whole_fleet import whole_fleet
from trimtab.model import ApiKey, EdgePolicy, Pool, Serving

NEW_KEY = "sk-imaging-0123456789"
TOKENS = 1_000
FIRST = f"""
pools:
  - name: demo
    aliases: [fresh]
keys:
  - name: all
    sha256: {hashlib.sha256(KEY.encode()).hexdigest()}
  - name: imaging
    key: {{env: IMAGING_KEY}}
    models: [fresh]
edge:
  queue_limit: 17
"""
SECOND = FIRST.replace("    key: {env: IMAGING_KEY}\n", f"    sha256: {'ab' * 32}\n")
ORDER = Order(Screen(), "a test", yes=True)


def written(directory: pathlib.Path, text: str) -> Any:
    path = directory / "new.yaml"
    path.write_text(text)
    return load(str(path))


async def status(edge: EdgeUnderTest, http: aiohttp.ClientSession, model: str, key: str) -> int:
    body = {"model": model, "prompt": "hello", "max_tokens": 1}
    headers = {"authorization": f"Bearer {key}"}
    async with http.post(f"{edge.url}/v1/completions", json=body, headers=headers) as answer:
        await answer.read()
        return answer.status


async def test_a_new_key_and_a_new_name_count_while_a_stream_runs(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("IMAGING_KEY", NEW_KEY)
    keys = (ApiKey(hashlib.sha256(KEY.encode()).digest(), "all"),)
    configs = Configs(Client(f"unix:{tmp_path}/control.sock"))
    body = {"model": "demo", "prompt": "hello", "max_tokens": TOKENS, "stream": True}
    async with (
        local_engine() as engine,
        aiohttp.ClientSession() as http,
        whole_fleet(tmp_path, {"r1": engine.url}, keys=keys) as edge,
        http.post(
            f"{edge.url}/v1/completions",
            json=body | {"ignore_eos": True},
            headers={"authorization": f"Bearer {KEY}"},
        ) as stream,
    ):
        assert stream.status == 200
        assert await status(edge, http, "fresh", NEW_KEY) == 401

        await apply(configs, written(tmp_path, FIRST), ORDER)
        await until(lambda: edge.table.policy.queue_limit == 17)
        assert await status(edge, http, "fresh", NEW_KEY) == 200
        assert await status(edge, http, "demo", NEW_KEY) == 404

        await apply(configs, written(tmp_path, SECOND), ORDER)
        await until(lambda: edge.table.key(bytes.fromhex("ab" * 32)) is not None)
        assert await status(edge, http, "fresh", NEW_KEY) == 401
        await rollback(configs, 1, ORDER)
        await until(lambda: edge.table.key(bytes.fromhex("ab" * 32)) is None)
        assert await status(edge, http, "fresh", NEW_KEY) == 200
        await rollback(configs, 0, ORDER)
        await until(lambda: edge.table.policy == EdgePolicy())

        text = (await stream.text()).strip()
        assert text.endswith("data: [DONE]")
        assert text.count('"text"') == TOKENS
    shown = capsys.readouterr().out
    assert NEW_KEY not in shown
    assert hashlib.sha256(NEW_KEY.encode()).hexdigest() not in shown


async def test_what_was_applied_outlives_the_process_and_the_file_does_not_count(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("IMAGING_KEY", NEW_KEY)
    settings = config(tmp_path)
    client = Client(settings.listen)
    async with running(settings):
        await apply(Configs(client), written(tmp_path, FIRST), ORDER)
        before = await Configs(client).get()
        header, saved = await client.save_state()
        assert header.records == len(saved)
    async with (
        running(replace(settings, pools=(Pool("other"),))),
        fake_edge(settings.listen) as edge,
    ):
        await until(lambda: bool(edge.updates))
        assert edge.snapshot.policy.queue_limit == 17
        assert [pool.name for pool in edge.snapshot.pools] == ["demo"]
        assert await Configs(client).get() == before

        await apply(Configs(client), written(tmp_path, SECOND), ORDER)
        await client.restore_state(saved, "", "op@box", preview=False)
        assert await Configs(client).get() == before
        revisions, current = await Configs(client).history()
        assert [(one.revision, one.reason) for one in revisions] == [(1, "a test")]
        assert current == 1


async def test_engines_come_and_go_with_the_configuration(tmp_path: pathlib.Path) -> None:
    settings = config(tmp_path)
    configs = Configs(Client(settings.listen))
    text = "engines:\n  - {{url: 'http://127.0.0.1:9', name: planned}}\npools:\n  - name: {}\n"
    url = "    engines: [{url: 'http://127.0.0.1:8', served_as: m}]\n"
    async with running(settings) as target, fake_agent(target) as agent, fake_edge(target) as edge:
        await agent.say(facts(url="http://127.0.0.1:8"))
        await agent.report(sample())
        await edge.until_serving("r1", Serving.OPEN)
        await apply(configs, written(tmp_path, text.format("big") + url), ORDER)
        await until(lambda: [route.pool for route in edge.snapshot.routes] == ["big"])
        assert edge.serving("r1") is Serving.OPEN
        fleet = await Client(target).fleet()
        assert [one.route.replica for one in fleet.replicas] == ["planned", "r1"]

        await apply(configs, written(tmp_path, "pools:\n  - name: m\n"), ORDER)
        await until(lambda: [route.pool for route in edge.snapshot.routes] == ["m"])
        fleet = await Client(target).fleet()
        assert [one.route.replica for one in fleet.replicas] == ["r1"]


async def test_what_edges_would_refuse_changes_nothing(tmp_path: pathlib.Path) -> None:
    settings = config(tmp_path)
    configs = Configs(Client(settings.listen))
    async with running(settings) as target, fake_agent(target) as agent, fake_edge(target) as edge:
        await agent.serve("r1")
        await edge.until_serving("r1", Serving.OPEN)
        bad = written(tmp_path, "pools:\n  - {name: other, aliases: [x]}\n  - name: y\n")
        bad = changed(bad, pools=(changed(bad.pools[0], aliases=("y",)), bad.pools[1]))
        with pytest.raises(CtlError, match=r"model name y is there twice\nNothing was") as caught:
            await apply(configs, bad, ORDER)
        assert caught.value.code is Exit.USAGE
        assert (await configs.get()).current == 0
        assert [pool.name for pool in edge.snapshot.pools] == ["m"]


async def test_of_two_admins_who_compared_with_the_same_one_wins(tmp_path: pathlib.Path) -> None:
    settings = config(tmp_path)
    configs = Configs(Client(settings.listen))
    async with running(settings):
        base = written(tmp_path, "edge: {queue_limit: 5}")
        stale, _ = await compare(configs, base)
        await apply(configs, base, ORDER)

        class Stale(Configs):
            async def get(self, revision: int | None = None) -> Any:
                return stale

        other = written(tmp_path, "edge: {queue_limit: 6}")
        with pytest.raises(CtlError, match="revision 1 is in effect by now, applied by") as caught:
            await apply(Stale(Client(settings.listen)), other, ORDER)
        assert caught.value.code is Exit.CONFLICT
        assert (await configs.get()).config.policy.queue_limit == 5
