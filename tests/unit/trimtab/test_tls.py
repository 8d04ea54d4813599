"""A directory with a certificate: who it makes us, what is refused, how it is followed."""

from __future__ import annotations

import logging
import pathlib

import pytest
from cryptography import x509
from hypothesis import given
from hypothesis import strategies as st

from tests.fakes.closed_fleet import authority, identity, save
from trimtab.runtime import certificates, tls
from trimtab.runtime.certificates import NAME, Role
from trimtab.runtime.service import ConfigError


def test_who_we_are_and_how_long(tmp_path: pathlib.Path) -> None:
    member = identity(tmp_path / "m", authority(tmp_path / "ca"), Role.EDGE, "e-1.lan_x")
    peer = member.peer
    assert (peer.role, peer.name, str(peer)) == (Role.EDGE, "e-1.lan_x", "edge e-1.lan_x")
    life_s = peer.not_after_s - peer.not_before_s
    assert life_s == pytest.approx(7 * 86_400 + 300, abs=2)
    assert peer.renew_at_s == pytest.approx(peer.not_before_s + life_s * 2 / 3)
    for name in (tls.CA, tls.CERTIFICATE, tls.KEY):
        assert (member.directory / name).stat().st_mode & 0o777 == 0o600
    assert "PRIVATE" not in repr(member.files())


@given(
    fleet=st.text(max_size=40), role=st.sampled_from(Role), name=st.from_regex(NAME, fullmatch=True)
)
def test_any_fleet_and_name_make_one_uri(fleet: str, role: Role, name: str) -> None:
    try:
        fleet.encode()
    except UnicodeEncodeError:
        return
    uri = certificates.uri(fleet, role, name)
    assert uri.isascii()
    assert uri.removeprefix("trimtab://").count("/") == 2


@pytest.mark.parametrize(
    ("role", "name", "text"),
    [
        (Role.EDGE, "", "makes its holder agent n1, and this is to be an edge"),
        (Role.AGENT, "n2", "makes its holder agent n1, and this is to be n2"),
    ],
)
def test_a_certificate_for_something_else(
    tmp_path: pathlib.Path, role: Role, name: str, text: str
) -> None:
    identity(tmp_path / "m", authority(tmp_path / "ca"), Role.AGENT, "n1")
    with pytest.raises(ConfigError, match=text):
        tls.find(tmp_path / "m", role, name)
    found = tls.find(tmp_path / "m", Role.AGENT, "n1")
    assert found is not None
    assert tls.find("", Role.AGENT) is None
    assert tls.find(None, Role.AGENT) is None


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644, 0o660])
def test_a_key_that_others_can_read(tmp_path: pathlib.Path, mode: int) -> None:
    member = identity(tmp_path / "m", authority(tmp_path / "ca"), Role.AGENT, "n1")
    key = member.directory / tls.KEY
    key.chmod(mode)
    with pytest.raises(ConfigError) as caught:
        tls.Identity(member.directory)
    assert str(caught.value) == (f"{key} can be read by others (mode {mode:04o}): chmod 600 {key}")


@pytest.mark.parametrize(
    ("file", "content", "text"),
    [
        (tls.KEY, None, "cannot read .*tls.key: No such file"),
        (tls.CERTIFICATE, None, "cannot read .*tls.crt: No such file"),
        (tls.CA, None, "cannot read .*ca.crt: No such file"),
        (tls.KEY, b"junk", "cannot use the certificate and its key"),
        (tls.CERTIFICATE, b"junk", "cannot use the certificate and its key"),
        (tls.KEY, certificates.new_key(), "the certificate is for another key"),
        (tls.CERTIFICATE, b"x" * (tls.FILE_LIMIT_BYTES + 1), "larger than"),
    ],
)
def test_files_that_cannot_be_used(
    tmp_path: pathlib.Path, file: str, content: bytes | None, text: str
) -> None:
    member = identity(tmp_path / "m", authority(tmp_path / "ca"), Role.AGENT, "n1")
    path = member.directory / file
    if content is None:
        path.unlink()
    else:
        tls.write(path, content)
    with pytest.raises(ConfigError, match=text):
        tls.Identity(member.directory)


def test_new_files_are_used_and_bad_ones_are_not(
    tmp_path: pathlib.Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    by = authority(tmp_path / "ca")
    member = identity(tmp_path / "m", by, Role.AGENT, "n1")
    first, key = member.peer.serial, member.files().key
    request = certificates.signing_request(key)
    save(member.directory, by, by.sign(request, Role.AGENT, "n1"), key)
    second = member.peer.serial
    assert second != first

    tls.write(member.directory / tls.CERTIFICATE, b"half a cert")
    assert [member.peer.serial for _ in range(3)] == [second] * 3
    assert len(caplog.records) == 1
    assert member.channel_credentials() is not None


def test_a_certificate_of_others_is_nobody(tmp_path: pathlib.Path) -> None:
    by = authority(tmp_path / "ca")
    with pytest.raises(ValueError, match="no subject alternative name"):
        certificates.read_peer(by.certificate)
    for name in ("a/../admin/root", "x" * 129):
        request = certificates.signing_request(certificates.new_key())
        with pytest.raises(ValueError, match="has no one name like"):
            by.sign(request, Role.AGENT, name)


def test_the_pin_is_of_the_whole_certificate(tmp_path: pathlib.Path) -> None:
    one, other = authority(tmp_path / "one"), authority(tmp_path / "other")
    assert one.pin == certificates.pin(x509.load_pem_x509_certificate(one.certificate))
    assert len({one.pin, other.pin}) == 2
