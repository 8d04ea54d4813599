"""What `ctl node` prints: for people as ever, for programs as `ctl get` does."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable
from typing import Any

import grpc
import pytest

from ctl.exits import CtlError, Exit
from ctl.nodes import Nodes
from ctl.options import Format
from ctl.pages import Page
from ctl.screen import Screen
from trimtab.runtime import rpc
from trimtab.steered import Order
from trimtab.v1 import identity_pb2 as pb

ADA = Order("ada", "new rack")
TOKENS = pb.ListTokensResponse(
    tokens=[pb.TokenView(id="t1", role="agent", name="n1", expires_in_ms=60_000)]
)
ANN = pb.IdentityView(serial="5e1f", role="edge", name="e1", expires_in_ms=1_000, revoked=True)


def ask(answer: Any, method: str, *words: Any) -> Page:
    """What a command finds when the control plane answers this."""

    class Stub:
        def __getattr__(self, _name: str) -> Any:
            async def call(*_: Any, **__: Any) -> Any:
                if isinstance(answer, Exception):
                    raise answer
                return answer

            return call

    async def work() -> Page:
        async with rpc.channel("unix:/nobody") as channel:
            nodes = Nodes("here", channel)
            nodes._stub = Stub()  # type: ignore[assignment]
            found: Awaitable[Page] = getattr(nodes, method)(*words)
            return await found

    return asyncio.run(work())


@pytest.mark.parametrize(
    ("answer", "call", "people", "names", "item"),
    [
        (
            TOKENS, ("tokens",), "ID  ROLE   NAME  EXPIRES IN\nt1  agent  n1    1m\n", "t1\n",
            {"id": "t1", "role": "agent", "name": "n1", "expires_in_ms": 60_000},
        ),
        (
            pb.RevokeIdentitiesResponse(identities=[ANN]), ("revoke", "e1", ADA),
            "edge e1 5e1f: revoked\n", "5e1f\n",
            {
                "serial": "5e1f", "role": "edge", "name": "e1", "expires_in_ms": 1_000,
                "revoked": True,
            },
        ),
        (
            pb.CreateTokenResponse(token="tt", enroll="cp:1"),
            ("create_token", "agent", "n1", 60_000, ADA),
            "trimtab join cp:1 tt\n", "trimtab join cp:1 tt\n",
            {
                "command": "trimtab join cp:1 tt",
                "role": "agent", "name": "n1", "expires_in_ms": 60_000,
            },
        ),
    ],
    ids=["list", "revoke", "create"],
)  # fmt: skip
def test_pages(
    answer: Any, call: tuple[Any, ...], people: str, names: str, item: dict[str, Any]
) -> None:
    page, screen = ask(answer, *call), Screen()
    assert page.text(screen, Format.TABLE) == people
    assert page.text(screen, Format.NAME) == names
    assert json.loads(page.text(screen, Format.JSON))["items"] == [item]
    assert json.loads(page.text(screen, Format.JSONL)) == item


@pytest.mark.parametrize(
    ("code", "exit_code"),
    [
        (grpc.StatusCode.NOT_FOUND, Exit.NOT_FOUND),
        (grpc.StatusCode.UNAVAILABLE, Exit.UNREACHABLE),
        (grpc.StatusCode.INVALID_ARGUMENT, Exit.USAGE),
    ],
)
def test_exit_codes_are_those_of_all_commands(code: grpc.StatusCode, exit_code: Exit) -> None:
    error = grpc.aio.AioRpcError(code, grpc.aio.Metadata(), grpc.aio.Metadata(), "why")
    with pytest.raises(CtlError) as caught:
        ask(error, "revoke", "n9", ADA)
    assert caught.value.code is exit_code
