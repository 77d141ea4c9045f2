"""Blocks of a disk, a sample or all of it, compared with what the backup would say of them: the ids of their chunks in
the draft and in the last snapshot."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from headstart import blocks, reading
from headstart.backup.contact import Contact
from headstart.backup.context import Beat
from headstart.backup.plan import Sample
from headstart.blocks import Blocks
from headstart.reading import Piece, Reader
from headstart.repository import tree
from headstart.repository.repo import Repository
from headstart.state.values import Tracked

Expected = dict[int, bytes | None]

#: Blocks compared at a time when everything is: bounds the memory for ids.
WINDOW = 1 << 16
#: Of a disk's end so many blocks are compared: the guest may write some of them just before the point.
ENDS = 8


@dataclass(frozen=True, slots=True)
class Mismatch:
    """Blocks of one disk whose content is not what it should be."""

    draft: Blocks
    unchanged: Blocks
    sampled: Blocks


def ends(contact: Contact, tracked: Tracked) -> Blocks:
    """The last blocks of a disk that the last snapshot has content of and no mark has reported.

    A disk that was shrunk and grown again reads as zeroes from somewhere on, and its bitmaps lost their
    bits there: nothing tells, but these are zeroes then::

        snapshot  |data|data|    |data|    |       size then
        now       |data|0000|0000|0000|0000|       and now; in between it ended at the second block
                                   ^ compared
    """
    last = contact.bases.require(tracked)
    found = Blocks()
    if last is None:
        return found
    repo = contact.context.repository
    upper = blocks.count_of(min(last.size, tracked.facts.size), repo.block_size)
    width = repo.tree_leaf
    while upper and len(found) < ENDS:
        lower = max(0, upper - width)
        present = Blocks(block for block, _ in tree.walk(repo, last.root, last.size, lower, upper - lower))
        found |= present - tracked.owed
        upper, width = lower, 2 * width
    return found[-ENDS:]


def foresee(contact: Contact, tracked: Tracked, sample: Sample) -> Expected:
    """The chunk that each sampled block should have. Asks the store: do it before the freeze."""
    expected: Expected = dict(contact.context.journal.chunks_of(contact.name, tracked.name, sample.draft))
    last = contact.bases.require(tracked)
    if last is None:
        expected.update(dict.fromkeys(sample.unchanged))
        return expected
    # A disk that grew: what lies past the old end was zeroes.
    inside = blocks.count_of(last.size, contact.context.repository.block_size)
    found = tree.lookup(contact.context.repository, last.root, last.size, (b for b in sample.unchanged if b < inside))
    expected.update(found)
    expected.update((block, None) for block in sample.unchanged if block >= inside)
    return expected


def compare(
    contact: Contact, tracked: Tracked, reader: Reader, sample: Sample, expected: Mapping[int, bytes | None] | None
) -> Mismatch:
    """``expected`` None: look it up window by window (everything is compared)."""
    found = Blocks()
    if expected is not None:
        found |= _differing(contact, tracked, reader, sample.blocks, expected)
    else:
        for window in _windows(sample):
            found |= _differing(contact, tracked, reader, window.blocks, foresee(contact, tracked, window))
    return Mismatch(found & sample.draft, found & sample.unchanged, sample.blocks)


def differing(contact: Contact, tracked: Tracked, reader: Reader, draft: Blocks) -> Blocks:
    """The blocks of a whole disk that hold neither what the draft has nor, where it has nothing, what the last
    snapshot has, or had before it was lost."""
    everything = tracked.everything(contact.context.repository.block_size)
    found = compare(contact, tracked, reader, Sample(draft, everything - draft), None)
    return found.draft | found.unchanged | (contact.bases.lost(tracked) - draft)


def _windows(sample: Sample) -> Iterator[Sample]:
    together = sample.blocks
    for first in range(0, (together.max() + 1) if together else 0, WINDOW):
        window = Blocks()
        window.add_range(first, first + WINDOW)
        yield Sample(sample.draft & window, sample.unchanged & window)


def _differing(
    contact: Contact, tracked: Tracked, reader: Reader, wanted: Blocks, expected: Mapping[int, bytes | None]
) -> Blocks:
    repo = contact.context.repository
    extents = blocks.to_extents(wanted, repo.block_size, tracked.facts.size)
    contents = reading.by_block(_beating(reader.read(extents), contact.context.beat), repo.block_size)
    return Blocks(block for block, data in contents if not _is(repo, data, expected.get(block)))


def _is(repo: Repository, data: memoryview | None, chunk: bytes | None) -> bool:
    """The guest may be waiting for us: zeroes are compared, everything else is hashed where it lies."""
    if data is None or chunk is None:
        return chunk is None and (data is None or bytes(data) == bytes(len(data)))
    return repo.chunk_id(data) == chunk


def _beating(pieces: Iterable[Piece], beat: Beat) -> Iterator[Piece]:
    for piece in pieces:
        yield piece
        beat()
