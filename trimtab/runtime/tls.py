"""Who this process is to its peers: a directory with ca.crt, tls.crt and tls.key.

Rules: the key is for its owner only; files are replaced whole, one at a time, and a renewal keeps
the key, so that at no moment two of them do not fit. Files that changed are read at the next
connection; if they can't be used, the last good ones go on and that is logged once. Every name in
ca.crt is trusted, so that an authority can be replaced.
"""

from __future__ import annotations

import logging
import os
import pathlib
from dataclasses import dataclass, field

import grpc

from trimtab.runtime import certificates
from trimtab.runtime.certificates import Peer, Role
from trimtab.runtime.service import ConfigError

CA, CERTIFICATE, KEY = "ca.crt", "tls.crt", "tls.key"
FILE_LIMIT_BYTES = 256 * 1024
OTHERS = 0o077
# Any address will do, as long as a control plane answers there.
CLIENT_OPTIONS = (("grpc.ssl_target_name_override", certificates.CONTROL_PLANE),)
log = logging.getLogger("tls")


@dataclass(frozen=True, slots=True)
class Files:
    """The three, as read at one time."""

    ca: bytes
    certificate: bytes
    key: bytes = field(repr=False)
    peer: Peer


class Identity:
    """A certificate, its key and whom it trusts; follows its files."""

    def __init__(self, directory: pathlib.Path) -> None:
        self.directory = directory
        self._stamp = _stamp(directory)
        self._files = read(directory)
        self._problem = ""

    @property
    def peer(self) -> Peer:
        """Who we are."""
        return self.files().peer

    def files(self) -> Files:
        """The newest files that can be used."""
        stamp = _stamp(self.directory)
        if stamp != self._stamp:
            try:
                self._files = read(self.directory)
                self._problem = ""
            except ConfigError as error:
                self._say(str(error))
            self._stamp = stamp
        return self._files

    def channel_credentials(self) -> grpc.ChannelCredentials:
        """For one channel, from the files as they are now."""
        files = self.files()
        return grpc.ssl_channel_credentials(files.ca, files.key, files.certificate)

    def server_credentials(self) -> grpc.ServerCredentials:
        """For a server that asks for certificates; follows the files."""
        given = self.files()

        def changed() -> grpc.ServerCertificateConfiguration | None:
            nonlocal given
            if given is (now := self.files()):
                return None
            given = now
            return _server_configuration(now)

        return grpc.dynamic_ssl_server_credentials(
            _server_configuration(given),
            changed,  # type: ignore[arg-type]  # None is "no change", which the stubs do not know
            require_client_authentication=True,
        )

    def _say(self, problem: str) -> None:
        if problem != self._problem:
            self._problem = problem
            log.warning("keeping the old certificate", extra={"fields": {"problem": problem}})


def find(directory: pathlib.Path | str | None, role: Role, name: str = "") -> Identity | None:
    """The identity in a directory; None without one.

    Raises ConfigError when it can't be used, or is for another role or, where `name` is given, for
    another name.
    """
    if not directory:
        return None
    identity = Identity(pathlib.Path(directory))
    peer = identity.peer
    if peer.role is not role:
        raise ConfigError(f"{directory} makes its holder {peer}, and this is to be an {role}")
    if name and peer.name != name:
        raise ConfigError(f"{directory} makes its holder {peer}, and this is to be {name}")
    return identity


def read(directory: pathlib.Path) -> Files:
    """Read and check the three; raises ConfigError."""
    ca, certificate = (_content(directory / name) for name in (CA, CERTIFICATE))
    key = private(directory / KEY)
    try:
        return Files(ca, certificate, key, check(certificate, key))
    except ConfigError as error:
        raise ConfigError(f"{directory}: {error}") from None


def check(certificate: bytes, key: bytes) -> Peer:
    """Whom a certificate is for that must fit a key (both PEM); raises ConfigError."""
    try:
        if certificates.matches(certificate, key):
            return certificates.read_peer(certificate)
    except (ValueError, TypeError) as error:
        raise ConfigError(f"cannot use the certificate and its key: {error}") from None
    raise ConfigError("the certificate is for another key")


def private(path: pathlib.Path) -> bytes:
    """A key file's content; raises ConfigError when others can read it too."""
    content = _content(path)
    if (mode := path.stat().st_mode) & OTHERS:
        raise ConfigError(
            f"{path} can be read by others (mode {mode & 0o777:04o}): chmod 600 {path}"
        )
    return content


def write(path: pathlib.Path, content: bytes) -> None:
    """Replace a file in one step, for its owner only; raises ConfigError."""
    fresh = path.with_name(path.name + ".new")
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        fresh.unlink(missing_ok=True)
        descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(descriptor)
        fresh.replace(path)
    except OSError as error:
        raise ConfigError(f"cannot write {path}: {error.strerror}") from None


def _content(path: pathlib.Path) -> bytes:
    try:
        with path.open("rb") as stream:
            content = stream.read(FILE_LIMIT_BYTES + 1)
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from None
    if len(content) > FILE_LIMIT_BYTES:
        raise ConfigError(f"{path}: larger than {FILE_LIMIT_BYTES} bytes")
    return content


def _stamp(directory: pathlib.Path) -> tuple[tuple[int, int, int], ...]:
    """Differs when a file was replaced."""
    stamps = []
    for name in (CA, CERTIFICATE, KEY):
        try:
            found = (directory / name).stat()
        except OSError:
            continue
        stamps.append((found.st_mtime_ns, found.st_ino, found.st_mode))
    return tuple(stamps)


def _server_configuration(files: Files) -> grpc.ServerCertificateConfiguration:
    return grpc.ssl_server_certificate_configuration([(files.key, files.certificate)], files.ca)
