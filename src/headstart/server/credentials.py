"""Tokens of machines and cookies of people: what they look like, and what is kept of them.

::

    hsj_<id>_<secret>[_<fingerprint>]   joins a host, once
    hsh_<id>_<secret>                   is a host
    hsa_<id>_<secret>                   is a program of the owner's

The id finds the row; of the secret (256 random bits, so nothing slow is needed) only the SHA-256 is kept. The
fingerprint is that of the server's certificate: who joins knows whom to trust.
"""

from __future__ import annotations

import enum
import hashlib
import hmac
import re
import secrets
from dataclasses import dataclass

_TOKEN = re.compile(r"hs([jha])_([0-9a-f]{32})_([A-Za-z0-9-]{20,64})(?:_([0-9a-f]{64}))?")
_BYTES = 32


class Kind(enum.StrEnum):
    JOIN = "join"
    HOST = "host"
    API = "api"


_LETTERS = {Kind.JOIN: "j", Kind.HOST: "h", Kind.API: "a"}
_KINDS = {letter: kind for kind, letter in _LETTERS.items()}


@dataclass(frozen=True, slots=True)
class Token:
    kind: Kind
    id: str
    secret: str
    fingerprint: str = ""

    @property
    def text(self) -> str:
        words = [f"hs{_LETTERS[self.kind]}", self.id, self.secret, *([self.fingerprint] if self.fingerprint else [])]
        return "_".join(words)


def new_secret() -> str:
    return secrets.token_hex(_BYTES)


def parse(text: str) -> Token | None:
    found = _TOKEN.fullmatch(text.strip())
    return None if found is None else Token(_KINDS[found[1]], found[2], found[3], found[4] or "")


def hashed(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


def same(secret: str, kept: str) -> bool:
    """In a time that tells nothing of where they differ."""
    return hmac.compare_digest(hashed(secret), kept)
