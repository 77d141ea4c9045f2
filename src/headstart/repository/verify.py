"""Reading back: each chunk that the snapshots need, once, and what is damaged for whom.

First the trees are walked, each shared node once, then the chunks are read in the order in which they lie in the
packs; of a whole repository all that are stored, also those that no snapshot needs: the next backup may. Only if
something is damaged the trees are walked again, to find the disks and ranges that need it.

Of a part of the packs only the chunks are left out: all other objects are looked at, all trees are walked, and each
pack has to be there with its length. Without the content secret chunks are compared with the digests that their packs
tell of them.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass

from headstart import errors, extents
from headstart.batches import batched
from headstart.blocks import Blocks
from headstart.extents import Extent
from headstart.repository import census, layout, loss, pack, sealed, snapshot, tree
from headstart.repository.census import Census, Remembered
from headstart.repository.loss import Copies
from headstart.repository.manifest import Disk, Manifest
from headstart.repository.repo import Repository
from headstart.repository.selection import Everything, Selection
from headstart.repository.table import Location
from headstart.store.contract import Missing

#: Called with the bytes of chunks that were read, and of all that are to be.
Progress = Callable[[int, int], None]

#: Chunks read in one go.
_BATCH = 1 << 14

Wanted = tuple[bytes, Location]


@dataclass(frozen=True, slots=True)
class Touched:
    """Where a damaged object is needed: parts of a disk, or an attachment as a whole (no extents)."""

    snapshot: str
    vm: str
    name: str
    extents: tuple[Extent, ...]


@dataclass(frozen=True, slots=True)
class Finding:
    """One damaged or missing object, and what of the verified snapshots needs it (nothing: it is spare)."""

    object: str
    message: str
    touched: tuple[Touched, ...]


@dataclass(frozen=True, slots=True)
class Report:
    """What was verified. Sound when there are no findings. ``bytes`` are those of the chunks, uncompressed. So many
    ``packs`` were read, of ``packs_there``."""

    snapshots: int
    chunks: int
    bytes: int
    findings: tuple[Finding, ...]
    packs: int = 0
    packs_there: int = 0


@dataclass(frozen=True, slots=True)
class Examination:
    """What a repair goes by. ``copies`` are bad, by pack."""

    report: Report
    census: Census
    copies: Mapping[bytes, Copies]


_EVERYTHING = Everything()


def verify_all(
    repo: Repository,
    progress: Progress,
    remembered: Remembered = census.NOTHING,
    selection: Selection = _EVERYTHING,
) -> Report:
    """The whole repository: every object, and every chunk that is stored in the packs that ``selection`` chooses."""
    return examine(repo, progress, remembered, selection).report


def examine(
    repo: Repository,
    progress: Progress,
    remembered: Remembered = census.NOTHING,
    selection: Selection = _EVERYTHING,
) -> Examination:
    """``verify_all`` for those who want to do something about it."""
    repo.holdings.recheck()
    repo.holdings.compare()
    repo.holdings.adopt_all()
    counted = census.take(repo, remembered)
    check = _Check(repo)
    for manifest in counted.manifests:
        check.walk(manifest)
    check.want_everything()
    packs = repo.index.packs() - repo.index.doomed
    check.read(progress, packs, selection)
    check.excuse_swept()
    found = {_object_of(error): error for error in (*counted.damaged, *check.spare.values())}
    named = {_object_of(error) for error in check.damaged.values()}
    alone = [
        Finding(name, str(error), tuple(_whole(counted.manifests, name)))
        for name, error in found.items()
        if name not in named
    ]
    findings = (*alone, *_findings(repo, check.present(counted.manifests), check.damaged, check.swept))
    report = Report(len(counted.manifests), check.chunks, check.total, findings, len(check.checked), len(packs))
    return Examination(report, counted, check.copies)


def verify(repo: Repository, manifests: Sequence[Manifest], progress: Progress) -> Report:
    """Read back and check all that these snapshots need. Does not stop at damage."""
    check = _Check(repo)
    for manifest in manifests:
        check.walk(manifest)
    check.read(progress, check.used, _EVERYTHING)
    check.excuse_swept()
    damaged = {_object_of(error): error for error in (*repo.holdings.damaged, *check.spare.values())}
    named = {_object_of(error) for error in check.damaged.values()}
    spare = [Finding(name, str(error), ()) for name, error in damaged.items() if name not in named]
    findings = (*spare, *_findings(repo, check.present(manifests), check.damaged, check.swept))
    return Report(len(manifests), check.chunks, check.total, findings, len(check.checked), len(repo.index.packs()))


def _whole(manifests: Iterable[Manifest], name: str) -> Iterator[Touched]:
    """All of a snapshot whose own manifest this is: only the twin tells of it."""
    for manifest in manifests:
        if snapshot.key_of(manifest.id) == name:
            for disk in manifest.disks:
                yield Touched(manifest.id, manifest.vm, disk.name, (Extent(0, disk.size),) if disk.size else ())


class _Check:
    """One pass over all chunks. Sets of chunks are kept as sets of positions in the index."""

    def __init__(self, repo: Repository) -> None:
        self._repo = repo
        self._nodes = Blocks()
        self._content = Blocks()
        self._rest = Blocks()  # what no snapshot needs
        self._again = Blocks()  # nodes whose content may have come from another copy
        self._node_bytes = 0
        self._content_bytes = 0
        self._sizes: dict[bytes, int] = {}
        self.used: set[bytes] = set()
        #: Packs whose own index was looked at.
        self.checked: set[bytes] = set()
        #: By pack that is damaged, whoever needs it.
        self.spare: dict[bytes, errors.Damaged] = {}
        self.copies: dict[bytes, Copies] = {}
        #: Packs that a collector of garbage deleted meanwhile.
        self.swept: set[bytes] = set()
        self.damaged: dict[bytes, errors.Damaged] = {}  # by chunk that the snapshots need

    @property
    def chunks(self) -> int:
        return len(self._nodes) + len(self._content) + len(self._rest)

    @property
    def total(self) -> int:
        """Bytes of all chunks."""
        return self._node_bytes + self._content_bytes

    def walk(self, manifest: Manifest) -> None:
        for disk in manifest.disks:
            for visited in tree.visit(self._repo, disk.root, disk.size, self._enter):
                if isinstance(visited.slots, errors.Damaged):
                    self.damaged[visited.node_id] = visited.slots
                    location = self._repo.index.find(visited.node_id)
                    if location is not None:
                        self._note(location.pack_id, visited.node_id, visited.slots)
                elif visited.level == 0:
                    self._want(chunk_id for chunk_id in visited.slots if chunk_id is not None)
        for attachment in manifest.attachments:
            self._want(attachment.chunks)

    def want_everything(self) -> None:
        self._rest = self._repo.index.believed() - self._nodes - self._content
        self._again = self._nodes
        for batch in batched(self._rest, _BATCH):
            self._content_bytes += sum(location.length for _, location in self._repo.index.copies(batch))

    def read(self, progress: Progress, packs: Set[bytes], selection: Selection) -> None:
        """What is wanted of ``packs``, as far as they are selected, and each one's own index."""
        self._sizes = dict(pack.stored(self._repo.store))
        chosen = selection.of(packs)
        if len(chosen) < len(packs):
            chosen |= {pack_id for pack_id in packs - chosen if self._is_cut(pack_id)}
            self._leave_out(chosen)
        done = self._node_bytes
        progress(done, self.total)
        for portion in self._portions(self._content | self._rest | self._again):
            for (chunk_id, location), error in self._scan(portion):
                if error is not None:
                    self._note(location.pack_id, chunk_id, error)
                    if location.position in self._content:
                        self.damaged[chunk_id] = error
                elif location.position not in self._again:
                    done += location.length
                    progress(done, self.total)
            for pack_id in dict.fromkeys(location.pack_id for _, location in portion):
                self._check_pack(pack_id)
                if pack_id not in self.copies:
                    selection.passed(pack_id)
        for pack_id in sorted(chosen - self.checked):
            self._check_pack(pack_id)

    def _is_cut(self, pack_id: bytes) -> bool:
        """Or missing."""
        size = self._repo.index.entries(pack_id).size
        return not self._repo.index.is_lost(pack_id) and self._sizes.get(pack_id) != size

    def _leave_out(self, chosen: Set[bytes]) -> None:
        """What lies in other packs is not read; the nodes that were are left in the count."""
        found = Blocks()
        self._content_bytes = 0
        for batch in batched(self._content | self._rest | self._again, _BATCH):
            for _, location in self._repo.index.copies(batch):
                if location.pack_id in chosen:
                    found.add(location.position)
                    if location.position not in self._again:
                        self._content_bytes += location.length
        self._content &= found
        self._rest &= found
        self._again = self._again & found

    def _portions(self, positions: Blocks) -> Iterator[list[Wanted]]:
        """Chunks of whole packs, about ``_BATCH`` of them at a time."""
        portion: list[Wanted] = []
        for batch in batched(positions, _BATCH):
            for wanted in self._repo.index.copies(batch):
                if len(portion) >= _BATCH and portion[-1][1].pack_id != wanted[1].pack_id:
                    yield portion
                    portion = []
                portion.append(wanted)
        if portion:
            yield portion

    def _scan(self, portion: list[Wanted]) -> Iterator[tuple[Wanted, errors.Damaged | None]]:
        """An error for each of these copies that is damaged."""
        if self._repo.secrets.opens_content:
            found = self._repo.scan_copies(location.position for _, location in portion)
            for wanted, (_, _, data) in zip(portion, found, strict=True):
                yield wanted, data if isinstance(data, errors.Damaged) else None
            return
        for pack_id, group in itertools.groupby(portion, key=lambda wanted: wanted[1].pack_id):
            chunks = list(group)
            told = sealed.scan(self._repo.secrets, self._repo.store, self._sizes.get(pack_id, 0), chunks)
            yield from zip(chunks, told, strict=True)

    def _note(self, pack_id: bytes, chunk_id: bytes, error: errors.Damaged) -> None:
        known = self.copies.get(pack_id, loss.NONE)
        if known is not None:
            self.copies[pack_id] = known | {chunk_id}
        self.spare.setdefault(pack_id, error)

    def _check_pack(self, pack_id: bytes) -> None:
        """Its own index is what the others are rebuilt from if they are lost."""
        index = self._repo.index
        self.checked.add(pack_id)
        if index.is_lost(pack_id):
            return
        try:
            if pack_id not in self._sizes:
                self._repo.store.read_range(pack.pack_key(pack_id), 0, 1)
            found = pack.read_entries(self._repo.secrets, self._repo.store, pack_id, self._sizes.get(pack_id, 0))
            if found != index.entries(pack_id):
                name = pack.pack_key(pack_id)
                raise errors.Damaged(f"{name} is damaged: it is not the pack that indexes list.", object=name)
        except errors.Damaged as error:
            self.copies[pack_id] = None
            self.spare.setdefault(pack_id, error)

    def excuse_swept(self) -> None:
        """What a collector of garbage deleted meanwhile is not missed, and what was needed of it is elsewhere."""
        missing = {pack_id for pack_id, error in self.spare.items() if isinstance(error, Missing)}
        if not missing:
            return
        self.swept = swept = self._repo.holdings.swept(missing)
        self.spare = {pack_id: error for pack_id, error in self.spare.items() if pack_id not in swept}
        self.copies = {pack_id: bad for pack_id, bad in self.copies.items() if pack_id not in swept}
        moved = [chunk for chunk, error in self.damaged.items() if pack.id_of(_object_of(error)) in swept]
        for chunk_id, found in self._repo.scan_chunks(moved):
            if not isinstance(found, errors.Damaged):
                del self.damaged[chunk_id]

    def present(self, manifests: Sequence[Manifest]) -> Sequence[Manifest]:
        """Without those that were forgotten meanwhile, if anything was swept."""
        if not self.swept:
            return manifests
        there = {name for prefix in (layout.SNAPSHOTS, layout.TWINS) for name, _ in self._repo.store.list(prefix)}
        return [each for each in manifests if {snapshot.key_of(each.id), snapshot.twin_of(each.id)} & there]

    def _enter(self, node_id: bytes) -> bool:
        if node_id in self.damaged:
            return False
        added = self._add(self._nodes, [node_id])
        self._node_bytes += sum(added)
        return bool(added)

    def _want(self, chunk_ids: Iterable[bytes]) -> None:
        self._content_bytes += sum(self._add(self._content, chunk_ids))

    def _add(self, seen: Blocks, chunk_ids: Iterable[bytes]) -> list[int]:
        """The lengths of the chunks that were not seen before. What is nowhere is damaged."""
        added: list[int] = []
        for chunk_id, location in self._repo.index.locate(chunk_ids).items():
            if isinstance(location, errors.Damaged):
                self.damaged[chunk_id] = location
            elif location.position not in seen:
                seen.add(location.position)
                self.used.add(location.pack_id)
                added.append(location.length)
        return added


def _findings(
    repo: Repository, manifests: Iterable[Manifest], damaged: dict[bytes, errors.Damaged], swept: set[bytes]
) -> Iterator[Finding]:
    """One for each damaged object, with all that needs one of its damaged chunks. Of packs that were ``swept``, only
    what is needed is missing."""
    if not damaged:
        return
    touched: dict[str, list[Touched]] = {_object_of(error): [] for error in damaged.values()}
    for manifest in manifests:
        for name, place in _touched(repo, manifest, damaged):
            touched[name].append(place)
    messages: dict[str, str] = {}
    for error in damaged.values():
        messages.setdefault(_object_of(error), str(error))
    for name in sorted(touched):
        if not touched[name] and pack.id_of(name) in swept:
            continue
        yield Finding(name, messages[name], tuple(touched[name]))


def _touched(
    repo: Repository, manifest: Manifest, damaged: dict[bytes, errors.Damaged]
) -> Iterator[tuple[str, Touched]]:
    for disk in manifest.disks:
        for name, found in _on_disk(repo, disk, damaged).items():
            merged = tuple(extents.merge(found))
            yield name, Touched(manifest.id, manifest.vm, disk.name, merged)
    for attachment in manifest.attachments:
        for name in {_object_of(damaged[chunk]) for chunk in attachment.chunks if chunk in damaged}:
            yield name, Touched(manifest.id, manifest.vm, attachment.name, ())


def _on_disk(repo: Repository, disk: Disk, damaged: dict[bytes, errors.Damaged]) -> dict[str, list[Extent]]:
    """By damaged object, where the disk needs it."""
    found: dict[str, list[Extent]] = {}
    for chunk_id, extent in _parts(repo, disk, damaged):
        found.setdefault(_object_of(damaged[chunk_id]), []).append(extent)
    return found


def _parts(repo: Repository, disk: Disk, damaged: dict[bytes, errors.Damaged]) -> Iterator[tuple[bytes, Extent]]:
    if disk.root in damaged:
        yield disk.root, Extent(0, disk.size)
        return
    for visited in tree.visit(repo, disk.root, disk.size, lambda node_id: node_id not in damaged):
        if isinstance(visited.slots, errors.Damaged):
            continue  # damaged since the first walk: the next run finds it
        span, width = tree.span_of(repo, visited.level), len(visited.slots)
        for slot, child in enumerate(visited.slots):
            if child in damaged:
                start = (visited.index * width + slot) * span * disk.block_size
                yield child, Extent(start, min(span * disk.block_size, disk.size - start))


def _object_of(error: errors.Damaged) -> str:
    return str(error.facts["object"])
