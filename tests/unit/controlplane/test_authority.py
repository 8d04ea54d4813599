"""The authority: made once, kept, replaceable; believes nothing of a request but its key."""

from __future__ import annotations

import ipaddress
import pathlib

import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID

from controlplane.authority import CA_KEY, Authority, BadRequestError
from tests.fakes import hostile_requests
from tests.fakes.closed_fleet import authority
from trimtab.runtime import certificates, clock, tls
from trimtab.runtime.certificates import CONTROL_PLANE, Role
from trimtab.runtime.service import ConfigError


def signed(by: Authority, role: Role = Role.AGENT, csr: bytes = b"") -> x509.Certificate:
    """A certificate for a request."""
    request = csr or certificates.signing_request(certificates.new_key())
    return x509.load_pem_x509_certificate(by.sign(request, role, "n1").certificate)


def names(certificate: x509.Certificate) -> x509.SubjectAlternativeName:
    """What a certificate is for."""
    return certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value


def usages(certificate: x509.Certificate) -> set[x509.ObjectIdentifier]:
    """How it may be used."""
    return set(certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value)


def test_it_is_made_once(tmp_path: pathlib.Path) -> None:
    first = authority(tmp_path)
    assert authority(tmp_path).pin == first.pin
    assert (tmp_path / CA_KEY).stat().st_mode & 0o777 == 0o600
    certificate = x509.load_pem_x509_certificate(first.certificate)
    years = (certificate.not_valid_after_utc.timestamp() - clock.wall_s()) / 86_400 / 365
    assert years == pytest.approx(10, abs=0.01)
    signed(first).verify_directly_issued_by(certificate)


def test_of_a_request_only_the_key_counts(tmp_path: pathlib.Path) -> None:
    certificate = signed(authority(tmp_path), csr=hostile_requests.asking_for_admin())
    assert [str(name.value) for name in names(certificate)] == ["trimtab://test%20fleet/agent/n1"]
    assert certificate.subject.rfc4514_string() == "CN=n1"
    constraints = certificate.extensions.get_extension_for_class(x509.BasicConstraints)
    assert (constraints.value.ca, constraints.critical) == (False, True)
    assert usages(certificate) == {ExtendedKeyUsageOID.CLIENT_AUTH}


@pytest.mark.parametrize(
    ("csr", "text"),
    [
        (b"junk", "no signing request in PEM"),
        (b"x" * 8193, "larger than 8192 bytes"),
        (hostile_requests.of_another_kind(), "the key must be EC P-256"),
        (hostile_requests.signed_by_another(), "no signing request|not signed with its own key"),
    ],
)
def test_what_is_no_request_is_not_signed(tmp_path: pathlib.Path, csr: bytes, text: str) -> None:
    with pytest.raises(BadRequestError, match=text):
        signed(authority(tmp_path), csr=csr)


def test_the_control_planes_own(tmp_path: pathlib.Path) -> None:
    by = authority(tmp_path)
    first = by.introduce("cp1")
    key = first.files().key
    own = x509.load_pem_x509_certificate(first.files().certificate)
    found = names(own)
    assert found.get_values_for_type(x509.DNSName) == [CONTROL_PLANE, "cp.example"]
    assert found.get_values_for_type(x509.IPAddress) == [ipaddress.ip_address("10.0.0.1")]
    assert ExtendedKeyUsageOID.SERVER_AUTH in usages(own)
    again = by.introduce("cp1")
    assert again.files().key == key
    assert again.peer.serial != f"{own.serial_number:x}"


def test_one_authority_follows_another(tmp_path: pathlib.Path) -> None:
    """Both in ca.crt, in any order; the one whose key is in ca.key signs."""
    old, new = authority(tmp_path / "old"), authority(tmp_path / "new")
    (tmp_path / "old" / tls.CA).write_bytes(new.bundle + old.bundle)
    assert authority(tmp_path / "old").pin == old.pin
    tls.write(tmp_path / "old" / CA_KEY, (tmp_path / "new" / CA_KEY).read_bytes())
    turned = authority(tmp_path / "old")
    assert turned.pin == new.pin
    assert turned.bundle == new.bundle + old.bundle
    signed(turned).verify_directly_issued_by(x509.load_pem_x509_certificate(new.certificate))


@pytest.mark.parametrize(
    ("file", "content", "text"),
    [
        (tls.CA, None, "cannot use .*ca.crt"),
        (CA_KEY, None, "cannot read .*ca.key"),
        (tls.CA, b"junk", "cannot use .*ca.crt"),
        (CA_KEY, b"junk", "cannot use .*ca.key"),
        (CA_KEY, certificates.new_key(), "none of its 1 certificates is for ca.key"),
    ],
)
def test_half_an_authority_is_none(
    tmp_path: pathlib.Path, file: str, content: bytes | None, text: str
) -> None:
    authority(tmp_path)
    if content is None:
        (tmp_path / file).unlink()
    else:
        tls.write(tmp_path / file, content)
    with pytest.raises(ConfigError, match=text):
        authority(tmp_path)


def test_its_key_is_for_its_owner(tmp_path: pathlib.Path) -> None:
    authority(tmp_path)
    (tmp_path / CA_KEY).chmod(0o640)
    with pytest.raises(ConfigError, match="can be read by others"):
        authority(tmp_path)
