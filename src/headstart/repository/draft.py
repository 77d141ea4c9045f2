"""Drafts: backup images in the making, and what they have copied so far.

``drafts/<draft id>/<number>``: number 0 begins the draft, each further one is a round or a mere sign of life. All are
sealed, and none is ever changed. A draft's id is the id of the snapshot that it becomes: giving a draft up means to
create a tombstone in place of its manifest (:func:`snapshot.revoke`), after which its owner cannot publish.
"""

from __future__ import annotations

import json
import struct
from array import array
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from headstart import errors
from headstart.repository import columns, layout, link, snapshot, values
from headstart.repository.link import Link
from headstart.repository.repo import Repository
from headstart.repository.root import Root
from headstart.store.contract import Exists

_JSON_LENGTH = struct.Struct("<I")
_NUMBER_DIGITS = 8


class Taken(errors.HeadstartError):
    """The draft has another record of this number: another owner, or an old copy of the state. Begin a new draft."""


@dataclass(frozen=True, slots=True)
class Entries:
    """Blocks of one disk and their chunks, 36 bytes each, as columns."""

    blocks: array[int]
    chunk_ids: bytes

    @classmethod
    def of(cls, pairs: Iterable[tuple[int, bytes]]) -> Entries:
        blocks, chunk_ids = array("I"), bytearray()
        for block, chunk_id in pairs:
            blocks.append(block)
            chunk_ids += chunk_id
        return cls(blocks, bytes(chunk_ids))

    def __len__(self) -> int:
        return len(self.blocks)

    def __iter__(self) -> Iterator[tuple[int, bytes]]:
        step = layout.CHUNK_ID_LENGTH
        for place, block in enumerate(self.blocks):
            yield block, self.chunk_ids[place * step : (place + 1) * step]


@dataclass(frozen=True, slots=True)
class Record:
    """One object of a draft. ``time`` is when it was written, in seconds since 1970, UTC, by its owner's clock.

    ``entries`` are, by disk, the blocks copied since the record before; ``packs`` (hex) those that became durable
    since then, or that a backup is about to be published upon. ``links`` are the newest index objects when it was
    written; ``roots`` the trees of the snapshots that the backup builds on.
    """

    draft_id: str
    number: int
    time: float
    vm: str
    host: str
    packs: tuple[str, ...] = ()
    entries: Mapping[str, Entries] = field(default_factory=dict)
    links: tuple[Link, ...] = ()
    roots: tuple[Root, ...] = ()


@dataclass(frozen=True, slots=True)
class Draft:
    id: str
    vm: str
    host: str


def begin(
    repo: Repository, vm: str, host: str, now: float, draft_id: str | None = None, roots: Iterable[Root] = ()
) -> Draft:
    """A new draft, which keeps what it names from ``now`` on."""
    draft_id = draft_id or snapshot.new_id()
    _write(repo, Record(draft_id, 0, now, vm, host, roots=tuple(roots)))
    return Draft(draft_id, vm, host)


def record(
    repo: Repository,
    draft: Draft,
    number: int,
    now: float,
    packs: Iterable[str] = (),
    entries: Mapping[str, Iterable[tuple[int, bytes]]] | None = None,
    roots: Iterable[Root] = (),
) -> None:
    """Add record ``number``, 1 and up: what was copied. Of a whole disk, better several than a large one.

    May be repeated with the same values after a failure. Raises ``Taken``, and ``snapshot.Revoked`` when the draft was
    given up.
    """
    copied = {disk: Entries.of(pairs) for disk, pairs in (entries or {}).items()}
    links = repo.index.heads()
    _write(repo, Record(draft.id, number, now, draft.vm, draft.host, tuple(packs), copied, links, tuple(roots)))
    if snapshot.is_revoked(repo, draft.id):
        raise snapshot.Revoked(
            f"Draft {draft.id} was given up after it had not been heard of for too long. "
            "Nothing is lost: back up again.",
            draft=draft.id,
        )


def claim(
    repo: Repository,
    draft: Draft,
    number: int,
    now: float,
    packs: Iterable[str] = (),
    entries: Mapping[str, Iterable[tuple[int, bytes]]] | None = None,
    roots: Iterable[Root] = (),
) -> None:
    """``record``, of what is about to be published upon these packs. Raises ``StoreFailed`` if the store has lost it.

    Look only afterwards what is ``gone``: a collector of garbage dooms packs, and only then looks what is claimed. So
    one of the two sees the other, however their steps fall.
    """
    record(repo, draft, number, now, packs, entries, roots)
    try:
        read(repo, key_of(draft.id, number))
    except errors.Damaged as error:
        raise errors.StoreFailed(f"{error} It was written just now. Nothing was published: try again.") from None


def drop(repo: Repository, draft_id: str) -> None:
    """Remove the draft: its snapshot is published, or it is given up. Repeatable."""
    names = sorted(_names(repo, draft_id), reverse=True)  # the first record last: until then it is a draft
    for name in names:
        repo.store.delete(name)


def records(repo: Repository, draft_id: str) -> Iterator[Record]:
    """All records of a draft in order; ``Damaged`` when one is missing or cannot be read."""
    count = sum(1 for _ in _names(repo, draft_id))
    for number in range(count):
        yield read(repo, key_of(draft_id, number))


def names(repo: Repository) -> dict[str, list[str]]:
    """The objects of each draft."""
    found: dict[str, list[str]] = {}
    for name in sorted(_names(repo)):
        found.setdefault(name.split("/")[1], []).append(name)
    return found


def key_of(draft_id: str, number: int) -> str:
    if not layout.is_object_id(draft_id):
        raise ValueError(f"not a draft id: {draft_id!r}")
    return f"{layout.DRAFTS}{draft_id}/{number:0{_NUMBER_DIGITS}}"


def _names(repo: Repository, draft_id: str = "") -> Iterator[str]:
    for name, _ in repo.store.list(layout.DRAFTS + (f"{draft_id}/" if draft_id else "")):
        parts = name.split("/")
        if len(parts) == 3 and layout.is_object_id(parts[1]) and parts[2].isdecimal():
            yield name


def _write(repo: Repository, written: Record) -> None:
    key = key_of(written.draft_id, written.number)
    try:
        repo.put_object(layout.Kind.DRAFT, key, encode(written))
    except Exists:
        if repo.get_object(layout.Kind.DRAFT, key) != encode(written):
            raise Taken(
                f"{key} was written by somebody else: another run, or one before the state was restored from a copy.",
                object=key,
            ) from None


def read(repo: Repository, name: str) -> Record:
    """One record by the name of its object; ``Damaged``."""
    _, draft_id, number = name.split("/")
    try:
        return decode(draft_id, int(number), repo.get_object(layout.Kind.DRAFT, name))
    except ValueError:
        raise errors.Damaged(f"{name} is damaged: it cannot be decoded.", object=name) from None


def encode(written: Record) -> bytes:
    """Length of the JSON, the JSON, then for each disk in its order the blocks and the chunk ids."""
    head: dict[str, object] = {
        "time": written.time,
        "vm": written.vm,
        "host": written.host,
        "packs": written.packs,
        "disks": [[disk, len(listed)] for disk, listed in written.entries.items()],
    }
    if written.links:
        head["links"] = [[each.name, each.digest.hex()] for each in written.links]
    if written.roots:
        head["roots"] = [each.told() for each in written.roots]
    text = json.dumps(head, separators=(",", ":"), allow_nan=False).encode()
    tables = [columns.encode(listed.blocks) + listed.chunk_ids for listed in written.entries.values()]
    return _JSON_LENGTH.pack(len(text)) + text + b"".join(tables)


def decode(draft_id: str, number: int, payload: bytes) -> Record:
    """``ValueError`` when ``payload`` is no record. Unknown names are passed over."""
    start = _JSON_LENGTH.size + int.from_bytes(payload[: _JSON_LENGTH.size], "little")
    if start > len(payload):
        raise ValueError("too short")
    head = values.parse(payload[_JSON_LENGTH.size : start])
    try:
        vm, host, time = values.text(head["vm"]), values.text(head["host"]), values.moment(head["time"])
        packs = tuple(map(values.text, values.items(head["packs"])))
        disks = [values.items(each) for each in values.items(head["disks"])]
        links = tuple(_link(values.items(each)) for each in values.items(head.get("links", [])))
        roots = tuple(map(Root.of, values.items(head.get("roots", []))))
    except KeyError as error:
        raise ValueError(f"without {error}") from None
    entries: dict[str, Entries] = {}
    for disk, count in disks:
        end = start + values.count(count) * _ENTRY_LENGTH
        entries[values.text(disk)] = _entries(payload[start:end], count)
        start = end
    if start != len(payload) or len(entries) != len(disks):
        raise ValueError("more than it tells of")
    return Record(draft_id, number, time, vm, host, packs, entries, links, roots)


def _link(told: list[Any]) -> Link:
    if len(told) != 2:
        raise ValueError("no link")
    return link.of_json(*told)


_ENTRY_LENGTH = 4 + layout.CHUNK_ID_LENGTH


def _entries(table: bytes, count: int) -> Entries:
    blocks, chunk_ids = columns.cut(table, (4 * count, layout.CHUNK_ID_LENGTH * count))
    return Entries(columns.decode(blocks), chunk_ids)
