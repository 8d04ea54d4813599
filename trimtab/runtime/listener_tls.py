"""TLS for a listener of ours: certificate and key from files, taken anew when these change.

Rules: TLS 1.2 and newer, HTTP/1.1; a key that others may read is refused; a new pair that can't be
used is said once in the log, and what was served stays. Connections that are open go on with the
certificate they began with.
"""

from __future__ import annotations

import asyncio
import logging
import pathlib
import ssl
import stat

from trimtab.runtime.service import ConfigError

POLL_S = 2.0
log = logging.getLogger("tls")
Stamp = tuple[tuple[int, int, int], ...]


class ListenerTls:
    """A context for `create_server` that always serves the newest usable pair."""

    def __init__(self, cert: pathlib.Path, key: pathlib.Path) -> None:
        """Raises ConfigError when the pair can't be used."""
        self._cert, self._key = cert, key
        self._said = ""
        self._stamp = self._stamped()
        self._current = _context(cert, key)
        self._expires_s = _expires_s(cert)
        self.context = _context(cert, key)
        self.context.sni_callback = self._serve_newest

    @property
    def expires_s(self) -> float:
        """When the newest usable certificate does, in seconds since 1970."""
        return self._expires_s

    async def follow(self, poll_s: float = POLL_S) -> None:
        """Look for a new pair, for ever."""
        while True:
            await asyncio.sleep(poll_s)
            self.reload()

    def reload(self) -> None:
        """Take the pair if it is another one."""
        try:
            if self._stamped() != self._stamp:
                self.renew()
        except ConfigError as error:
            self._complain(str(error))

    def renew(self) -> None:
        """Take the pair as it is now; raises ConfigError, and then the old one is served on."""
        stamp = self._stamped()
        is_news, self._stamp = stamp != self._stamp, stamp
        self._current = _context(self._cert, self._key)
        self._expires_s = _expires_s(self._cert)
        if is_news:
            log.info("new certificate", extra={"fields": {"cert": str(self._cert)}})

    def _complain(self, text: str) -> None:
        if text != self._said:
            self._said = text
            log.error("the certificate stays as it was", extra={"fields": {"error": text}})

    def _serve_newest(
        self, connection: ssl.SSLObject | ssl.SSLSocket, _name: str | None, _context: ssl.SSLContext
    ) -> None:
        connection.context = self._current

    def _stamped(self) -> Stamp:
        try:
            found = [path.stat() for path in (self._cert, self._key)]
        except OSError as error:
            raise ConfigError(f"cannot read {error.filename}: {error.strerror}") from None
        return tuple((one.st_mtime_ns, one.st_ino, one.st_mode) for one in found)


def _context(cert: pathlib.Path, key: pathlib.Path) -> ssl.SSLContext:
    try:
        mode = key.stat().st_mode
        if mode & (stat.S_IRWXG | stat.S_IRWXO):
            text = f"{key} may be read by others ({stat.filemode(mode)}): chmod 600 it"
            raise ConfigError(text)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.set_alpn_protocols(["http/1.1"])
        context.load_cert_chain(cert, key, password=_no_password)
    except ssl.SSLError as error:
        text = f"{cert} and {key} are no certificate with its key: {error.reason or error}"
        raise ConfigError(text) from None
    except OSError as error:
        raise ConfigError(f"cannot read {error.filename or key}: {error.strerror}") from None
    return context


def _expires_s(cert: pathlib.Path) -> float:
    """Of the first certificate in a file that OpenSSL has just taken."""
    from cryptography import x509  # noqa: PLC0415  40 ms that who has no certificate need not pay

    return x509.load_pem_x509_certificate(cert.read_bytes()).not_valid_after_utc.timestamp()


def _no_password() -> str:
    """An encrypted key fails instead of asking the terminal."""
    return ""
