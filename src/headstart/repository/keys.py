"""The secrets of a repository, and how a password wraps them."""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from blake3 import blake3
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id

from headstart import errors
from headstart.repository import layout
from headstart.store.contract import Store


@dataclass(frozen=True, slots=True)
class Secrets:
    """Three independent secrets, and the repository's id, which commits to them.

    ``content`` opens what guests wrote; ``structure`` opens trees, indexes, manifests and drafts; ``chunk_id`` keys
    the ids of content. Who puts other secrets in place cannot keep the id.
    """

    content: bytes = field(repr=False)
    structure: bytes = field(repr=False)
    chunk_id: bytes = field(repr=False)
    repository_id: bytes

    @classmethod
    def of(cls, joined: bytes) -> Secrets:
        length = layout.SECRET_LENGTH
        if len(joined) != 3 * length:
            raise ValueError("three secrets are needed")
        parts = (joined[:length], joined[length : 2 * length], joined[2 * length :])
        return cls(*parts, repository_id=_commitment(parts))

    @classmethod
    def generate(cls) -> Secrets:
        return cls.of(os.urandom(3 * layout.SECRET_LENGTH))

    @property
    def joined(self) -> bytes:
        return self.content + self.structure + self.chunk_id


def _commitment(secrets: tuple[bytes, ...]) -> bytes:
    """One-way, and from one-way images: it can be checked by who knows only some of the secrets."""
    images = b"".join(blake3(b"commitment\0", key=secret).digest() for secret in secrets)
    return blake3(images).digest()[: layout.OBJECT_ID_LENGTH]


@dataclass(frozen=True, slots=True)
class Argon2:
    """Cost of one guess at a password: RFC 9106's second choice (64 MiB, 3 passes, 4 lanes)."""

    memory_kib: int = 64 * 1024
    passes: int = 3
    lanes: int = 4

    def derive(self, password: bytes, salt: bytes) -> bytes:
        return Argon2id(
            salt=salt,
            length=layout.SECRET_LENGTH,
            iterations=self.passes,
            lanes=self.lanes,
            memory_cost=self.memory_kib,
        ).derive(password)


DEFAULT_COST = Argon2()
#: Bounds on what a key object may make us compute: 4 GiB, 64 passes, 64 lanes.
_ARGON2_LIMITS = (4 * 1024 * 1024, 64, 64)

_KDF_NONE = 0
_KDF_ARGON2ID = 1
#: KDF, three zero bytes, memory in KiB, passes, lanes, salt.
_KEY_HEAD = struct.Struct(f"<B3xIII{layout.SALT_LENGTH}s")
_BODY = layout.HEADER_LENGTH + _KEY_HEAD.size


def wrap(secrets: Secrets, password: bytes | None, cost: Argon2) -> tuple[str, bytes]:
    """Key and bytes of the object that gives the secrets to who knows the password (None: to anybody)."""
    salt = os.urandom(layout.SALT_LENGTH)
    if password is None:
        data = layout.header(layout.Kind.KEY) + _KEY_HEAD.pack(_KDF_NONE, 0, 0, 0, salt) + secrets.joined
    else:
        numbers = (cost.memory_kib, cost.passes, cost.lanes)
        start = layout.header(layout.Kind.KEY) + _KEY_HEAD.pack(_KDF_ARGON2ID, *numbers, salt)
        wrapping = AESGCM(cost.derive(password, salt))
        data = start + wrapping.encrypt(bytes(layout.NONCE_LENGTH), secrets.joined, start)
    return layout.KEYS + _key_id(data), data


def _key_id(data: bytes) -> str:
    """A key object is named by its digest: that tells damage from a wrong password."""
    return blake3(data).digest()[: layout.OBJECT_ID_LENGTH].hex()


@dataclass(frozen=True, slots=True)
class KeyObject:
    """An undamaged object under ``keys/``."""

    name: str
    start: bytes
    body: bytes
    argon2: Argon2 | None
    salt: bytes

    @classmethod
    def decode(cls, name: str, data: bytes) -> KeyObject:
        if layout.KEYS + _key_id(data) != name:
            raise errors.Damaged(f"{name} is damaged: its content was changed.", object=name)
        layout.version_of(data, layout.Kind.KEY, name)
        if len(data) < _BODY:
            raise _no_key_object(name)
        kdf, *numbers, salt = _KEY_HEAD.unpack(data[layout.HEADER_LENGTH : _BODY])
        if kdf not in (_KDF_NONE, _KDF_ARGON2ID) or (kdf and not _may_be_derived(*numbers)):
            raise errors.Unsupported(f"{name} asks for a key derivation that this version does not do.", object=name)
        argon2 = Argon2(*numbers) if kdf == _KDF_ARGON2ID else None
        if len(data) - _BODY != 3 * layout.SECRET_LENGTH + (layout.TAG_LENGTH if argon2 else 0):
            raise _no_key_object(name)
        return cls(name, data[:_BODY], data[_BODY:], argon2, salt)

    def unwrap(self, password: bytes) -> Secrets | None:
        """None when the password is another one. Takes a tenth of a second and 64 MiB, on purpose."""
        if self.argon2 is None:
            return Secrets.of(self.body)
        wrapping = AESGCM(self.argon2.derive(password, self.salt))
        try:
            return Secrets.of(wrapping.decrypt(bytes(layout.NONCE_LENGTH), self.body, self.start))
        except InvalidTag:
            return None


def _may_be_derived(memory_kib: int, passes: int, lanes: int) -> bool:
    """RFC 9106, section 3.1: each lane needs 8 KiB."""
    within = all(1 <= number <= most for number, most in zip((memory_kib, passes, lanes), _ARGON2_LIMITS, strict=True))
    return within and memory_kib >= 8 * lanes


def _no_key_object(name: str) -> errors.Damaged:
    """Anybody who can write to the store can give it a name that fits."""
    return errors.Damaged(f"{name} is damaged: it is no key.", object=name)


def unlock(store: Store, repository_id: bytes, password: Callable[[], bytes]) -> tuple[Secrets, bool]:
    """The secrets that belong to ``repository_id``, and whether a password guards them.

    ``password`` is asked once, and only when it is needed. Raises ``WrongPassword``, or ``Damaged``
    when no key object is of use.
    """
    usable, damaged = _key_objects(store)
    for key in usable:
        if key.argon2 is None and (secrets := key.unwrap(b"")) and secrets.repository_id == repository_id:
            return secrets, False
    guarded = [key for key in usable if key.argon2 is not None]
    given = password() if guarded else b""
    opened = list(_opened(guarded, given))
    for secrets in opened:
        if secrets.repository_id == repository_id:
            return secrets, True
    if opened:
        raise errors.Damaged("config and keys/ belong to different repositories.", object=layout.CONFIG_KEY)
    raise _no_key(guarded, damaged)


def names(store: Store) -> list[str]:
    """Of all key objects."""
    listed = sorted(name for name, _ in store.list(layout.KEYS))
    return [name for name in listed if layout.is_object_id(name.removeprefix(layout.KEYS))]


def unusable(store: Store) -> list[errors.HeadstartError]:
    """An error for each key object that is damaged."""
    return _key_objects(store)[1]


def _key_objects(store: Store) -> tuple[list[KeyObject], list[errors.HeadstartError]]:
    usable: list[KeyObject] = []
    damaged: list[errors.HeadstartError] = []
    for name in names(store):
        try:
            usable.append(KeyObject.decode(name, store.read(name)))
        except (errors.Damaged, errors.Unsupported) as error:
            damaged.append(error)
    return usable, damaged


def _opened(guarded: list[KeyObject], password: bytes) -> Iterator[Secrets]:
    for key in guarded:
        secrets = key.unwrap(password)
        if secrets is not None:
            yield secrets


def _no_key(guarded: list[KeyObject], damaged: list[errors.HeadstartError]) -> errors.HeadstartError:
    names = [error.facts["object"] for error in damaged]
    told = " ".join(map(str, damaged))
    if guarded:
        return errors.WrongPassword(
            f"No key of this repository opens with this password. {told}".strip(), objects=names
        )
    if all(isinstance(error, errors.Damaged) for error in damaged):
        missing = "The repository has no key under keys/: without one, nothing in it can be read."
        return errors.Damaged(told or missing, object=names[0] if names else layout.KEYS, objects=names)
    return damaged[0]
