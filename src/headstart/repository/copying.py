"""Copying snapshots into another repository, with other keys and another store: only what is missing there.

::

    trees of the source, where they differ from those of a snapshot that both repositories have
        -> chunks, read and checked -> their ids under the target's key -> those that it lacks, in new packs
        -> records of a draft in the target: what is durable; after an interruption it goes on behind them
        -> trees of the target, from the records -> the manifest, under the same id

The draft is as that of a backup: nobody collects what it names.
"""

from __future__ import annotations

import functools
import hashlib
import heapq
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace

from headstart import blocks, errors, units
from headstart.batches import batched
from headstart.blocks import Blocks
from headstart.repository import attachment, draft, layout, lease, lost, snapshot, tree
from headstart.repository.draft import Draft
from headstart.repository.manifest import Disk, Manifest
from headstart.repository.repo import Repository
from headstart.repository.root import Root
from headstart.repository.tree import Change
from headstart.repository.writer import Cut, Writer
from headstart.store.contract import Data

#: Called with the bytes of the snapshot's disks that were looked at, and of all of them.
Progress = Callable[[int, int], None]

#: Blocks whose chunks are read in one go.
_BATCH = 2048
#: A record of the draft after so many blocks that were copied, or seconds.
RECORD_BLOCKS = 16_384
RECORD_SECONDS = 60.0

_DECIDED = (layout.SNAPSHOTS, layout.TWINS)


@dataclass(frozen=True, slots=True)
class Copied:
    """``id``: of the snapshot in the target. ``there``: it was, already. ``read_bytes`` of content, uncompressed;
    ``stored_bytes``: by how much the target grew."""

    snapshot: str
    id: str
    vm: str
    there: bool
    read_bytes: int = 0
    stored_bytes: int = 0


class Copying:
    """From one repository into another one. ``host`` is noted in the draft; ``clock`` gives seconds since 1970."""

    def __init__(
        self, source: Repository, target: Repository, host: str, clock: Callable[[], float], progress: Progress
    ) -> None:
        """Raises ``Usage`` when the one cannot be copied into the other."""
        _check(source, target)
        target.drop_lost()
        self._source = source
        self._target = target
        self._host = host
        self._clock = clock
        self._progress = progress
        self._originals = snapshot.all_manifests(source).manifests
        self._there = {manifest.id: manifest for manifest in snapshot.all_manifests(target).manifests}
        self._drafts = draft.names(target)
        self._taken = {name.rpartition("/")[2] for at in _DECIDED for name, _ in target.store.list(at)}

    def copy(self, original: Manifest) -> Copied:
        """Raises ``Damaged`` when something that is needed cannot be read, ``Locked`` when somebody else copies it. May
        be repeated after any failure."""
        new_id, there = self._find(original)
        if there is not None:
            if new_id in self._drafts:  # it came no further than that
                snapshot.add_twin(self._target, new_id)
                draft.drop(self._target, new_id)
            return Copied(original.id, new_id, original.vm, there=True)
        with lease.reading_snapshot(self._source, "copy", original):
            return self._copy(original, new_id, self._base(original))

    def _copy(self, original: Manifest, new_id: str, base: tuple[Manifest, Manifest] | None) -> Copied:
        held = _Draft.take(self._target, new_id, original.vm, self._host, self._clock)
        with self._target.writer(_nobody_waits) as writer:
            disks = _Disks(self._source, self._target, writer, held, self._progress)
            copied = disks.copy(original, base)
            attachments = tuple(
                attachment.store_attachment(
                    self._target, writer, each.name, each.kind, attachment.read_attachment(self._source, each)
                )
                for each in original.attachments
            )
        held.claim({*writer.packs, *(pack.hex() for pack in writer.relied)}, base[1] if base else None)
        renamed = base[1].id if base and original.base == base[0].id else original.base
        published = replace(original, id=new_id, base=renamed, disks=copied, attachments=attachments)
        self._there[new_id] = _publish(self._target, published)
        self._taken.add(new_id)
        draft.drop(self._target, new_id)
        return Copied(original.id, new_id, original.vm, False, disks.read_bytes, writer.stored_bytes)

    def _find(self, original: Manifest) -> tuple[str, Manifest | None]:
        """The id that it has in the target, and what is there.

        It is the same, unless a copy was interrupted and its draft was given up: that id is gone for ever."""
        for new_id in map(functools.partial(_id, original.id), itertools.count()):
            found = self._there.get(new_id)
            if found is not None and (found.vm, found.created) != (original.vm, original.created):
                raise errors.HeadstartError(
                    f"There is another snapshot {new_id} in {self._target!r}: of {found.vm}. It was not touched."
                )
            if found is not None or new_id not in self._taken or not snapshot.is_revoked(self._target, new_id):
                return new_id, found
        raise AssertionError("numbers do not end")

    def _base(self, original: Manifest) -> tuple[Manifest, Manifest] | None:
        """The nearest snapshot of the VM that both have: here and there."""
        both = [
            (each, there)
            for each in self._originals
            if each.vm == original.vm and (there := self._copy_of(each)) is not None
        ]
        return min(both, key=lambda pair: abs(pair[0].created - original.created), default=None)

    def _copy_of(self, original: Manifest) -> Manifest | None:
        new_ids = map(functools.partial(_id, original.id), itertools.count())
        decided = itertools.takewhile(self._taken.__contains__, new_ids)
        return next((self._there[new_id] for new_id in decided if new_id in self._there), None)


def _check(source: Repository, target: Repository) -> None:
    if source.id == target.id:
        raise errors.Usage(
            f"{target.store!r} is the same repository as {source.store!r}, or a copy of its files. Copy its files, or "
            "name one that was made by 'headstart init'."
        )
    if source.block_size != target.block_size:
        raise errors.Usage(
            f"{target.store!r} cuts disks into blocks of {units.format_bytes(target.block_size)}, and {source.store!r} "
            f"into blocks of {units.format_bytes(source.block_size)}: nothing can be copied. Make another one."
        )


def _id(original: str, attempt: int) -> str:
    """The same each time, so that a copy that is run again finds what it has done."""
    if not attempt:
        return original
    told = hashlib.blake2b(f"copy {attempt} of {original}".encode(), digest_size=layout.OBJECT_ID_LENGTH)
    return told.hexdigest()


def _nobody_waits(tokens: list[None]) -> None:
    """Records are written after a flush."""


def _publish(target: Repository, published: Manifest) -> Manifest:
    try:
        return snapshot.publish(target, published)
    except snapshot.Revoked as error:
        raise _given_up(published.id) from error


def _is_there(repo: Repository, manifest: Manifest) -> bool:
    try:
        return snapshot.load(repo, manifest.id).id == manifest.id
    except errors.NotFound:
        return False


def _locked(target: Repository, new_id: str) -> errors.Locked:
    return errors.Locked(f"Another process copies snapshot {new_id} into {target.store!r}. Wait until it is done.")


def _given_up(new_id: str) -> errors.HeadstartError:
    return errors.HeadstartError(
        f"The copy {new_id} was given up after it had not been heard of for too long. Copy it again.",
        snapshot=new_id,
    )


@dataclass(slots=True)
class _Draft:
    """The draft in the target. ``runs`` are, by disk, numbers of records whose blocks ascend from each to the next.
    ``shifts`` of the index before anything was relied on."""

    repo: Repository
    draft: Draft
    clock: Callable[[], float]
    next_number: int
    told: float
    shifts: int
    done: dict[str, Blocks] = field(default_factory=dict)
    runs: dict[str, list[list[int]]] = field(default_factory=dict)
    last: dict[str, int] = field(default_factory=dict)

    @classmethod
    def take(cls, repo: Repository, new_id: str, vm: str, host: str, clock: Callable[[], float]) -> _Draft:
        """A new one, or that of a copy that was interrupted. Raises ``Locked``, ``Damaged``."""
        names = draft.names(repo).get(new_id, [])
        now, shifts = clock(), repo.index.shifts
        if not names:
            try:
                return cls(repo, draft.begin(repo, vm, host, now, new_id), clock, 1, now, shifts)
            except draft.Taken as error:
                raise _locked(repo, new_id) from error
        repo.holdings.adopt_all()
        held = cls(repo, Draft(new_id, vm, host), clock, len(names), now, shifts)
        for record in draft.records(repo, new_id):
            for disk, entries in record.entries.items():
                held._noted(disk, record.number, list(entries))
        held.write([], {})  # from now on whoever else is at it is refused
        return held

    def claim(self, packs: set[str], base: Manifest | None) -> None:
        """What is about to be published is in these packs, in what the records list, and below the roots of ``base``.
        Raises ``StoreFailed`` if a collector of garbage has anything of it, or may have, and if the store has lost the
        claim."""
        roots = [Root(base.id, disk.name, disk.size, disk.root) for disk in base.disks] if base else []
        self._put(draft.claim, sorted(packs), {}, roots)
        index = self.repo.index
        gone = self.repo.gone(packs)
        elsewhere = {pack.hex() for pack in index.doomed} - packs  # what else is being deleted
        swept = gone - elsewhere or (index.shifts != self.shifts and self._lacks())
        if swept or (base is not None and not _is_there(self.repo, base)):
            raise errors.StoreFailed(
                f"Something that the copy {self.draft.id} is made of was deleted from {self.repo.store!r} meanwhile."
                " Copy it again: what is missing is copied.",
                snapshot=self.draft.id,
            )

    def _lacks(self) -> bool:
        """Something that the records list is in no pack that stays."""
        return any(
            self.repo.missing(chunk_id for _, chunk_id in batch)
            for disk in self.runs
            for batch in batched(self.copied(disk), _BATCH)
        )

    def write(self, packs: Sequence[str], entries: dict[str, list[tuple[int, bytes]]]) -> None:
        """What is durable. Raises ``Locked`` when somebody else wrote this record."""
        self._put(draft.record, packs, entries)

    def _put(
        self,
        put: Callable[..., None],
        packs: Sequence[str],
        entries: dict[str, list[tuple[int, bytes]]],
        roots: Sequence[Root] = (),
    ) -> None:
        self.told = self.clock()
        try:
            put(self.repo, self.draft, self.next_number, self.told, packs, entries, roots)
        except draft.Taken as error:
            raise _locked(self.repo, self.draft.id) from error
        except snapshot.Revoked as error:
            raise _given_up(self.draft.id) from error
        for disk, pairs in entries.items():
            self._noted(disk, self.next_number, pairs)
        self.next_number += 1

    def _noted(self, disk: str, number: int, pairs: list[tuple[int, bytes]]) -> None:
        if not pairs:
            return
        lacking = set(self.repo.missing(chunk_id for _, chunk_id in pairs))
        self.done.setdefault(disk, Blocks()).update(block for block, chunk_id in pairs if chunk_id not in lacking)
        runs = self.runs.setdefault(disk, [])
        if not runs or pairs[0][0] <= self.last[disk]:
            runs.append([])
        runs[-1].append(number)
        self.last[disk] = pairs[-1][0]

    def copied(self, disk: str) -> Iterator[tuple[int, bytes]]:
        """Blocks and chunks of all records, ascending, each once. One record of each run is in memory at a time."""
        last = -1
        for block, chunk_id in heapq.merge(*(self._run(disk, run) for run in self.runs.get(disk, ()))):
            if block != last:
                yield block, chunk_id
            last = block

    def _run(self, disk: str, numbers: Iterable[int]) -> Iterator[tuple[int, bytes]]:
        for number in numbers:
            yield from draft.read(self.repo, draft.key_of(self.draft.id, number)).entries[disk]


class _Disks:
    """The disks of one snapshot."""

    def __init__(
        self, source: Repository, target: Repository, writer: Writer[None], draft: _Draft, progress: Progress
    ) -> None:
        self._source = source
        self._target = target
        self._writer = writer
        self._draft = draft
        self._progress = progress
        self._recorded = 0  # packs
        self.read_bytes = 0

    def copy(self, original: Manifest, base: tuple[Manifest, Manifest] | None) -> tuple[Disk, ...]:
        """The disks as they are in the target."""
        made = []
        total = sum(disk.size for disk in original.disks)
        begun = 0
        for disk in original.disks:
            before = self._whole(_pair(base, disk.name))
            zeroes = self._content(disk, before, lambda size, begun=begun: self._progress(begun + size, total))  # type: ignore[misc]
            made.append(replace(disk, root=self._tree(disk, before, zeroes)))
            begun += disk.size
            self._progress(begun, total)
        return tuple(made)

    def _whole(self, pair: tuple[Disk, Disk] | None) -> tuple[Disk, Disk] | None:
        """None also where parts of a tree are lost, here or there: nothing can be built on it, nor compared with it."""
        if pair is None or lost.of_disk(self._source, pair[0]).nodes or lost.of_disk(self._target, pair[1]).nodes:
            return None
        return pair

    def _content(self, disk: Disk, before: tuple[Disk, Disk] | None, looked: Callable[[int], None]) -> Blocks:
        """Copies what changed; returns those of the changed blocks that are zeroes."""
        zeroes = Blocks()
        done = self._draft.done.get(disk.name, Blocks())
        entries: list[tuple[int, bytes]] = []
        for batch in batched(self._changes(disk, before), _BATCH):
            zeroes.update(block for block, chunk_id in batch if chunk_id is None)
            wanted = [(block, chunk) for block, chunk in batch if chunk is not None and block not in done]
            ids = self._put({chunk_id for _, chunk_id in wanted})
            entries += [(block, ids[chunk_id]) for block, chunk_id in wanted]
            if len(entries) >= RECORD_BLOCKS or self._draft.clock() - self._draft.told >= RECORD_SECONDS:
                self._record(disk.name, entries)
                entries = []
            looked(min((batch[-1][0] + 1) * self._source.block_size, disk.size))
        if entries:
            self._record(disk.name, entries)
        return zeroes

    def _changes(self, disk: Disk, before: tuple[Disk, Disk] | None) -> Iterator[Change]:
        """Blocks, ascending, and the chunks that the source has there."""
        if before is None:
            yield from tree.walk(self._source, disk.root, disk.size)
            return
        here, there = before
        changed = Blocks(tree.diff(self._source, here.root, here.size, disk.root, disk.size))
        changed |= lost.of_disk(self._target, there).blocks
        if disk.size < here.size and disk.size % self._source.block_size:
            changed.add(disk.size // self._source.block_size)  # the end cuts it
        changed &= blocks.everything(disk.size, self._source.block_size)
        yield from tree.lookup(self._source, disk.root, disk.size, changed)

    def _put(self, chunk_ids: set[bytes]) -> dict[bytes, bytes]:
        """The target's id of each of the source's chunks. They are durable after a flush."""
        ids: dict[bytes, bytes] = {}
        for chunks in _frames(self._source.read_chunks(chunk_ids)):
            cuts: list[Cut[None]] = []
            start = 0
            for chunk_id, data in chunks:
                ids[chunk_id] = self._target.chunk_id(data)
                cuts.append(Cut(ids[chunk_id], start, len(data), None))
                start += len(data)
            self._writer.put_many(layout.ChunkClass.CONTENT, b"".join(data for _, data in chunks), cuts)
            self.read_bytes += start
        return ids

    def _record(self, disk: str, entries: list[tuple[int, bytes]]) -> None:
        self._writer.flush()
        packs = self._writer.packs[self._recorded :]
        self._recorded += len(packs)
        self._draft.write(packs, {disk: entries})

    def _tree(self, disk: Disk, before: tuple[Disk, Disk] | None, zeroes: Blocks) -> bytes | None:
        changes: Iterator[Change] = heapq.merge(
            self._draft.copied(disk.name), ((block, None) for block in zeroes), key=lambda change: change[0]
        )
        root, size = (before[1].root, before[1].size) if before else (None, 0)
        return tree.update(self._target, self._writer, root, size, disk.size, changes)


def _frames(chunks: Iterable[tuple[bytes, Data]]) -> Iterator[list[tuple[bytes, Data]]]:
    """As many as are stored together."""
    group: list[tuple[bytes, Data]] = []
    size = 0
    for chunk_id, data in chunks:
        if group and size + len(data) > layout.FRAME_SIZE:
            yield group
            group, size = [], 0
        group.append((chunk_id, data))
        size += len(data)
    if group:
        yield group


def _pair(base: tuple[Manifest, Manifest] | None, name: str) -> tuple[Disk, Disk] | None:
    """The disk of this name in both manifests."""
    found = [disk for manifest in base or () for disk in manifest.disks if disk.name == name]
    return (found[0], found[1]) if len(found) == 2 else None
