"""The one-time token with which a node joins: tt-join-ID-SECRET-PIN.

Rules: the id may be shown to anybody, the secret to nobody (it is not in the repr); the pin is the
SHA-256 of the authority's certificate, by which the node knows the right fleet before it says the
secret. A command line can hold it without quotes.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from dataclasses import dataclass, field
from typing import Self

ID_BYTES = 6
SECRET_BYTES = 32
_TOKEN = re.compile(r"tt-join-([0-9a-f]{12})-([0-9a-f]{64})-([0-9a-f]{64})")


@dataclass(frozen=True, slots=True)
class JoinToken:
    """A token's three parts, in hexadecimal."""

    id: str
    secret: str = field(repr=False)
    pin: str

    @classmethod
    def new(cls, pin: str) -> Self:
        """A token that nobody can guess."""
        return cls(secrets.token_hex(ID_BYTES), secrets.token_hex(SECRET_BYTES), pin)

    @classmethod
    def parse(cls, text: str) -> Self | None:
        """The token in a text; None when it is none."""
        match = _TOKEN.fullmatch(text.strip())
        return cls(*match.groups()) if match else None

    @property
    def secret_sha256(self) -> str:
        """What the store keeps of the secret."""
        return hashlib.sha256(self.secret.encode()).hexdigest()

    def text(self) -> str:
        """What a person pastes."""
        return f"tt-join-{self.id}-{self.secret}-{self.pin}"
