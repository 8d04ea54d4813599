"""How a machine gets its first certificate: it makes a key, and pays with a one-time token.

Rules: the key never leaves the machine; nothing is said to a server before its authority is the one
that the token's pin names; what is saved fits the key.
"""

from __future__ import annotations

import pathlib
import ssl
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import msgspec
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from trimtab.runtime import certificates, tls
from trimtab.runtime.certificates import Peer
from trimtab.runtime.service import ConfigError
from trimtab.runtime.token import JoinToken

TIMEOUT = aiohttp.ClientTimeout(total=30.0)
ANSWER_LIMIT_BYTES = 256 * 1024


@dataclass(frozen=True, slots=True)
class Membership:
    """What a token was good for; `save` it."""

    peer: Peer
    ca: bytes
    certificate: bytes
    key: bytes = field(repr=False)

    def save(self, directory: pathlib.Path) -> None:
        """Write the three files; raises ConfigError."""
        tls.write(directory / tls.KEY, self.key)
        tls.write(directory / tls.CA, self.ca)
        tls.write(directory / tls.CERTIFICATE, self.certificate)


async def join(address: str, text: str, name: str, hostname: str = "") -> Membership:
    """Become a member, by the token's name, or `name`, or `hostname`; raises ConfigError."""
    token = JoinToken.parse(text)
    if token is None:
        raise ConfigError("this is no token: it looks like tt-join-... and is one word")
    key = certificates.new_key()
    request = {
        "token": token.text(),
        "csr": certificates.signing_request(key).decode(),
        "name": name,
        "hostname": hostname,
    }
    try:
        async with aiohttp.ClientSession(timeout=TIMEOUT) as session:
            authority = await _authority(session, address, token.pin)
            answer = await _ask(session, address, authority, request)
    except (TimeoutError, aiohttp.ClientError, OSError) as error:
        raise ConfigError(f"cannot join at {address}: {error!s:.300}") from None
    certificate, ca = (str(answer.get(part, "")).encode() for part in ("cert", "ca"))
    return Membership(tls.check(certificate, key), ca, certificate, key)


async def _authority(session: aiohttp.ClientSession, address: str, pin: str) -> str:
    """The fleet's authority, PEM: what anybody may show us, if it is what the token names."""
    blind = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    blind.check_hostname = False
    blind.verify_mode = ssl.CERT_NONE
    async with session.get(f"https://{address}/v1/ca", ssl=blind) as answer:
        pem = await answer.content.read(ANSWER_LIMIT_BYTES)
    try:
        certificate = x509.load_pem_x509_certificate(pem)
    except ValueError:
        raise ConfigError(f"{address} is no control plane's tls.enroll address") from None
    if certificates.pin(certificate) != pin:
        raise ConfigError(
            f"{address} belongs to another fleet than the token, or somebody is in between: "
            "nothing was sent"
        )
    return certificate.public_bytes(serialization.Encoding.PEM).decode()


async def _ask(
    session: aiohttp.ClientSession, address: str, authority: str, request: dict[str, str]
) -> dict[str, Any]:
    trusting = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    trusting.load_verify_locations(cadata=authority)
    async with session.post(
        f"https://{address}/v1/join",
        json=request,
        ssl=trusting,
        server_hostname=certificates.CONTROL_PLANE,
    ) as answer:
        content = await answer.content.read(ANSWER_LIMIT_BYTES)
    try:
        found = msgspec.json.decode(content, type=dict[str, Any])
    except msgspec.DecodeError:
        found = {}
    if answer.status != 200:
        why = found.get("error", f"status {answer.status}")
        raise ConfigError(f"{address} does not let us join: {why}")
    return found
