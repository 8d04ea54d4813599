"""The fleet's certificate authority: its key in `tls.dir`/ca.key, its certificates in ca.crt.

Rules: it is made where neither file is; every other control plane of the fleet gets copies of the
two. Of a signing request only the public key counts: role and name come from whoever calls us. It
signs with the certificate in ca.crt that ca.key is for; the others there are trusted as well, so
that an authority can be replaced. Our own certificate is new at every start.
"""

from __future__ import annotations

import datetime
import ipaddress
import logging
import pathlib
import secrets
from collections.abc import Sequence
from dataclasses import dataclass

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from trimtab.runtime import certificates, clock, tls
from trimtab.runtime.certificates import Peer, Role
from trimtab.runtime.service import ConfigError

CA_KEY = "ca.key"
CA_LIFE = datetime.timedelta(days=3650)
SKEW = datetime.timedelta(minutes=5)  # how far behind ours a peer's clock may be
CSR_LIMIT_BYTES = 8 * 1024
COMMON_NAME_LIMIT = 64  # X.520's upper bound
log = logging.getLogger("controlplane.authority")


class BadRequestError(ValueError):
    """A signing request that we do not sign; says why."""


@dataclass(frozen=True, slots=True)
class Issued:
    """A new certificate (PEM), and what it says."""

    certificate: bytes
    peer: Peer


class Authority:
    """Signs; `open` before use."""

    def __init__(
        self, directory: pathlib.Path, fleet: str, names: Sequence[str], life_s: float
    ) -> None:
        self.directory = directory
        self._fleet = fleet
        self._names = names
        self._life = datetime.timedelta(seconds=life_s)
        if not any((directory / name).exists() for name in (tls.CA, CA_KEY)):
            self._make()
        self._key = _load_key(directory)
        self.bundle, self._certificate = _load_certificates(directory, self._key)

    @property
    def pin(self) -> str:
        """By which a node knows us before it trusts us."""
        return certificates.pin(self._certificate)

    @property
    def certificate(self) -> bytes:
        """The certificate that the pin is of, PEM."""
        return self._certificate.public_bytes(serialization.Encoding.PEM)

    def sign(self, csr: bytes, role: Role, name: str) -> Issued:
        """A certificate for the request's key; raises BadRequestError."""
        return self._issue(_public_key(csr), role, name, [])

    def introduce(self, name: str) -> tls.Identity:
        """Give ourselves a new certificate; raises ConfigError."""
        path = self.directory / tls.KEY
        if not path.exists():
            tls.write(path, certificates.new_key())
        try:
            key = certificates.load_key(tls.private(path)).public_key()
        except (ValueError, TypeError) as error:
            raise ConfigError(f"cannot use {path}: {error}") from None
        own = self._issue(key, Role.CONTROLPLANE, name, _general_names(self._names))
        tls.write(self.directory / tls.CERTIFICATE, own.certificate)
        return tls.Identity(self.directory)

    def _issue(
        self,
        key: ec.EllipticCurvePublicKey,
        role: Role,
        name: str,
        more: Sequence[x509.GeneralName],
    ) -> Issued:
        uri = x509.UniformResourceIdentifier(certificates.uri(self._fleet, role, name))
        usages = [ExtendedKeyUsageOID.CLIENT_AUTH]
        if role is Role.CONTROLPLANE:
            usages.append(ExtendedKeyUsageOID.SERVER_AUTH)
        builder = self._builder(key, name, self._certificate.subject, self._life)
        builder = (
            builder.add_extension(x509.SubjectAlternativeName([uri, *more]), critical=False)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(x509.ExtendedKeyUsage(usages), critical=False)
            .add_extension(_usage(ca=False), critical=True)
            .add_extension(_authority_id(self._key.public_key()), critical=False)
        )
        signed = builder.sign(self._key, hashes.SHA256())
        pem = signed.public_bytes(serialization.Encoding.PEM)
        return Issued(pem, certificates.read_peer(pem))

    def _make(self) -> None:
        key = ec.generate_private_key(ec.SECP256R1())
        title = f"Trimtab {self._fleet}"[: COMMON_NAME_LIMIT - 9] + f" {secrets.token_hex(4)}"
        name = _name(title)
        builder = (
            self._builder(key.public_key(), title, name, CA_LIFE)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_usage(ca=True), critical=True)
            .add_extension(_authority_id(key.public_key()), critical=False)
        )
        made = builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
        tls.write(self.directory / CA_KEY, certificates.key_pem(key))
        tls.write(self.directory / tls.CA, made)
        log.info("made a new authority", extra={"fields": {"directory": str(self.directory)}})

    def _builder(
        self,
        key: ec.EllipticCurvePublicKey,
        name: str,
        issuer: x509.Name,
        life: datetime.timedelta,
    ) -> x509.CertificateBuilder:
        now = datetime.datetime.fromtimestamp(clock.wall_s(), datetime.UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(_name(name))
            .issuer_name(issuer)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - SKEW)
            .not_valid_after(now + life)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
        )


def _public_key(csr: bytes) -> ec.EllipticCurvePublicKey:
    if len(csr) > CSR_LIMIT_BYTES:
        raise BadRequestError(f"the signing request is larger than {CSR_LIMIT_BYTES} bytes")
    try:
        request = x509.load_pem_x509_csr(csr)
        key, valid = request.public_key(), request.is_signature_valid
    except Exception as error:
        raise BadRequestError("this is no signing request in PEM") from error
    if not valid:
        raise BadRequestError("the signing request is not signed with its own key")
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise BadRequestError("the key must be EC P-256")
    return key


def _load_key(directory: pathlib.Path) -> ec.EllipticCurvePrivateKey:
    path = directory / CA_KEY
    try:
        return certificates.load_key(tls.private(path))
    except (ValueError, TypeError) as error:
        raise ConfigError(f"cannot use {path}: {error}") from None


def _load_certificates(
    directory: pathlib.Path, key: ec.EllipticCurvePrivateKey
) -> tuple[bytes, x509.Certificate]:
    """Everything in ca.crt, and which of it is ours."""
    path = directory / tls.CA
    try:
        bundle = path.read_bytes()
        known = x509.load_pem_x509_certificates(bundle)
    except (OSError, ValueError) as error:
        raise ConfigError(f"cannot use {path}: {error}") from None
    for certificate in known:
        if certificate.public_key() == key.public_key():
            return bundle, certificate
    raise ConfigError(f"{path}: none of its {len(known)} certificates is for {CA_KEY} beside it")


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text[:COMMON_NAME_LIMIT])])


def _usage(*, ca: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not ca,
        key_cert_sign=ca,
        crl_sign=ca,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _authority_id(key: ec.EllipticCurvePublicKey) -> x509.AuthorityKeyIdentifier:
    return x509.AuthorityKeyIdentifier.from_issuer_public_key(key)


def _general_names(names: Sequence[str]) -> list[x509.GeneralName]:
    found: list[x509.GeneralName] = [x509.DNSName(certificates.CONTROL_PLANE)]
    for name in names:
        try:
            found.append(x509.IPAddress(ipaddress.ip_address(name)))
        except ValueError:
            found.append(x509.DNSName(name))
    return found
