"""Leases: who reads, and who collects garbage or repairs, as long as they give signs of life.

``leases/<lease id>/<number>``: number 0 begins it, each further one is a sign of life. How old a sign is, the store's
clock tells: those of hosts may be wrong. A lease that is older than it may be has ended, whatever its owner thinks.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import socket
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from headstart import errors
from headstart.repository import layout, snapshot, values
from headstart.repository.manifest import Manifest
from headstart.repository.repo import Repository
from headstart.repository.root import Root
from headstart.store.contract import Exists, Missing

#: A draft or a reader that has not been heard of for so long is dead. A host that sleeps over a long weekend keeps its
#: head start; what it has keeps its space for so long.
DEAD_SECONDS = 72 * 3600.0
#: The same for a collector, which gives a sign every ``_BEAT_SECONDS``.
COLLECTOR_DEAD_SECONDS = 600.0
_BEAT_SECONDS = 120.0
_DIGITS = 8
#: The one lease of those who forget, collect and repair.
_COLLECTOR = "0" * (2 * layout.OBJECT_ID_LENGTH)


@dataclass(frozen=True, slots=True)
class Lease:
    """``host`` and ``verb`` say whose; ``roots`` and ``chunks`` what it needs. ``nonce`` tells those apart that one
    after another have the same id: of containers, hosts and processes may all be called the same."""

    id: str
    host: str
    verb: str
    roots: tuple[Root, ...] = ()
    chunks: tuple[bytes, ...] = ()
    nonce: str = ""


class Held(errors.Locked):
    """Somebody else forgets, collects or repairs in this repository."""


def key_of(lease_id: str, number: int) -> str:
    return f"{layout.LEASES}{lease_id}/{number:0{_DIGITS}}"


def encode(lease: Lease) -> bytes:
    told = {
        "host": lease.host,
        "verb": lease.verb,
        "roots": [root.told() for root in lease.roots],
        "chunks": [chunk.hex() for chunk in lease.chunks],
        "nonce": lease.nonce,
    }
    return json.dumps(told, separators=(",", ":")).encode()


def decode(lease_id: str, payload: bytes) -> Lease:
    """``ValueError`` when it is none."""
    try:
        told = values.parse(payload)
        return Lease(
            lease_id,
            values.text(told["host"]),
            values.text(told["verb"]),
            tuple(map(Root.of, values.items(told["roots"]))),
            tuple(map(values.chunk_id, values.items(told["chunks"]))),
            values.text(told.get("nonce", "")),
        )
    except KeyError as error:
        raise ValueError(f"without {error}") from None


def names(repo: Repository) -> dict[str, list[str]]:
    """The objects of each lease, in order."""
    found: dict[str, list[str]] = {}
    for name in sorted(name for name, _ in repo.store.list(layout.LEASES)):
        parts = name.split("/")
        if len(parts) == 3 and layout.is_object_id(parts[1]) and parts[2].isdecimal():
            found.setdefault(parts[1], []).append(name)
    return found


def ages(repo: Repository, prefix: str) -> dict[str, float]:
    """Seconds since each object was created, by the store's clock."""
    now = repo.store.clock()
    return {name: now - created for name, _, created in repo.store.modified(prefix)}


def is_dead(names_of: Iterable[str], aged: dict[str, float], limit: float) -> bool:
    """By its newest sign of life. One that came after the ages were asked for is young."""
    return min((corrected(aged.get(name, 0.0), limit) for name in names_of), default=0.0) > limit


def corrected(age: float, limit: float) -> float:
    """Stores round, so that an age may be below nothing. Further below than ``limit``: their clock was ahead once, and
    who knows for how long that was ago."""
    return max(0.0, age) if age >= -limit else math.inf


def living(repo: Repository) -> list[Lease]:
    """What readers hold. ``Damaged`` when a living one cannot be read."""
    found: list[Lease] = []
    for its, dead in _of_readers(repo):
        if not dead:
            with contextlib.suppress(Missing):  # it ended just now
                found.append(read(repo, its[0]))
    return found


def remove_dead(repo: Repository) -> None:
    """Of readers."""
    for its, dead in _of_readers(repo):
        if dead:
            _remove(repo, its)


def _of_readers(repo: Repository) -> Iterator[tuple[list[str], bool]]:
    """The objects of each lease, and whether it is dead."""
    aged = ages(repo, layout.LEASES)
    for lease_id, its in names(repo).items():
        if lease_id != _COLLECTOR:
            yield its, is_dead(its, aged, DEAD_SECONDS)


def read(repo: Repository, name: str) -> Lease:
    try:
        return decode(name.split("/")[1], repo.get_object(layout.Kind.LEASE, name))
    except ValueError:
        raise errors.Damaged(f"{name} is damaged: it cannot be decoded.", object=name) from None


def _is_of(repo: Repository, name: str, owner: Lease) -> bool:
    try:
        return read(repo, name) == owner
    except errors.Damaged:
        return False


def _remove(repo: Repository, its: Iterable[str]) -> None:
    for name in reversed(list(its)):  # the first last: until then it is a lease
        repo.store.delete(name)


class Beat:
    """Signs of life on a thread of their own."""

    def __init__(self, repo: Repository, lease: Lease, number: int, seconds: float) -> None:
        self._repo = repo
        self._lease = lease
        self._first = self._number = number
        self._unsure = False
        self._signing = threading.Lock()
        self._seconds = seconds
        self._end = threading.Event()
        #: Somebody else took it for dead.
        self.lost = False
        self._thread = threading.Thread(target=self._run, name="lease", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._end.wait(self._seconds):
            # The next one may come through; if none does, the lease ends, which harms nobody.
            with contextlib.suppress(errors.HeadstartError), self._signing:
                self._sign()

    def require(self) -> None:
        """Raises ``Held`` if somebody else may have begun meanwhile, because this process or its machine slept."""
        with self._signing:
            if not self.lost and self._is_mine(self._key(self._number)):
                self._sign()
            else:
                self.lost = True
        if self.lost:
            verb = self._lease.verb
            raise Held(
                f"'headstart {verb}' gave no sign of life for more than {COLLECTOR_DEAD_SECONDS / 60:.0f} minutes: this"
                " machine was asleep, or the store away. Somebody else may be at work by now, so it ended. Repeat it.",
                host=self._lease.host,
                verb=verb,
            )

    def _sign(self) -> None:
        """The next one. Who was taken for dead meanwhile finds it taken, gives no more, and leaves that one alone."""
        name = self._key(self._number + 1)
        self._unsure = True
        try:
            self._repo.put_object(layout.Kind.LEASE, name, encode(self._lease))
        except Exists:
            if not self._is_mine(name):
                self._unsure = False
                self.lost = True
                self._end.set()
                return
        self._unsure = False
        self._number += 1
        if self._lease.id == _COLLECTOR:
            with contextlib.suppress(errors.StoreFailed, errors.Unsupported):  # not everybody may
                self._repo.store.delete(self._key(self._number - 1))

    def _key(self, number: int) -> str:
        return key_of(self._lease.id, number)

    def _is_mine(self, name: str) -> bool:
        """The store may have done what it said had failed."""
        return _is_of(self._repo, name, self._lease)

    def close(self) -> None:
        self._end.set()
        self._thread.join()
        last = self._number + (self._unsure and self._is_mine(self._key(self._number + 1)))
        its = [self._key(number) for number in range(self._first, last + 1)]
        if self._lease.id == _COLLECTOR:  # the next one begins from number 0
            its = [name for name in its if self._is_mine(name)]
        _remove(self._repo, its)


@contextlib.contextmanager
def reading(repo: Repository, verb: str, roots: Iterable[Root], chunks: Iterable[bytes]) -> Iterator[bool]:
    """While this lasts, nothing is swept that these trees and chunks need. Look *afterwards* whether the snapshots
    that they are of are still there.

    False where the repository cannot be written to: then only the quarantine keeps what is read."""
    held = Lease(os.urandom(layout.OBJECT_ID_LENGTH).hex(), socket.gethostname(), verb, tuple(roots), tuple(chunks))
    try:
        repo.put_object(layout.Kind.LEASE, key_of(held.id, 0), encode(held))
    except (errors.StoreFailed, errors.NoSpace, errors.Unsupported):
        yield False
        return
    beat = Beat(repo, held, 0, DEAD_SECONDS / 12)
    try:
        yield True
    finally:
        with contextlib.suppress(errors.HeadstartError):
            beat.close()


@contextlib.contextmanager
def reading_snapshot(repo: Repository, verb: str, manifest: Manifest) -> Iterator[bool]:
    """As ``reading``, all of a snapshot. Raises ``NotFound`` when it was forgotten just now."""
    roots = [Root(manifest.id, disk.name, disk.size, disk.root) for disk in manifest.disks]
    chunks = [chunk for attached in manifest.attachments for chunk in attached.chunks]
    with reading(repo, verb, roots, chunks) as held:
        snapshot.load(repo, manifest.id)
        yield held


@contextlib.contextmanager
def collecting(repo: Repository, verb: str) -> Iterator[Beat]:
    """One at a time forgets, collects, or repairs. Raises ``Held``.

    This saves work and keeps reports right; nothing is lost if two forget or collect all the same. Beside a repair it
    may be: who deletes or notes losses requires first that it was not taken for dead."""
    nonce = os.urandom(layout.OBJECT_ID_LENGTH).hex()
    mine = Lease(_COLLECTOR, socket.gethostname(), f"{verb} (process {os.getpid()})", nonce=nonce)
    number = _take(repo, mine)
    beat = Beat(repo, mine, number, _BEAT_SECONDS)
    try:
        yield beat
    finally:
        with contextlib.suppress(errors.HeadstartError):
            beat.close()


def look_for(repo: Repository, verb: str) -> None:
    """Raises ``Held`` while somebody is at this, or at what cannot be read."""
    its = names(repo).get(_COLLECTOR, [])
    if is_dead(its, ages(repo, layout.LEASES), COLLECTOR_DEAD_SECONDS):
        return
    try:
        found = next((name for name in its if _may_be(repo, name, verb)), None)
    except Missing:  # it has ended, or given another sign of life
        look_for(repo, verb)
    else:
        if found is not None:
            raise _held(repo, found)


def _may_be(repo: Repository, name: str, verb: str) -> bool:
    try:
        return read(repo, name).verb.startswith(verb)
    except Missing:
        raise
    except errors.Damaged:
        return True


def _take(repo: Repository, mine: Lease) -> int:
    its = names(repo).get(_COLLECTOR, [])
    if its and not is_dead(its, ages(repo, layout.LEASES), COLLECTOR_DEAD_SECONDS):
        raise _held(repo, its[-1])
    number = int(its[-1].rpartition("/")[2]) + 1 if its else 0
    taken = key_of(_COLLECTOR, number)
    try:
        repo.put_object(layout.Kind.LEASE, taken, encode(mine))
    except Exists:
        raise _held(repo, taken) from None
    except errors.StoreFailed:
        with contextlib.suppress(errors.HeadstartError):  # it may be there, or by now that of another one
            if _is_of(repo, taken, mine):
                repo.store.delete(taken)
        raise
    others = [name for name in names(repo).get(_COLLECTOR, []) if name != taken and name not in its]
    if others:  # of one that began while we hesitated
        repo.store.delete(taken)
        raise _held(repo, others[-1])
    with contextlib.suppress(errors.StoreFailed):  # not everybody may, and it is dead all the same
        _remove(repo, its)
    return number


def _held(repo: Repository, name: str) -> Held:
    try:
        found = read(repo, name)
    except errors.Damaged:
        found = Lease(_COLLECTOR, "an unknown host", "somebody")
    return Held(
        f"'headstart {found.verb}' of {found.host} is at work in this repository. Wait for its end; if it was killed, "
        f"its lease ends {COLLECTOR_DEAD_SECONDS / 60:.0f} minutes after its last sign of life.",
        host=found.host,
        verb=found.verb,
    )
