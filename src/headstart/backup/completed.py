"""What the report and the manifest tell of each disk of a completion."""

from __future__ import annotations

from headstart import blocks
from headstart.backup import plan
from headstart.backup.belief import Belief
from headstart.backup.contact import Contact
from headstart.backup.whereabouts import Change
from headstart.repository.manifest import Excluded
from headstart.state.values import CompletedDisk
from headstart.volumes.selection import LeftOut, Seen, Selected


def of_disks(contact: Contact, belief: Belief, selected: Selected, seen: Seen | None) -> dict[str, CompletedDisk]:
    return {name: _of_disk(contact, belief, name, selected, seen) for name in belief.residues}


def changes(belief: Belief, selected: Selected) -> dict[str, Change]:
    return {name: _change(belief, name, selected) for name in belief.residues}


def _of_disk(contact: Contact, belief: Belief, name: str, selected: Selected, seen: Seen | None) -> CompletedDisk:
    tracked, disk, chosen = belief.disks[name], contact.disk(name), contact.choice(name)
    size, change = tracked.facts.size, _change(belief, name, selected)
    block_size = contact.context.repository.block_size
    left_out = {each.volume.name: each for each in selected.left_out if name in each.blocks}
    return CompletedDisk(
        size=size,
        format=disk.format,
        serial=disk.serial,
        interface=disk.interface,
        changed_bytes=belief.bytes({name: change.changed}),
        precopied_bytes=belief.bytes({name: belief.residues[name].precopied}),
        residue_bytes=belief.bytes({name: change.residue}),
        compared=bool(tracked.reason) and tracked.reason != plan.FIRST,
        reason=tracked.reason,
        tracking=chosen.way.value,
        tracking_reason=chosen.why,
        excluded_bytes=belief.bytes({name: change.excluded}),
        excluded=tuple(_left_out(each, name, size, block_size, seen) for each in left_out.values()),
    )


def _change(belief: Belief, name: str, selected: Selected) -> Change:
    found, excluded = belief.residues[name], selected.blocks(name)
    return Change(belief.disks[name].facts.size, found.changed - excluded, found.residue, excluded)


def _left_out(left_out: LeftOut, disk: str, size: int, block_size: int, seen: Seen | None) -> Excluded:
    each = left_out.volume
    return Excluded(
        volume=each.name,
        content=each.content,
        label=each.label or each.partition_label,
        mounted=tuple(seen.mounted(each)) if seen is not None else (),
        pattern=left_out.pattern,
        extents=tuple(blocks.to_extents(left_out.blocks[disk], block_size, size)),
    )
