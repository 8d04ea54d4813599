"""What `ctl doctor` asks for, and how it tells what it found.

Rules: who can't be reached is a finding too; fleets without certificates have none to judge; the
worst finding makes the exit code.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from importlib.metadata import version
from typing import Any

import grpc

from ctl import nouns
from ctl.client import DEADLINE_S, Client, identity
from ctl.columns import text
from ctl.configs import Configs
from ctl.exits import CtlError, Exit
from ctl.judges import DAY_MS, Case, Certificate, Finding, Level, judge
from ctl.options import Format
from ctl.pages import Page
from ctl.render import Table
from ctl.screen import Screen
from trimtab import codec
from trimtab.facts import FleetFacts
from trimtab.runtime import clock
from trimtab.v1 import doctor_pb2, doctor_pb2_grpc, identity_pb2, identity_pb2_grpc
from trimtab.views import Fleet

DAYS_DEFAULT = 7.0
WORKER_MARK = ":"
_EXITS = {Level.BAD: Exit.DOWN, Level.WARN: Exit.DEGRADED}


def examine(target: str, node: str) -> list[Finding]:
    """Everything about the fleet, or about one node; CtlError when there is no such node."""
    try:
        case = asyncio.run(_case(Client(target, identity())))
    except CtlError as error:
        if error.code is not Exit.UNREACHABLE:
            raise
        why = f"no answer at {target}: {error.why or error}"
        change = "systemctl status trimtab-controlplane   there; edges serve on meanwhile"
        return [Finding(Level.BAD, "control plane", "fleet", why, change)]
    found = judge(case)
    return _about(found, case.fleet, node) if node else found


def told(screen: Screen, found: Sequence[Finding], form: Format) -> str:
    """As lines, or as data."""
    items = tuple(
        {
            "level": one.level.value,
            "check": one.check,
            "about": one.about,
            "text": one.text,
            "change": one.change or None,
        }
        for one in found
    )
    names = tuple(f"{one.level.value}/{one.check}/{one.about}" for one in found)
    if form is Format.WIDE:
        rows = tuple((f.level.value, f.check, f.about, text(f.text), f.change) for f in found)
        table = Table(("", "CHECK", "ABOUT", "FOUND", "CHANGE"), rows, frozenset({0}))
        return Page("Finding", items, names, table).text(screen, form)
    return Page("Finding", items, names, "".join(map(_lines, found))).text(screen, form)


def exit_code(found: Sequence[Finding]) -> Exit:
    """By the worst."""
    levels = {one.level for one in found}
    return next((code for level, code in _EXITS.items() if level in levels), Exit.OK)


def _lines(one: Finding) -> str:
    line = f"{one.level.value:<4}  {one.check:<12}  {text(one.about)}: {text(one.text)}\n"
    return line + (f"{'':<20}change: {text(one.change)}\n" if one.change else "")


def _about(found: Sequence[Finding], fleet: Fleet, node: str) -> list[Finding]:
    replicas = {one.route.replica for one in fleet.replicas if one.route.node == node}
    known = [*(agent.node for agent in fleet.agents), *(edge.edge for edge in fleet.edges)]
    if node not in known and not replicas:
        hint = nouns.closest(node, known) or " See: ctl get agents"
        raise CtlError(Exit.NOT_FOUND, f'there is no node "{node}".{hint}')
    kept = [one for one in found if one.about in {node, *replicas}]
    bad = {one.check for one in found if one.level is not Level.OK}
    fine = [one for one in found if one.level is Level.OK]
    others = [Finding(Level.OK, check, node, "nothing here") for check in sorted(bad)]
    told_of = {one.check for one in kept}
    return [*kept, *fine, *(one for one in others if one.check not in told_of)]


async def _case(plane: Client) -> Case:
    how: dict[str, Any] = {"timeout": DEADLINE_S, "metadata": plane.metadata}
    fleet = await plane.fleet()
    request = doctor_pb2.GetFactsRequest()
    answer = await plane.ask(
        lambda channel: doctor_pb2_grpc.DoctorServiceStub(channel).GetFacts(request, **how)
    )
    at_ms = round(1000 * clock.wall_s())
    facts = codec.decode(answer.facts, FleetFacts)
    engines = {engine.replica: engine for agent in facts.agents for engine in agent.engines}
    return Case(
        fleet=fleet,
        facts=facts,
        version=version("trimtab"),
        at_ms=at_ms,
        certificates=await _certificates(plane, fleet),
        life_ms=await _life_ms(plane),
        engines=engines,
    )


async def _certificates(plane: Client, fleet: Fleet) -> tuple[Certificate, ...]:
    """The newest of each peer that is connected; none where there are none."""
    request = identity_pb2.ListIdentitiesRequest()

    async def ask(channel: grpc.aio.Channel) -> identity_pb2.ListIdentitiesResponse:
        stub = identity_pb2_grpc.NodeServiceStub(channel)
        try:
            return await stub.ListIdentities(request, timeout=DEADLINE_S)
        except grpc.aio.AioRpcError as error:
            if error.code() is grpc.StatusCode.UNIMPLEMENTED:
                return identity_pb2.ListIdentitiesResponse()
            raise

    present = {("agent", agent.node) for agent in fleet.agents if agent.connected}
    present |= {("edge", edge.edge.partition(WORKER_MARK)[0]) for edge in fleet.edges}
    newest: dict[str, int] = {}
    for one in (await plane.ask(ask)).identities:
        if (one.role, one.name) in present and not one.revoked:
            newest[one.name] = max(newest.get(one.name, 0), one.expires_in_ms)
    return tuple(Certificate(name, left_ms) for name, left_ms in sorted(newest.items()))


async def _life_ms(plane: Client) -> int:
    """How long the fleet's certificates live, as the leader's file says."""
    settings = {one.path: json.loads(one.value) for one in (await Configs(plane).get()).settings}
    days = settings.get("tls", {}).get("certificate_days", DAYS_DEFAULT)
    return int(days * DAY_MS)
