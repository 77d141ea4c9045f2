"""After the window: the residue from the spool into the repository, the trees, and last the manifest.

Needs no VM, and may be repeated after any failure: what is stored already is not stored again, and a
manifest that exists already ends it.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from operator import itemgetter
from typing import Any

from headstart import blocks, errors
from headstart.backup import losses, records
from headstart.backup.context import Context
from headstart.backup.fill import Filling, filling
from headstart.backup.spooling import spool_of
from headstart.blocks import Blocks
from headstart.repository import attachment, snapshot, tree
from headstart.repository import draft as leases
from headstart.repository import manifest as manifests
from headstart.repository.manifest import Attachment, Excluded, Manifest
from headstart.repository.repo import Repository
from headstart.state.values import Completion, Point, Tracked
from headstart.transfer.spool import Spool

#: Kinds of attachments.
DEFINITION = "definition"


class Superseded(errors.HeadstartError):
    """The completion that waits can never be published: back up again."""


@dataclass(frozen=True, slots=True)
class Published:
    """``stored_bytes``: added to the store by this step, by disk."""

    manifest: Manifest
    facts: Mapping[str, Any]
    stored_bytes: Mapping[str, int]


def run(context: Context, vm: str) -> Published:
    """Finish the completion that waits. Raises ``HOPELESS`` if that can never be done."""
    completion = context.journal.completion(vm)
    assert completion is not None, "only called with one waiting"
    base = completion.facts["base_mark"]
    disks = {name: each for name, each in context.journal.tracked(vm).items() if name in completion.facts["disks"]}
    found = _published(context, vm, completion)
    stored: dict[str, int] = {}
    if found is None:
        found = _stored(context, vm, completion, disks, stored)
        found = snapshot.publish(context.repository, found)
    else:
        snapshot.add_twin(context.repository, found.id)
    off = completion.facts.get("off", False)
    excluded = {disk.name: manifests.excluded_blocks(disk) for disk in found.disks}
    follows = [
        replace(
            _follows_offline(each, found.id) if off else _follows(each, found.id, base, excluded[each.name]),
            excluded=excluded[each.name],
        )
        for each in disks.values()
    ]
    context.journal.published(vm, follows, Point(found.id, found.created), _told(context, found, completion, stored))
    leases.drop(context.repository, found.id)
    spool_of(context, vm, base).remove()
    return Published(found, completion.facts, stored)


def _told(context: Context, found: Manifest, completion: Completion, stored: Mapping[str, int]) -> dict[str, Any]:
    """What a catalogue says of it, by the names of ``report.BackupReport``; and where it is."""
    keys = ("changed_bytes", "residue_bytes")
    disks = completion.facts["disks"]
    return {
        "snapshot": found.id,
        "vm": found.vm,
        "created": found.created,
        "consistency": found.consistency,
        "window_seconds": completion.facts["window_seconds"],
        "disks": [
            {
                "size": disk.size,
                "stored_bytes": stored.get(disk.name, 0),
                **{key: disks[disk.name][key] for key in keys},
            }
            for disk in found.disks
        ],
        "place": repr(context.repository.store),
    }


#: What trying again does not mend. Nothing was published; give the completion up and back up again.
HOPELESS = (errors.Damaged, leases.Taken, snapshot.Revoked, losses.Lost, Superseded)


def _follows(tracked: Tracked, snapshot_id: str, base: str, excluded: Blocks) -> Tracked:
    """From here on the marks that began with the point in time are the ones to believe. What was left out counts as
    changed from then on: whatever the next backup does not leave out, it reads."""
    return replace(tracked, base=base, snapshot=snapshot_id, entire=excluded, owed=excluded, reason="")


def _follows_offline(tracked: Tracked, snapshot_id: str) -> Tracked:
    """No mark began: the base goes on, and has recorded all since the snapshot before. An image that is put back may
    have it with less than that; so what was told of it counts from here on, whatever it tells later."""
    if not tracked.base:
        return replace(tracked, snapshot=snapshot_id, entire=Blocks(), owed=Blocks())
    return replace(tracked, snapshot=snapshot_id, entire=tracked.owed, reason="")


def _published(context: Context, vm: str, completion: Completion) -> Manifest | None:
    """The manifest, if an earlier try came through. Raises ``Superseded``."""
    draft = context.journal.draft(vm)
    if draft is None or draft.repository != context.repository.id:
        raise Superseded("It was begun in another repository.")
    found = records.find_manifest(context, completion.id)
    if found is not None and found.facts.get("base_mark") != completion.facts["base_mark"]:
        raise Superseded("Its draft became another snapshot (an old copy of the state was put back?).")
    return found


#: A collector deletes something else each time: more often than this it is no coincidence.
ATTEMPTS = 3


def _stored(
    context: Context, vm: str, completion: Completion, disks: Mapping[str, Tracked], stored: dict[str, int]
) -> Manifest:
    for attempt in range(1, ATTEMPTS + 1):
        try:
            return _store(context, vm, completion, disks, stored)
        except losses.Swept:
            if attempt == ATTEMPTS:
                raise
    raise AssertionError("the last attempt returns or raises")


def _store(
    context: Context, vm: str, completion: Completion, disks: Mapping[str, Tracked], stored: dict[str, int]
) -> Manifest:
    spool = spool_of(context, vm, completion.facts["base_mark"])
    _list(context, vm)
    losses.require_none(context, vm, disks)
    size = context.repository.block_size
    excluded = {name: manifests.excluded_of(completion.facts["disks"][name].get("excluded", [])) for name in disks}
    needed = {name: each.owed - manifests.blocks_of(excluded[name], size) for name, each in disks.items()}
    rest = {name: each - context.journal.copied_blocks(vm, name) for name, each in needed.items()}
    total = sum(blocks.total_bytes(found, size, disks[name].facts.size) for name, found in rest.items())
    rounds = next(iter(disks.values())).round
    used: set[str] = set()
    with filling(context, vm, rounds, total) as fill:
        for name, wanted in rest.items():
            before = fill.writer.stored_bytes
            if wanted:
                with spool.reader(name) as reader:
                    fill.disk(disks[name], reader, wanted)
            fill.settle()
            stored[name] = stored.get(name, 0) + fill.writer.stored_bytes - before
        attachments = _attachments(context, fill, completion, spool)
        built = [
            _disk(context, vm, fill, each, completion.facts["disks"][name], excluded[name], used)
            for name, each in disks.items()
        ]
    put = {*fill.writer.packs, *(pack.hex() for pack in fill.writer.relied)}
    records.claim(context, vm, used | put)
    losses.require_none(context, vm, disks, put, used)
    _require_bases(context, vm, disks.values(), built)
    return Manifest(
        id=completion.id,
        vm=vm,
        created=completion.facts["created"],
        base=_base(disks),
        consistency=completion.facts["consistency"],
        host=context.host,
        installation=context.journal.installation,
        disks=tuple(built),
        attachments=attachments,
        facts={"base_mark": completion.facts["base_mark"]},
    )


def _list(context: Context, vm: str) -> None:
    """All that the draft has, and what it is built on. From here on no collector takes it."""
    draft = context.journal.draft(vm)
    assert draft is not None, "there is one, or the completion is superseded"
    records.record(context, vm, draft)


def _require_bases(context: Context, vm: str, disks: Iterable[Tracked], built: Iterable[manifests.Disk]) -> None:
    """What the trees share with their bases is there: as long as the snapshots are, it has to be. Where one was
    forgotten, the records of the draft may have come too late, so all of the tree is looked at."""
    gone = {each.name for each in disks if each.snapshot and records.find_manifest(context, each.snapshot) is None}
    for disk in built:
        if disk.name in gone and not _is_whole(context.repository, disk):
            raise errors.Damaged(
                f"The snapshot that the backup of disk {disk.name} builds on was forgotten, and swept. Nothing was"
                " published: back up again."
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


def _attachments(context: Context, fill: Filling, completion: Completion, spool: Spool) -> tuple[Attachment, ...]:
    contents = {DEFINITION: completion.facts["definition"].encode()}
    contents |= {kind: spool.read_file(kind) for kind in completion.facts["files"]}
    return tuple(
        attachment.store_attachment(context.repository, fill.writer, kind, kind, content)
        for kind, content in contents.items()
        if content
    )


def _disk(
    context: Context,
    vm: str,
    fill: Filling,
    tracked: Tracked,
    facts: Mapping[str, Any],
    excluded: tuple[Excluded, ...],
    used: set[str],
) -> manifests.Disk:
    """``used`` gets the packs (hex) that hold what the draft has."""
    repo = context.repository
    last = _last(context, vm, tracked)
    root, old_size = (last.root, last.size) if last else (None, tracked.facts.size)
    without = manifests.blocks_of(excluded, repo.block_size)
    zeroes = _not_zero(repo, last, without)
    changes = heapq.merge(_changes(context, vm, tracked, tracked.owed - without, used), zeroes, key=itemgetter(0))
    return manifests.Disk(
        name=tracked.name,
        size=tracked.facts.size,
        format=facts["format"],
        root=tree.update(repo, fill.writer, root, old_size, tracked.facts.size, changes),
        block_size=repo.block_size,
        serial=facts["serial"] or None,
        interface=facts["interface"] or None,
        facts={key: facts[key] for key in ("changed_bytes", "precopied_bytes", "residue_bytes", "reason")},
        excluded=excluded,
    )


def _not_zero(repo: Repository, last: manifests.Disk | None, excluded: Blocks) -> Iterator[tuple[int, bytes | None]]:
    """What the last snapshot has of what is left out: it becomes zeroes."""
    if last is None:
        return
    for first, count in blocks.runs(excluded):
        for block, _ in tree.walk(repo, last.root, last.size, first, count):
            yield block, None


def _last(context: Context, vm: str, tracked: Tracked) -> manifests.Disk | None:
    """The disk that the changes apply to. Without it they would be taken for the whole disk."""
    if tracked.snapshot is None:
        return None
    found = records.base_disk(context, vm, tracked)
    if found is not None:
        return found
    raise errors.Damaged(
        f"Snapshot {tracked.snapshot}, which the backup of disk {tracked.name} builds on, is gone from the"
        " repository. Nothing was published: back up again."
    )


def _changes(
    context: Context, vm: str, tracked: Tracked, needed: Blocks, used: set[str]
) -> Iterator[tuple[int, bytes | None]]:
    """The draft, which holds every ``needed`` block by now. One that is missing, here or in the repository, must never
    pass."""
    count = 0
    for block, chunk in context.journal.copied_chunks(vm, tracked.name):
        if block in needed:
            if chunk is not None and chunk not in context.repository:
                raise errors.Damaged(
                    f"Block {block} of disk {tracked.name} is in the draft, and its chunk {chunk.hex()} in no pack:"
                    " nothing was published. Back up again.",
                    object=f"chunk {chunk.hex()}",
                )
            if chunk is not None and (found := context.repository.index.find(chunk)) is not None:
                used.add(found.pack_id.hex())
            count += 1
            yield block, chunk
    if count != len(needed):
        raise errors.Damaged(
            f"The draft of disk {tracked.name} has {count} of {len(needed)} changed blocks: nothing was"
            " published. Back up again."
        )
