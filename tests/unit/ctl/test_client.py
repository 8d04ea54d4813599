"""The adapter against a real server on a unix socket."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import replace
from typing import TypeVar

import grpc
import pytest

from ctl import client
from ctl.client import Client, Frame, Lost
from ctl.exits import CtlError, Exit
from ctl.steer import Steer
from tests.fakes.admin import FakeAdmin
from tests.fakes.fleet import FLEET, WELL
from trimtab import codec
from trimtab.model import Intent
from trimtab.steered import Order
from trimtab.v1 import types_pb2

T = TypeVar("T", Frame, Lost)


async def test_a_fleet_survives_the_wire(admin: FakeAdmin) -> None:
    assert await Client(admin.target).fleet() == FLEET


async def test_intent_carries_reason_and_actor(admin: FakeAdmin) -> None:
    order = Order("op@box", "fan is new", 400)
    steer = Steer(Client(admin.target))
    assert await steer.set_intents(["gpu2"], Intent.ACTIVE, order) == (413, [Intent.CORDONED])
    sent = admin.steer.intents[0]
    assert (list(sent.replicas), codec.decode(sent.order, Order)) == (["gpu2"], order)
    assert sent.intent == types_pb2.INTENT_ACTIVE


async def test_watch_pushes_changes_and_outlives_a_restart(admin: FakeAdmin) -> None:
    back = replace(WELL, version=900)
    async with aclosing(Client(admin.target).watch()) as seen:
        assert await anext(seen) == Frame(FLEET)
        admin.show(WELL)
        await _until(seen, Frame(WELL))
        admin.stop()
        lost = await _next_of(seen, Lost)
        assert lost.reason
        assert admin.target not in lost.reason
        admin.fleet = back
        admin.start()
        again = await _next_of(seen, Frame)
        assert again.fleet == back
        assert again.gap_s is not None
        assert again.gap_s > 0
        assert await anext(seen) == Frame(back)


async def _until(seen: AsyncGenerator[Frame | Lost, None], wanted: Frame) -> None:
    async for one in seen:
        if one == wanted:
            return


async def _next_of(seen: AsyncGenerator[Frame | Lost, None], kind: type[T]) -> T:
    async for one in seen:
        if isinstance(one, kind):
            return one
    raise AssertionError("the watch ended")


async def test_watch_of_nobody_fails_at_once(tmp_path: object) -> None:
    target = f"unix:{tmp_path}/nobody.sock"
    with pytest.raises(CtlError, match="No such file") as error:
        await anext(Client(target).watch())
    assert error.value.code is Exit.UNREACHABLE


async def test_refusal_keeps_the_servers_words(admin: FakeAdmin) -> None:
    admin.refusal = (grpc.StatusCode.PERMISSION_DENIED, "you may not")
    with pytest.raises(CtlError, match="you may not") as error:
        await Client(admin.target).fleet()
    assert error.value.code is Exit.DENIED


async def test_a_servers_own_unavailable_is_not_cut(admin: FakeAdmin) -> None:
    admin.refusal = (grpc.StatusCode.UNAVAILABLE, "not set: the store is gone: disk full")
    with pytest.raises(CtlError, match="not set: the store is gone: disk full"):
        await Client(admin.target).fleet()


async def test_a_watch_that_hears_nothing_gives_up(
    admin: FakeAdmin, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "DEADLINE_S", 0.2)
    admin.silent = True
    with pytest.raises(CtlError, match="no answer within") as error:
        await anext(Client(admin.target).watch())
    assert error.value.code is Exit.UNREACHABLE
