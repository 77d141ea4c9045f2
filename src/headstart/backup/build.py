"""What a completion needs, put into the repository: the residue from the spool, the trees, and all that stands in the
manifest, which is not written here."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator, Mapping
from operator import itemgetter

from headstart import blocks, errors
from headstart.backup import bases, losses, records
from headstart.backup.bases import Bases
from headstart.backup.context import Context
from headstart.backup.fill import Filling, filling
from headstart.backup.spooling import spool_of
from headstart.blocks import Blocks
from headstart.repository import attachment, tree
from headstart.repository import manifest as manifests
from headstart.repository.manifest import Attachment, Excluded, Manifest
from headstart.repository.repo import Repository
from headstart.state import values
from headstart.state.values import Completion, Tracked
from headstart.transfer.spool import Spool

#: Kinds of attachments.
DEFINITION = "definition"


class Building:
    """``build`` may be called again after it failed: what is stored already is not stored again."""

    def __init__(self, context: Context, vm: str, completion: Completion, disks: Mapping[str, Tracked]) -> None:
        self._context = context
        self._vm = vm
        self._completion = completion
        self._disks = disks
        #: Packs (hex) that hold what the draft has.
        self._used: set[str] = set()
        #: By disk, what was added to the store.
        self.stored_bytes: dict[str, int] = {}

    def build(self) -> Manifest:
        """Raises ``losses.Swept`` where trying again helps."""
        context, vm, completion, disks = self._context, self._vm, self._completion, self._disks
        spool = spool_of(context, vm, completion.base_mark)
        self._list()
        losses.require_none(context, vm, disks)
        size = context.repository.block_size
        excluded = {name: completion.disks[name].excluded for name in disks}
        needed = {name: each.owed - manifests.blocks_of(excluded[name], size) for name, each in disks.items()}
        rest = {name: each - context.journal.copied_blocks(vm, name) for name, each in needed.items()}
        rounds = next(iter(disks.values())).round
        self._used = set()
        with filling(context, vm, rounds, values.bytes_of(rest, disks, size)) as fill:
            for name, wanted in rest.items():
                before = fill.writer.stored_bytes
                if wanted:
                    with spool.reader(name) as reader:
                        fill.disk(disks[name], reader, wanted)
                fill.settle()
                self.stored_bytes[name] = self.stored_bytes.get(name, 0) + fill.writer.stored_bytes - before
            attachments = self._attachments(fill, spool)
            built = [self._disk(fill, each, excluded[name]) for name, each in disks.items()]
        put = {*fill.writer.packs, *(pack.hex() for pack in fill.writer.relied)}
        records.claim(context, vm, self._used | put)
        losses.require_none(context, vm, disks, put, self._used)
        self._require_bases(built)
        return Manifest(
            id=completion.id,
            vm=vm,
            created=completion.created,
            base=_base(disks),
            consistency=completion.consistency,
            host=context.host,
            installation=context.journal.installation,
            disks=tuple(built),
            attachments=attachments,
            facts={"base_mark": completion.base_mark},
        )

    def _list(self) -> None:
        """All that the draft has, and what it is built on. From here on no collector takes it."""
        draft = self._context.journal.draft(self._vm)
        assert draft is not None, "there is one, or the completion is superseded"
        records.record(self._context, self._vm, draft)

    def _require_bases(self, built: Iterable[manifests.Disk]) -> None:
        """What the trees share with their bases is there: as long as the snapshots are, it has to be. Where one was
        forgotten, the records of the draft may have come too late, so all of the tree is looked at."""
        context, disks = self._context, self._disks.values()
        gone = {each.name for each in disks if each.snapshot and bases.find(context, each.snapshot) is None}
        for disk in built:
            if disk.name in gone and not _is_whole(context.repository, disk):
                raise errors.Damaged(
                    f"The snapshot that the backup of disk {disk.name} builds on was forgotten, and swept. Nothing was"
                    " published: back up again."
                )

    def _attachments(self, fill: Filling, spool: Spool) -> tuple[Attachment, ...]:
        contents = {DEFINITION: self._completion.definition.encode()}
        contents |= {kind: spool.read_file(kind) for kind in self._completion.files}
        return tuple(
            attachment.store_attachment(self._context.repository, fill.writer, kind, kind, content)
            for kind, content in contents.items()
            if content
        )

    def _disk(self, fill: Filling, tracked: Tracked, excluded: tuple[Excluded, ...]) -> manifests.Disk:
        repo, completed = self._context.repository, self._completion.disks[tracked.name]
        # The changes apply to it: without it they would be taken for the whole disk.
        last = Bases(self._context, self._vm).require(tracked)
        root, old_size = (last.root, last.size) if last else (None, tracked.facts.size)
        without = manifests.blocks_of(excluded, repo.block_size)
        zeroes = _not_zero(repo, last, without)
        changes = heapq.merge(self._changes(tracked, tracked.owed - without), zeroes, key=itemgetter(0))
        return manifests.Disk(
            name=tracked.name,
            size=tracked.facts.size,
            format=completed.format,
            root=tree.update(repo, fill.writer, root, old_size, tracked.facts.size, changes),
            block_size=repo.block_size,
            serial=completed.serial or None,
            interface=completed.interface or None,
            facts={
                "changed_bytes": completed.changed_bytes,
                "precopied_bytes": completed.precopied_bytes,
                "residue_bytes": completed.residue_bytes,
                "reason": completed.reason,
            },
            excluded=excluded,
        )

    def _changes(self, tracked: Tracked, needed: Blocks) -> Iterator[tuple[int, bytes | None]]:
        """The draft, which holds every ``needed`` block by now. One that is missing, here or in the repository, must
        never pass."""
        context, count = self._context, 0
        for block, chunk in context.journal.copied_chunks(self._vm, tracked.name):
            if block in needed:
                if chunk is not None and chunk not in context.repository:
                    raise errors.Damaged(
                        f"Block {block} of disk {tracked.name} is in the draft, and its chunk {chunk.hex()} in no pack:"
                        " nothing was published. Back up again.",
                        object=f"chunk {chunk.hex()}",
                    )
                if chunk is not None and (found := context.repository.index.find(chunk)) is not None:
                    self._used.add(found.pack_id.hex())
                count += 1
                yield block, chunk
        if count != len(needed):
            raise errors.Damaged(
                f"The draft of disk {tracked.name} has {count} of {len(needed)} changed blocks: nothing was"
                " published. Back up again."
            )


def _is_whole(repo: Repository, disk: manifests.Disk) -> bool:
    for visited in tree.visit(repo, disk.root, disk.size, lambda _node: True):
        if isinstance(visited.slots, errors.Damaged) or visited.node_id not in repo:
            return False
        if visited.level == 0 and repo.missing(chunk for chunk in visited.slots if chunk is not None):
            return False
    return True


def _base(disks: Mapping[str, Tracked]) -> str | None:
    found = [each.snapshot for each in disks.values() if each.snapshot]
    return found[0] if found else None


def _not_zero(repo: Repository, last: manifests.Disk | None, excluded: Blocks) -> Iterator[tuple[int, bytes | None]]:
    """What the last snapshot has of what is left out: it becomes zeroes."""
    if last is None:
        return
    for first, count in blocks.runs(excluded):
        for block, _ in tree.walk(repo, last.root, last.size, first, count):
            yield block, None
