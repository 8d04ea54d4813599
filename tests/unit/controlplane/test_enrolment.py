"""Tokens, records and revocation in a real store."""

from __future__ import annotations

import asyncio
import pathlib
from collections.abc import AsyncIterator

import pytest

from controlplane import enrolment
from controlplane.enrolment import LIVING_LIMIT, REVOKED, TOKENS, RefusedError, Registrar
from controlplane.store.embedded import EmbeddedStore
from tests.fakes.closed_fleet import authority
from trimtab.runtime import certificates, clock
from trimtab.runtime.tasks import TaskRunner

CSR = certificates.signing_request(certificates.new_key())


@pytest.fixture
async def registrar(tmp_path: pathlib.Path) -> AsyncIterator[Registrar]:
    store = await EmbeddedStore.open(tmp_path / "s.db", clock.now_s)
    yield Registrar(authority(tmp_path / "ca"), store)
    await store.close()


def store_of(registrar: Registrar) -> EmbeddedStore:
    store = registrar._store
    assert isinstance(store, EmbeddedStore)
    return store


async def test_the_store_never_holds_a_secret(registrar: Registrar) -> None:
    token = await registrar.create_token("agent", "", 3600)
    entry = await store_of(registrar).get(TOKENS + token.id)
    assert entry is not None
    assert token.secret.encode() not in entry.value
    assert token.secret_sha256.encode() in entry.value
    assert entry.lease, "it goes by itself"


async def test_a_token_whose_time_is_over_is_none_though_its_lease_is_not(
    registrar: Registrar, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A lease begins anew with the store; the record knows the day."""
    token = await registrar.create_token("agent", "", 3600)
    late_s = clock.wall_s() + 3600
    monkeypatch.setattr(clock, "wall_s", lambda: late_s)
    assert await registrar.tokens() == {}
    with pytest.raises(RefusedError, match="expired"):
        await registrar.join(token.text(), CSR, "n1")


async def test_nothing_is_lost_by_a_bad_request(registrar: Registrar) -> None:
    token = await registrar.create_token("agent", "", 3600)
    with pytest.raises(ValueError, match="no signing request"):
        await registrar.join(token.text(), b"junk", "n1")
    with pytest.raises(RefusedError, match="a name has"):
        await registrar.join(token.text(), CSR, "")
    assert (await registrar.join(token.text(), CSR, "n1")).peer.name == "n1"


async def test_no_renewal_slips_past_a_revocation(
    registrar: Registrar, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(enrolment, "LIVING_LIMIT", 1_000_000)
    token = await registrar.create_token("agent", "n1", 3600)
    peer = (await registrar.join(token.text(), CSR)).peer
    busy = asyncio.Event()

    async def renew() -> None:
        now = peer
        while True:
            try:
                now = (await registrar.renew(now, CSR)).peer
            except RefusedError:
                return
            busy.set()

    async with TaskRunner() as runner:
        renewals = [runner.once(f"renewal {number}", renew()) for number in range(3)]
        await busy.wait()
        await registrar.revoke("n1")
        await asyncio.gather(*renewals)
    assert await registrar.revoked() == set(await registrar.identities())
    entry = await store_of(registrar).get(REVOKED + peer.serial)
    assert entry is not None
    assert entry.lease, "it goes with the certificate"


async def test_renewing_again_and_again_does_not_fill_the_store(registrar: Registrar) -> None:
    token = await registrar.create_token("agent", "n1", 3600)
    peer = (await registrar.join(token.text(), CSR)).peer
    for _ in range(LIVING_LIMIT - 1):
        await registrar.renew(peer, CSR)
    with pytest.raises(RefusedError, match="n1 has 8 certificates that live"):
        await registrar.renew(peer, CSR)


async def test_a_serial_is_one_and_a_name_is_all(registrar: Registrar) -> None:
    token = await registrar.create_token("agent", "n1", 3600)
    first = (await registrar.join(token.text(), CSR)).peer
    second = (await registrar.renew(first, CSR)).peer
    assert set(await registrar.revoke(first.serial)) == {first.serial}
    assert set(await registrar.revoke("n1")) == {second.serial}
    assert await registrar.revoke("n1") == {}
