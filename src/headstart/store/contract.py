"""What the repository asks of a place that keeps named, immutable objects."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from headstart import errors

Data = bytes | bytearray | memoryview

_PART = r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,127}"
_KEY = re.compile(rf"{_PART}(/{_PART}){{0,7}}")


class Exists(errors.StoreFailed):
    """``create`` found an object of that name. It was left as it is."""


class Missing(errors.Damaged):
    """No object of that name."""


class Refused(errors.StoreFailed):
    """The store does not want to, and will not another time: wrong rights, credentials or address."""


@dataclass(frozen=True, slots=True)
class Protection:
    """Objects are locked for ``days`` and a margin from when they are created, but for those whose key starts with one
    of ``outside``."""

    days: int
    outside: tuple[str, ...] = ()

    def covers(self, key: str) -> bool:
        return not key.startswith(self.outside)

    @property
    def seconds(self) -> float:
        """With the margin: what is in use need not be locked anew every day."""
        return (self.days + max(1, self.days // 4)) * 86400.0


class Locks(Protocol):
    """Locks on objects, which nobody can undo before they end. Any thread may use it; times are seconds since 1970."""

    def available(self) -> bool:
        """Whether the place was made for it."""

    def days(self) -> int | None:
        """For how long the place locks what is created, whoever asks; None: as ``protect`` says."""

    def protect(self, protection: Protection) -> None:
        """Lock what is created from now on, where that is not the place's own matter."""

    def locked_until(self, key: str) -> float:
        """0 for an object that is not locked; or ``Missing``."""

    def extend(self, key: str, until: float) -> None:
        """Lock it longer, never shorter (``Refused``)."""


#: ``Store.window`` of what is near.
NEAR = max(2, min(4, os.cpu_count() or 1))


class Store(Protocol):
    """Immutable objects by name. Every method may be called from several threads at once.

    A key is a relative POSIX name: parts of letters, digits, ``.``, ``_`` and ``-``, joined by ``/``, none starting
    with a dot. Anything else is a bug of the caller (``ValueError``).

    No method tries again by itself. A failure is an error of ``headstart.errors``: ``NoSpace`` when the place is full,
    ``Unsupported`` when it cannot keep what ``create`` promises, ``Refused`` when trying again is of no use,
    ``StoreFailed`` for all that may pass.
    After ``StoreFailed`` from ``create`` or ``delete`` the outcome is unknown: look, do not assume.
    """

    @property
    def window(self) -> int:
        """Requests for reading that it is worth to have under way: few where each keeps a processor busy, many where
        each waits for a distant server."""
        ...

    @property
    def host(self) -> str:
        """Where it is, by name or number; empty: on this machine, as far as is known."""
        ...

    def create(self, key: str, data: Data) -> None:
        """Keep ``data`` under ``key``; durable against a power cut when this returns.

        Of several creators of one key exactly one succeeds, the others get ``Exists``. Nobody ever sees a part
        of an object. ``data`` belongs to the caller again when this returns.
        """

    def read(self, key: str) -> bytes:
        """The whole object, or ``Missing``."""

    def read_range(self, key: str, offset: int, length: int) -> bytes:
        """The bytes from ``offset``: fewer where the object ends before, none past its end; or ``Missing``."""

    def list(self, prefix: str) -> Iterator[tuple[str, int]]:
        """Key and size of every object whose key starts with ``prefix``, in no particular order.

        What is created or deleted meanwhile may show or not. Foreign files of a directory show with
        their names as they are.
        """

    def delete(self, key: str) -> None:
        """Remove the object; no error when there is none."""

    def modified(self, prefix: str) -> Iterator[tuple[str, int, float]]:
        """As ``list``, and the time at which each object was created: seconds since 1970, UTC, by the store's clock.

        Some stores round to whole seconds, and some take the begin of the request that created it: leave minutes.
        """

    def locks(self) -> Locks | None:
        """None where nothing can keep objects from those who may delete."""

    def clock(self) -> float:
        """What the store's clock says now, as ``modified`` would: for ages, which our own clock may misjudge."""


def check_key(key: str) -> str:
    """``key`` itself, or ``ValueError`` when it is none."""
    if not _KEY.fullmatch(key):
        raise ValueError(f"not a key: {key!r}")
    return key


def overwrites(store: Store) -> errors.Unsupported:
    """Of a store in which a backup could be overwritten by another one."""
    return errors.Unsupported(
        f"The server of {store!r} does not know conditional writes (If-None-Match), so that a backup could overwrite"
        " what another one has stored. Use one that does: S3, Google, Azure, Cloudflare R2, MinIO, Ceph, SeaweedFS."
    )
