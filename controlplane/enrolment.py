"""Who may come in, who is in, who is out: tokens, certificates and revocations in the store.

Rules: a token counts once: it goes in the same transaction that records what it was good for. The
store holds a secret's SHA-256 only. Records live as long as what they are about (their leases), so
the store does not grow with time. While a name is revoked none of its certificates can be
renewed, so none slips through.
"""

from __future__ import annotations

import hmac
import logging
from collections.abc import Mapping, Sequence
from typing import TypeVar

import msgspec

from controlplane import audit
from controlplane.authority import Authority, Issued
from controlplane.core.audit import Deed
from controlplane.core.records import ROOT, unpack
from controlplane.store.protocol import Absent, Compare, Delete, Op, Put, RevisionIs, Store
from trimtab.runtime import clock
from trimtab.runtime.certificates import NAME, Peer, Role
from trimtab.runtime.token import JoinToken
from trimtab.steered import Order

TOKENS = ROOT + "tokens/"
IDENTITIES = ROOT + "identities/"
REVOKED = ROOT + "revoked/"
BARRED = ROOT + "barred/"
BARRED_S = 60.0  # a name that is being revoked does not renew meanwhile
LIVING_LIMIT = 8  # certificates of one name; renewal in time has two
ROLES = (Role.AGENT, Role.EDGE, Role.ADMIN, Role.SCALER)  # a control plane has the authority itself
TTL_S = (60.0, 7 * 86_400.0)
KEPT_LONGER_S = 3_600.0  # than the certificate, so that no clock sees one outlive its record
UNKNOWN = Order("unknown")
T = TypeVar("T")
log = logging.getLogger("controlplane.enrolment")


class RefusedError(Exception):
    """What was asked for is not granted; says why, for who asked."""


class NotKnownError(RefusedError):
    """There is nothing of that name."""


class TokenRecord(msgspec.Struct, frozen=True):
    """A token that waits for its node."""

    secret_sha256: str
    role: Role
    name: str
    """Empty: any that nobody has."""
    expires_at_s: float
    """In seconds since 1970."""


class IdentityRecord(msgspec.Struct, frozen=True):
    """A certificate that was issued."""

    role: Role
    name: str
    expires_at_s: float
    """In seconds since 1970."""


class Registrar:
    """All changes to who is in; every call may raise StoreError."""

    def __init__(self, authority: Authority, store: Store) -> None:
        self.authority = authority
        self._store = store

    async def create_token(
        self, role: str, name: str, ttl_s: float, by: Order = UNKNOWN
    ) -> JoinToken:
        """A token, whose secret nobody will know but the caller; raises RefusedError."""
        if role not in ROLES:
            raise RefusedError(f"role must be one of {', '.join(ROLES)}")
        _check_name(name, may_be_empty=True)
        if not TTL_S[0] <= ttl_s <= TTL_S[1]:
            raise RefusedError("a token lives 60 s to 7 days")
        token = JoinToken.new(self.authority.pin)
        record = TokenRecord(token.secret_sha256, Role(role), name, clock.wall_s() + ttl_s)
        lease = await self._store.grant(ttl_s)
        about = f"{role}{f' {name}' if name else ''}, good for {ttl_s:.0f} s"
        deed = Deed(by, "token create", token.id, "", about)
        put = Put(TOKENS + token.id, msgspec.json.encode(record), lease)
        await audit.commit(self._store, deed, [put])
        return token

    async def tokens(self) -> dict[str, TokenRecord]:
        """Those that can still be used, by id."""
        return await self._living(TOKENS, TokenRecord)

    async def revoke_token(self, token_id: str, by: Order = UNKNOWN) -> None:
        """Take it back; raises NotKnownError."""
        record = (await self.tokens()).get(token_id)
        if record is None:
            raise NotKnownError(f"there is no token {token_id[:64]!r}")
        deed = Deed(by, "token revoke", token_id, f"{record.role} {record.name}".rstrip())
        await audit.commit(self._store, deed, [Delete(TOKENS + token_id)])

    async def join(self, text: str, csr: bytes, name: str = "", hostname: str = "") -> Issued:
        """A certificate for a token; raises RefusedError, BadRequestError."""
        token = JoinToken.parse(text)
        if token is None:
            raise RefusedError("this is no token: it looks like tt-join-...")
        entry = await self._store.get(TOKENS + token.id)
        record = unpack(entry.value, TokenRecord) if entry else None
        kept = record.secret_sha256 if record else ""
        right = hmac.compare_digest(kept, token.secret_sha256)
        if entry is None or record is None or not right or record.expires_at_s <= clock.wall_s():
            raise RefusedError("nobody waits with this token: used, taken back, expired or wrong")
        if record.name and name not in {"", record.name}:
            raise RefusedError(f"this token is for the name {record.name}")
        name = record.name or name or hostname
        await self._check_free(record, name)
        issued = self.authority.sign(csr, record.role, name)
        unused = [RevisionIs(entry.key, entry.mod_revision)]
        if not await self._record(issued.peer, unused, Delete(entry.key)):
            raise RefusedError("this token was used by another at the same moment")
        return issued

    async def renew(self, peer: Peer, csr: bytes) -> Issued:
        """The same again, later; raises RefusedError, BadRequestError."""
        issued = self.authority.sign(csr, peer.role, peer.name)
        out, known = await self.revoked(), await self.identities()
        same = [s for s, one in known.items() if (one.role, one.name) == (peer.role, peer.name)]
        if len(set(same) - out) >= LIVING_LIMIT:
            raise RefusedError(f"{peer.name} has {LIVING_LIMIT} certificates that live: revoke it")
        allowed = (Absent(REVOKED + peer.serial), Absent(BARRED + peer.name))
        if not await self._record(issued.peer, allowed):
            raise RefusedError("this certificate was revoked")
        return issued

    async def identities(self) -> dict[str, IdentityRecord]:
        """The certificates that have not expired, by serial number."""
        return await self._living(IDENTITIES, IdentityRecord)

    async def revoked(self) -> set[str]:
        """The serial numbers that are shut out."""
        entries = (await self._store.range(REVOKED)).entries
        return {entry.key.removeprefix(REVOKED) for entry in entries}

    async def revoke(self, name_or_serial: str, by: Order = UNKNOWN) -> dict[str, IdentityRecord]:
        """Shut out a serial number, or all of a name; what is out now. Raises NotKnownError."""
        if NAME.fullmatch(name_or_serial):  # else it is nobody's, and no key
            lease = await self._store.grant(BARRED_S)
            await self._store.txn([], [Put(BARRED + name_or_serial, b"", lease)])
        known = _chosen(await self.identities(), name_or_serial)
        if not known:
            raise NotKnownError(f"there is no certificate of {name_or_serial[:128]!r}")
        out = await self.revoked()
        fresh = {serial: record for serial, record in known.items() if serial not in out}
        for serial, record in fresh.items():
            deed = Deed(by, "certificate revoke", f"{record.role} {record.name}", serial, "revoked")
            await audit.commit(self._store, deed, [await self._put(REVOKED + serial, record)])
        return fresh

    async def _check_free(self, record: TokenRecord, name: str) -> None:
        """A token without a name may not become somebody who is there already."""
        _check_name(name, may_be_empty=False)
        if record.name:
            return
        out = await self.revoked()
        for serial, other in (await self.identities()).items():
            if (other.role, other.name) == (record.role, name) and serial not in out:
                raise RefusedError(
                    f"the fleet has {record.role} {name} already: take another --name, or a token "
                    "that is for this name"
                )

    async def _record(self, peer: Peer, conditions: Sequence[Compare], *more: Op) -> bool:
        """Keep a certificate on conditions; the lease of what was not kept goes at once."""
        record = IdentityRecord(peer.role, peer.name, peer.not_after_s)
        put = await self._put(IDENTITIES + peer.serial, record)
        done = (await self._store.txn(conditions, [put, *more])).succeeded
        if not done:
            await self._store.revoke(put.lease)
        return done

    async def _put(self, key: str, record: IdentityRecord) -> Put:
        """To set a key for as long as its certificate lives."""
        left_s = max(0.0, record.expires_at_s - clock.wall_s())
        lease = await self._store.grant(left_s + KEPT_LONGER_S)
        return Put(key, msgspec.json.encode(record), lease)

    async def _living(self, prefix: str, kind: type[T]) -> dict[str, T]:
        found: dict[str, T] = {}
        for entry in (await self._store.range(prefix)).entries:
            record = unpack(entry.value, kind)
            expires_at_s = getattr(record, "expires_at_s", 0.0)
            if record is not None and expires_at_s > clock.wall_s():
                found[entry.key.removeprefix(prefix)] = record
        return found


def _chosen(known: Mapping[str, IdentityRecord], name: str) -> dict[str, IdentityRecord]:
    return {serial: one for serial, one in known.items() if name in {serial, one.name}}


def _check_name(name: str, *, may_be_empty: bool) -> None:
    if (name or not may_be_empty) and not NAME.fullmatch(name):
        raise RefusedError("a name has 1 to 128 letters, digits, dots, dashes, underscores")
