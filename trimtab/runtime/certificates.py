"""What a certificate of the fleet says: the role and the name of who holds it.

Rules: role and name are in one URI of the subject alternative name, trimtab://FLEET/ROLE/NAME, and
nowhere else; every control plane's certificate has CONTROL_PLANE as a DNS name as well, and clients
accept only a server that has it, at whatever address. Keys are EC P-256.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from urllib.parse import quote

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

CONTROL_PLANE = "controlplane.trimtab"
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_SCHEME = "trimtab://"


class Role(StrEnum):
    """What its holder may do."""

    AGENT = "agent"
    EDGE = "edge"
    ADMIN = "admin"
    SCALER = "scaler"
    CONTROLPLANE = "controlplane"


WORKER_MARK = ":"  # between an edge's name, which has none, and the number of its worker


@dataclass(frozen=True, slots=True)
class Peer:
    """Who a certificate is for, and how long; times in seconds since 1970."""

    role: Role
    name: str
    serial: str
    not_before_s: float
    not_after_s: float

    @property
    def renew_at_s(self) -> float:
        """When two thirds of its life are over."""
        return self.not_before_s + (self.not_after_s - self.not_before_s) * 2 / 3

    def __str__(self) -> str:
        return f"{self.role} {self.name}"


def uri(fleet: str, role: Role, name: str) -> str:
    """The name that goes into a certificate."""
    return f"{_SCHEME}{quote(fleet, safe='')}/{role}/{name}"


def read_peer(pem: bytes) -> Peer:
    """Whom a certificate (PEM, the first one) is for; raises ValueError."""
    certificate = x509.load_pem_x509_certificate(pem)
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        raise ValueError("the certificate has no subject alternative name") from None
    uris = names.get_values_for_type(x509.UniformResourceIdentifier)
    ours = [found for found in uris if found.startswith(_SCHEME)]
    parts = ours[0].removeprefix(_SCHEME).split("/") if len(ours) == 1 else []
    if len(parts) != 3 or parts[1] not in set(Role) or not NAME.fullmatch(parts[2]):
        raise ValueError(f"the certificate has no one name like {_SCHEME}fleet/agent/n1")
    return Peer(
        role=Role(parts[1]),
        name=parts[2],
        serial=f"{certificate.serial_number:x}",
        not_before_s=certificate.not_valid_before_utc.timestamp(),
        not_after_s=certificate.not_valid_after_utc.timestamp(),
    )


def matches(certificate: bytes, key: bytes) -> bool:
    """Whether a certificate is for this private key (both PEM); raises ValueError."""
    held = serialization.load_pem_private_key(key, password=None).public_key()
    return x509.load_pem_x509_certificate(certificate).public_key() == held


def new_key() -> bytes:
    """A private key, PEM."""
    return key_pem(ec.generate_private_key(ec.SECP256R1()))


def key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    """A private key as it lies in its file."""
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def load_key(pem: bytes) -> ec.EllipticCurvePrivateKey:
    """A private key out of its file; raises ValueError."""
    key = serialization.load_pem_private_key(pem, password=None)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise ValueError("not an EC key")  # noqa: TRY004 - a file's content, no mistake in the code
    return key


def signing_request(key: bytes) -> bytes:
    """A request (PEM) for a certificate of this key; the name in it is for nobody to believe."""
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    request = builder.sign(load_key(key), hashes.SHA256())
    return request.public_bytes(serialization.Encoding.PEM)


def pin(certificate: x509.Certificate) -> str:
    """SHA-256 of a certificate, by which to know it again."""
    return certificate.fingerprint(hashes.SHA256()).hex()
