"""Performing part of the backup ahead of time: identified blocks go into the draft."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

from headstart.backup import comparison, division, looking, records, transport
from headstart.backup.contact import Contact
from headstart.backup.division import Readers
from headstart.backup.fill import Filling, filling
from headstart.backup.identify import Identified
from headstart.backup.pace import AtOnce, Pace
from headstart.backup.report import PrecopyReport
from headstart.backup.transport import Source, Transport, Wanted
from headstart.blocks import Blocks
from headstart.hypervisor.contract import Migrating
from headstart.load.throttle import Halted, Permit
from headstart.reading import Reader
from headstart.state import values
from headstart.state.values import Tracked
from headstart.tracking.mark import Kind, Mark

AT_ONCE = AtOnce()


def run(
    contact: Contact, identified: Identified, wanted: Wanted, *, compare: bool = True, pace: Pace = AT_ONCE
) -> PrecopyReport:
    """Copy what remains, from the running disks, as ``pace`` says. ``compare``: also of disks that nothing records,
    which are read whole to find out."""
    began = time.monotonic()
    disks, size = dict(identified.disks), contact.context.repository.block_size
    chosen = pace.chosen(contact, identified, remaining(contact, disks))
    unknown = [name for name in disks if compare and contact.untracked(name)]
    performed = _Round(contact, identified, disks, chosen, unknown)
    if unknown or any(chosen.values()):
        performed.perform(wanted, pace)
    after = remaining(contact, disks)
    reported = {**identified.reported, **{name: chosen[name] for name in unknown}}
    return PrecopyReport(
        vm=contact.name,
        round=identified.draft.rounds,
        transport=Transport.AGENT.value if contact.vm.guest_only else _told(performed.by),
        identified_bytes=values.bytes_of(reported, disks, size),
        copied_bytes=performed.read_bytes,
        stored_bytes=performed.stored_bytes,
        remaining_bytes=values.bytes_of(after, disks, size),
        identify_seconds=identified.seconds,
        seconds=identified.seconds + time.monotonic() - began,
        notes=(*contact.notes, *_unreadable(contact, after)),
        halted=performed.halted,
    )


@dataclass(slots=True)
class _Round:
    """``disks``, and what is ``chosen`` of each; of those that are ``unknown`` both are found out by comparing. Then
    what it came to: ``halted`` is why it ended early."""

    contact: Contact
    identified: Identified
    disks: dict[str, Tracked]
    chosen: dict[str, Blocks]
    unknown: Sequence[str]
    by: set[Transport] = field(default_factory=set)
    read_bytes: int = 0
    stored_bytes: int = 0
    halted: str = ""

    def perform(self, wanted: Wanted, pace: Pace) -> None:
        contact, size = self.contact, self.contact.context.repository.block_size
        total = values.bytes_of(self.chosen, self.disks, size)
        read = {name: found for name, found in self.chosen.items() if found}
        read |= {name: self.disks[name].everything(size) for name in self.unknown}
        with (
            filling(contact.context, contact.name, self.identified.round, total, self._believe) as fill,
            transport.sources(contact, read, wanted) as sources,
            Readers(contact, fill, sources, elsewhere=Transport.HOST in transport.ways(wanted)) as readers,
        ):
            permit = pace.permit(contact)
            try:
                for name, source in sources.disks.items():
                    self._read(fill, readers, name, source, permit)
                readers.settle()
            except (Halted, Migrating) as error:
                self.halted = str(error)
                readers.give_up()
            # While the sources stand: what they show may be on the disk by itself (``Bitmaps.flush``).
            fill.settle()
        self.by, self.read_bytes = readers.by, fill.done
        self.stored_bytes = fill.writer.stored_bytes + readers.stored_bytes
        draft = contact.context.journal.draft(contact.name) or self.identified.draft
        records.record(contact.context, contact.name, draft)

    def _read(self, fill: Filling, readers: Readers, name: str, source: Source, permit: Permit | None) -> None:
        contact, size = self.contact, self.contact.context.repository.block_size
        contact.require_size(name, source.reader)
        asking = division.asking(source, permit)
        if name in self.unknown:
            self.disks[name] = _look(contact, self.disks[name], asking.reader)
            self.chosen[name] = remaining(contact, {name: self.disks[name]})[name]
            fill.expect(values.bytes_of({name: self.chosen[name]}, self.disks, size))
        readers.disk(self.disks[name], asking, self.chosen[name], permit)

    def _believe(self, read: Collection[str]) -> None:
        self.contact.make_lasting(read)
        mark = Mark(Kind.ROUND, self.identified.round)
        self.contact.require_standing(dict.fromkeys(self.chosen, mark))


def _look(contact: Contact, tracked: Tracked, reader: Reader) -> Tracked:
    """Find out by comparing what is to be copied of a disk that nothing records. What the draft had there is
    another content: it leaves it."""
    journal = contact.context.journal
    differing = comparison.differing(contact, tracked, reader, journal.copied_blocks(contact.name, tracked.name))
    journal.forget_copied(contact.name, tracked.name, differing)
    owed = differing | journal.copied_blocks(contact.name, tracked.name)
    looked = replace(tracked, owed=owed)
    journal.put_disk(contact.name, looked)
    return looked


def _told(by: set[Transport]) -> str:
    """``agent``, ``host``, ``appliance``, or several of them."""
    return "+".join(sorted(each.value for each in by)) or Transport.HOST.value


def remaining(contact: Contact, disks: Mapping[str, Tracked]) -> dict[str, Blocks]:
    """Identified and not in the draft, by disk; without what will probably be left out."""
    journal, spared = contact.context.journal, looking.spared(contact)
    return {
        name: tracked.owed - journal.copied_blocks(contact.name, name) - spared.get(name, Blocks())
        for name, tracked in disks.items()
    }


def _unreadable(contact: Contact, wanted: Mapping[str, Blocks]) -> list[str]:
    return [
        f"disk {disk.name} is not copied ahead: {disk.unreadable}"
        for disk in contact.inventory.disks
        if disk.unreadable and wanted.get(disk.name)
    ]
