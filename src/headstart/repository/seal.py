"""Sealing: AES-256-GCM under keys derived for one purpose and used for one object.

A key is derived by keyed BLAKE3 from a secret, a purpose and a random part (a pack id or a salt), so that no nonce
ever repeats under one key: a pack counts its chunks, every other object seals once under its own salt.
"""

from __future__ import annotations

import os

from blake3 import blake3
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from headstart import errors
from headstart.repository import codec, layout
from headstart.repository.keys import Secrets
from headstart.store.contract import Data

_ONLY_NONCE = bytes(layout.NONCE_LENGTH)


def derive(secret: bytes, purpose: bytes, *parts: bytes) -> bytes:
    """A key of 32 bytes. ``purpose`` has no NUL; all ``parts`` but the last have a fixed length."""
    return blake3(purpose + b"\0" + b"".join(parts), key=secret).digest()


class FrameSealer:
    """Seals and opens the frames of one pack. A frame's number in the pack is its nonce.

    Any thread may use it; each number may be sealed once only. What chunks a frame holds is not part of the seal: their
    ids tell that, being keyed hashes. ``bound``: in format 0 it was. Raises ``keys.NoContent`` for who may not.
    """

    def __init__(self, secrets: Secrets, chunk_class: layout.ChunkClass, pack_id: bytes) -> None:
        self._cipher = AESGCM(derive(secrets.of_class(chunk_class), b"pack", bytes([chunk_class]), pack_id))
        self._context = secrets.repository_id + bytes([chunk_class])

    def seal_into(self, number: int, data: Data, target: memoryview) -> None:
        """``target`` has exactly the length of ``data`` and a tag."""
        self._cipher.encrypt_into(_nonce(number), data, self._context, target)

    def open(self, number: int, sealed: Data, bound: bytes = b"") -> bytes:
        """Raises ``InvalidTag`` when it is not what was sealed."""
        return self._cipher.decrypt(_nonce(number), sealed, self._context + bound)


def _nonce(number: int) -> bytes:
    return number.to_bytes(layout.NONCE_LENGTH, "little")


def seal_pack_index(secrets: Secrets, pack_id: bytes, context: bytes, payload: bytes) -> bytes:
    """The pack's own index, bound to the pack and to ``context``."""
    return _pack_index_cipher(secrets, pack_id).encrypt(_ONLY_NONCE, payload, secrets.repository_id + context)


def open_pack_index(secrets: Secrets, pack_id: bytes, context: bytes, sealed: bytes) -> bytes:
    """Raises ``InvalidTag`` when it is not what was sealed."""
    return _pack_index_cipher(secrets, pack_id).decrypt(_ONLY_NONCE, sealed, secrets.repository_id + context)


def _pack_index_cipher(secrets: Secrets, pack_id: bytes) -> AESGCM:
    return AESGCM(derive(secrets.structure, b"pack index", pack_id))


def seal_object(secrets: Secrets, kind: layout.Kind, key: str, payload: bytes) -> bytes:
    """A whole object: header, salt, and the compressed payload sealed under the structure secret, or, what was seen of
    a guest, under the content secret, which may raise ``keys.NoContent``.

    Bound to the repository, its kind and its key. Sealing the same payload again gives other bytes.
    """
    salt = os.urandom(layout.SALT_LENGTH)
    start = layout.header(kind)
    sealed = _object_cipher(secrets, kind, salt).encrypt(
        _ONLY_NONCE, codec.compress(payload), _object_context(secrets, start, key)
    )
    return start + salt + sealed


def open_object(
    secrets: Secrets, kind: layout.Kind, key: str, data: bytes, most: int = layout.MAX_OBJECT_LENGTH
) -> bytes:
    """The payload, of ``most`` bytes; ``Damaged`` when it is longer, or not the one that was sealed under this key."""
    layout.version_of(data, kind, key)
    start, salt, sealed = data[: layout.HEADER_LENGTH], data[layout.HEADER_LENGTH : _BODY], data[_BODY:]
    try:
        frame = _object_cipher(secrets, kind, salt).decrypt(_ONLY_NONCE, sealed, _object_context(secrets, start, key))
        return codec.decompress_frame(frame, most)
    except (InvalidTag, ValueError):
        raise errors.Damaged(f"{key} is damaged: its content was changed.", object=key) from None


_BODY = layout.HEADER_LENGTH + layout.SALT_LENGTH


def _object_cipher(secrets: Secrets, kind: layout.Kind, salt: bytes) -> AESGCM:
    of_content = kind is layout.Kind.EVIDENCE
    secret = secrets.of_class(layout.ChunkClass.CONTENT) if of_content else secrets.structure
    return AESGCM(derive(secret, b"object", kind.value, salt))


def _object_context(secrets: Secrets, start: bytes, key: str) -> bytes:
    return secrets.repository_id + start + key.encode()
