"""After the window: the residue from the spool into the repository, the trees, and last the manifest.

Needs no VM, and may be repeated after any failure: what is stored already is not stored again, and a
manifest that exists already ends it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from headstart import blocks, errors
from headstart.backup import losses
from headstart.backup.contact import find_manifest
from headstart.backup.context import Context
from headstart.backup.fill import Filling, filling
from headstart.backup.spooling import spool_of
from headstart.blocks import Blocks
from headstart.repository import attachment, snapshot, tree
from headstart.repository import draft as leases
from headstart.repository import manifest as manifests
from headstart.repository.manifest import Attachment, Manifest
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
        found = _store(context, vm, completion, disks, stored)
        found = snapshot.publish(context.repository, found)
    else:
        snapshot.add_twin(context.repository, found.id)
    off = completion.facts.get("off", False)
    follows = [_follows_offline(each, found.id) if off else _follows(each, found.id, base) for each in disks.values()]
    context.journal.published(vm, follows, Point(found.id, found.created))
    leases.drop(context.repository, found.id)
    spool_of(context, vm, base).remove()
    return Published(found, completion.facts, stored)


#: What trying again does not mend. Nothing was published; give the completion up and back up again.
HOPELESS = (errors.Damaged, leases.Taken, snapshot.Revoked, losses.Lost, Superseded)


def _follows(tracked: Tracked, snapshot_id: str, base: str) -> Tracked:
    """From here on the marks that began with the point in time are the ones to believe."""
    return replace(tracked, base=base, snapshot=snapshot_id, entire=Blocks(), owed=Blocks(), reason="")


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
    found = find_manifest(context, completion.id)
    if found is not None and found.facts.get("base_mark") != completion.facts["base_mark"]:
        raise Superseded("Its draft became another snapshot (an old copy of the state was put back?).")
    return found


def _store(
    context: Context, vm: str, completion: Completion, disks: Mapping[str, Tracked], stored: dict[str, int]
) -> Manifest:
    spool = spool_of(context, vm, completion.facts["base_mark"])
    losses.require_none(context, vm, disks)
    rest = {name: each.owed - context.journal.copied_blocks(vm, name) for name, each in disks.items()}
    size = context.repository.block_size
    total = sum(blocks.total_bytes(found, size, disks[name].facts.size) for name, found in rest.items())
    rounds = next(iter(disks.values())).round
    with filling(context, vm, rounds, total) as fill:
        for name, wanted in rest.items():
            before = fill.writer.stored_bytes
            if wanted:
                with spool.reader(name) as reader:
                    fill.disk(disks[name], reader, wanted)
            fill.settle()
            stored[name] = fill.writer.stored_bytes - before
        attachments = _attachments(context, fill, completion, spool)
        built = [_disk(context, vm, fill, each, completion.facts["disks"][each.name]) for each in disks.values()]
    losses.require_none(context, vm, disks, {*fill.writer.packs, *context.journal.packs(vm)})
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


def _disk(context: Context, vm: str, fill: Filling, tracked: Tracked, facts: Mapping[str, Any]) -> manifests.Disk:
    repo = context.repository
    last = _last(context, tracked)
    root, old_size = (last.root, last.size) if last else (None, tracked.facts.size)
    changes = _changes(context, vm, tracked)
    return manifests.Disk(
        name=tracked.name,
        size=tracked.facts.size,
        format=facts["format"],
        root=tree.update(repo, fill.writer, root, old_size, tracked.facts.size, changes),
        block_size=repo.block_size,
        serial=facts["serial"] or None,
        interface=facts["interface"] or None,
        facts={key: facts[key] for key in ("changed_bytes", "precopied_bytes", "residue_bytes", "reason")},
    )


def _last(context: Context, tracked: Tracked) -> manifests.Disk | None:
    """The disk that the changes apply to. Without it they would be taken for the whole disk."""
    if tracked.snapshot is None:
        return None
    found = find_manifest(context, tracked.snapshot)
    for each in found.disks if found else ():
        if each.name == tracked.name:
            return each
    raise errors.Damaged(
        f"Snapshot {tracked.snapshot}, which the backup of disk {tracked.name} builds on, is gone from the"
        " repository. Nothing was published: back up again."
    )


def _changes(context: Context, vm: str, tracked: Tracked) -> Iterator[tuple[int, bytes | None]]:
    """The draft, which holds every changed block by now. One that is missing, here or in the repository, must never
    pass."""
    count = 0
    for block, chunk in context.journal.copied_chunks(vm, tracked.name):
        if block in tracked.owed:
            if chunk is not None and chunk not in context.repository:
                raise errors.Damaged(
                    f"Block {block} of disk {tracked.name} is in the draft, and its chunk {chunk.hex()} in no pack:"
                    " nothing was published. Back up again.",
                    object=f"chunk {chunk.hex()}",
                )
            count += 1
            yield block, chunk
    if count != len(tracked.owed):
        raise errors.Damaged(
            f"The draft of disk {tracked.name} has {count} of {len(tracked.owed)} changed blocks: nothing was"
            " published. Back up again."
        )
