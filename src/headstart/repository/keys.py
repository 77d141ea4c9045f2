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
from headstart.repository import layout, objects
from headstart.store.contract import Store


class NoContent(errors.WrongPassword):
    """The password opens the structure of the repository and nothing else."""

    def __init__(self) -> None:
        super().__init__(
            "This password opens the structure of the repository, not its content. That is enough to verify it, and "
            "for snapshots, stats, diff, forget and gc. Use a password that opens everything."
        )


@dataclass(frozen=True, slots=True)
class Secrets:
    """Three independent secrets, and the repository's id, which commits to them.

    ``content`` opens what guests wrote; ``structure`` opens trees, indexes, manifests and drafts; ``chunk_id`` keys
    the ids of content. Who puts other secrets in place cannot keep the id. ``content`` and ``chunk_id`` are None for
    who has the structure alone, and ``images`` of them, which the id is made of, in their place.
    """

    content: bytes | None = field(repr=False)
    structure: bytes = field(repr=False)
    chunk_id: bytes | None = field(repr=False)
    images: tuple[bytes, bytes] = field(repr=False)
    repository_id: bytes

    @classmethod
    def of(cls, joined: bytes, *, opens_content: bool = True) -> Secrets:
        """From ``joined`` of the same; ``ValueError`` when it has another length."""
        length = layout.SECRET_LENGTH
        if len(joined) != 3 * length:
            raise ValueError("three secrets are needed")
        content, structure, chunk_id = joined[:length], joined[length : 2 * length], joined[2 * length :]
        images = (_image(content), _image(chunk_id)) if opens_content else (content, chunk_id)
        repository_id = blake3(images[0] + _image(structure) + images[1]).digest()[: layout.OBJECT_ID_LENGTH]
        if opens_content:
            return cls(content, structure, chunk_id, images, repository_id)
        return cls(None, structure, None, images, repository_id)

    @classmethod
    def generate(cls) -> Secrets:
        return cls.of(os.urandom(3 * layout.SECRET_LENGTH))

    @property
    def joined(self) -> bytes:
        """Content, structure, chunk id: the images of those that are not there."""
        content, chunk_id = self.content or self.images[0], self.chunk_id or self.images[1]
        return content + self.structure + chunk_id

    @property
    def opens_content(self) -> bool:
        return self.content is not None

    def of_class(self, chunk_class: layout.ChunkClass) -> bytes:
        """What chunks are sealed under. Raises ``NoContent``."""
        return self.structure if chunk_class is layout.ChunkClass.TREE else _there(self.content)

    @property
    def of_content_ids(self) -> bytes:
        """Raises ``NoContent``."""
        return _there(self.chunk_id)

    def structure_alone(self) -> Secrets:
        return Secrets(None, self.structure, None, self.images, self.repository_id)


def _image(secret: bytes) -> bytes:
    """One-way: the id can be checked by who knows only some of the secrets, and the images of the others."""
    return blake3(b"commitment\0", key=secret).digest()


def _there(secret: bytes | None) -> bytes:
    if secret is None:
        raise NoContent
    return secret


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
#: Flags: the structure secret alone, with images of the others; the time when the key was made follows the salt.
_STRUCTURE_ALONE = 1
_DATED = 2
#: KDF, flags, two zero bytes, memory in KiB, passes, lanes, salt.
_KEY_HEAD = struct.Struct(f"<BB2xIII{layout.SALT_LENGTH}s")
_TIME = struct.Struct("<Q")
_HEAD_END = layout.HEADER_LENGTH + _KEY_HEAD.size


def wrap(secrets: Secrets, password: bytes | None, cost: Argon2, created: float | None = None) -> tuple[str, bytes]:
    """Key and bytes of the object that gives the secrets to who knows the password (None: to anybody).

    ``created`` in seconds since 1970, UTC."""
    salt = os.urandom(layout.SALT_LENGTH)
    kdf = _KDF_NONE if password is None else _KDF_ARGON2ID
    numbers = (0, 0, 0) if password is None else (cost.memory_kib, cost.passes, cost.lanes)
    flags = (0 if secrets.opens_content else _STRUCTURE_ALONE) | (0 if created is None else _DATED)
    start = layout.header(layout.Kind.KEY) + _KEY_HEAD.pack(kdf, flags, *numbers, salt)
    if created is not None:
        start += _TIME.pack(int(created))
    if password is None:
        data = start + secrets.joined
    else:
        wrapping = AESGCM(cost.derive(password, salt))
        data = start + wrapping.encrypt(bytes(layout.NONCE_LENGTH), secrets.joined, start)
    return layout.KEYS + _key_id(data), data


def _key_id(data: bytes) -> str:
    """A key object is named by its digest: that tells damage from a wrong password."""
    return blake3(data).digest()[: layout.OBJECT_ID_LENGTH].hex()


@dataclass(frozen=True, slots=True)
class KeyObject:
    """An undamaged object under ``keys/``. ``argon2`` None: not wrapped. ``created`` in seconds since 1970, UTC; None:
    it does not say."""

    name: str
    start: bytes
    body: bytes
    argon2: Argon2 | None
    salt: bytes
    opens_content: bool = True
    created: int | None = None

    @classmethod
    def decode(cls, name: str, data: bytes) -> KeyObject:
        if layout.KEYS + _key_id(data) != name:
            raise errors.Damaged(f"{name} is damaged: its content was changed.", object=name)
        layout.version_of(data, layout.Kind.KEY, name)
        if len(data) < _HEAD_END:
            raise _no_key_object(name)
        kdf, flags, *numbers, salt = _KEY_HEAD.unpack(data[layout.HEADER_LENGTH : _HEAD_END])
        if not _is_known(kdf, flags) or (kdf and not _may_be_derived(*numbers)):
            raise errors.Unsupported(f"{name} asks for a key derivation that this version does not do.", object=name)
        argon2 = Argon2(*numbers) if kdf == _KDF_ARGON2ID else None
        end = _HEAD_END + (_TIME.size if flags & _DATED else 0)
        if len(data) - end != 3 * layout.SECRET_LENGTH + (layout.TAG_LENGTH if argon2 else 0):
            raise _no_key_object(name)
        created = int.from_bytes(data[_HEAD_END:end], "little") if flags & _DATED else None
        return cls(name, data[:end], data[end:], argon2, salt, not flags & _STRUCTURE_ALONE, created)

    def unwrap(self, password: bytes) -> Secrets | None:
        """None when the password is another one. Takes a tenth of a second and 64 MiB, on purpose."""
        if self.argon2 is None:
            return Secrets.of(self.body)
        wrapping = AESGCM(self.argon2.derive(password, self.salt))
        try:
            joined = wrapping.decrypt(bytes(layout.NONCE_LENGTH), self.body, self.start)
        except InvalidTag:
            return None
        return Secrets.of(joined, opens_content=self.opens_content)


def _is_known(kdf: int, flags: int) -> bool:
    """The structure alone is never left unwrapped: then no password would be asked for, and nobody would have more."""
    alone = flags & _STRUCTURE_ALONE
    return kdf in (_KDF_NONE, _KDF_ARGON2ID) and flags <= _STRUCTURE_ALONE | _DATED and not (alone and not kdf)


def _may_be_derived(memory_kib: int, passes: int, lanes: int) -> bool:
    """RFC 9106, section 3.1: each lane needs 8 KiB."""
    within = all(1 <= number <= most for number, most in zip((memory_kib, passes, lanes), _ARGON2_LIMITS, strict=True))
    return within and memory_kib >= 8 * lanes


def _no_key_object(name: str) -> errors.Damaged:
    """Anybody who can write to the store can give it a name that fits."""
    return errors.Damaged(f"{name} is damaged: it is no key.", object=name)


@dataclass(frozen=True, slots=True)
class Unlocked:
    """``keys``: names of the objects that gave these secrets. ``guarded``: by a password."""

    secrets: Secrets
    guarded: bool
    keys: tuple[str, ...] = ()


def unlock(store: Store, repository_id: bytes, password: Callable[[], bytes], *, every_key: bool = False) -> Unlocked:
    """The secrets that belong to ``repository_id``: all of them, if the password gives them, else the structure's.

    ``password`` is asked once, and only when it is needed. ``every_key``: look for all that it opens, not for one that
    opens everything; a tenth of a second for each key. Raises ``WrongPassword``, or ``Damaged`` when no key object is
    of use.
    """
    found, damaged = _key_objects(store)
    for key in found:
        if key.argon2 is None and (secrets := key.unwrap(b"")) and secrets.repository_id == repository_id:
            return Unlocked(secrets, False, (key.name,))
    guarded = [key for key in found if key.argon2 is not None]
    given = password() if guarded else b""
    ours: dict[str, Secrets] = {}
    foreign = False
    for name, secrets in _opened(guarded, given):
        if secrets.repository_id != repository_id:
            foreign = True
            continue
        ours[name] = secrets
        if secrets.opens_content and not every_key:
            break
    if ours:
        best = max(ours.values(), key=lambda secrets: secrets.opens_content)
        return Unlocked(best, True, tuple(name for name, secrets in ours.items() if secrets == best))
    if foreign:
        raise errors.Damaged("config and keys/ belong to different repositories.", object=layout.CONFIG_KEY)
    raise _no_key(guarded, damaged)


def usable(store: Store) -> list[KeyObject]:
    """Every key object that is not damaged."""
    return _key_objects(store)[0]


def names(store: Store) -> list[str]:
    """Of all key objects."""
    return objects.names(store, layout.KEYS)


def unusable(store: Store) -> list[errors.HeadstartError]:
    """An error for each key object that is damaged."""
    return _key_objects(store)[1]


def _key_objects(store: Store) -> tuple[list[KeyObject], list[errors.HeadstartError]]:
    found: list[KeyObject] = []
    damaged: list[errors.HeadstartError] = []
    for name in names(store):
        try:
            found.append(KeyObject.decode(name, store.read(name)))
        except (errors.Damaged, errors.Unsupported) as error:
            damaged.append(error)
    return found, damaged


def _opened(guarded: list[KeyObject], password: bytes) -> Iterator[tuple[str, Secrets]]:
    for key in guarded:
        secrets = key.unwrap(password)
        if secrets is not None:
            yield key.name, secrets


def _no_key(guarded: list[KeyObject], damaged: list[errors.HeadstartError]) -> errors.HeadstartError:
    names = [error.facts["object"] for error in damaged]
    told = " ".join(map(str, damaged))
    if guarded:
        return errors.WrongPassword(
            f"No key of this repository opens with this password. Correct it, or the address. {told}".strip(),
            objects=names,
        )
    if all(isinstance(error, errors.Damaged) for error in damaged):
        missing = "The repository has no key under keys/: without one, nothing in it can be read."
        return errors.Damaged(told or missing, object=names[0] if names else layout.KEYS, objects=names)
    return damaged[0]
