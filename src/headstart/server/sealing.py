"""Secrets at rest: what the server must be able to use, sealed under a key that is not in its database."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from headstart import durable, errors

KEY_LENGTH = 32
_NONCE_LENGTH = 12


class Sealer:
    """``purpose`` binds what was sealed to its use: it opens for no other."""

    def __init__(self, key: bytes) -> None:
        self._cipher = AESGCM(key)

    def seal(self, purpose: str, secret: bytes) -> bytes:
        nonce = os.urandom(_NONCE_LENGTH)
        return nonce + self._cipher.encrypt(nonce, secret, purpose.encode())

    def open(self, purpose: str, sealed: bytes) -> bytes:
        """Raises ``Damaged``."""
        try:
            return self._cipher.decrypt(sealed[:_NONCE_LENGTH], sealed[_NONCE_LENGTH:], purpose.encode())
        except (InvalidTag, ValueError) as error:
            raise errors.Damaged(
                "A secret of the server's was sealed with another key than its key file holds. Put that file back."
            ) from error


def load_key(path: Path) -> bytes:
    """The key in ``path``; a new one, where there is none. Raises ``Damaged``, ``Usage``."""
    try:
        with contextlib.suppress(FileNotFoundError):
            found = path.read_bytes()
            if len(found) != KEY_LENGTH:
                raise errors.Damaged(f"{path} is no key of the server's: put the right one back.")
            return found
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        fresh = path.with_name(f".{path.name}.{os.getpid()}.new")
        durable.replace(fresh, os.urandom(KEY_LENGTH))
        # Of two servers that begin at once, one makes it.
        with contextlib.suppress(FileExistsError):
            os.link(fresh, path)
        fresh.unlink()
        durable.sync_folder(path.parent)
        return path.read_bytes()
    except OSError as error:
        raise errors.Usage(f"{path} cannot be read or made: {error.strerror}.") from error
