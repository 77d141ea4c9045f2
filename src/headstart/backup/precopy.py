"""Performing part of the backup ahead of time: identified blocks go into the draft."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace

from headstart.appliance.crew import Crew
from headstart.backup import comparison, looking, records, slices, transport
from headstart.backup.appliances import Foreman
from headstart.backup.contact import Contact
from headstart.backup.fill import Filling, filling
from headstart.backup.identify import Identified
from headstart.backup.pace import AtOnce, Pace
from headstart.backup.report import PrecopyReport
from headstart.backup.transport import Source, Sources, Transport, Wanted
from headstart.blocks import Blocks
from headstart.guest.channel import Lost, Refused
from headstart.hypervisor.contract import Migrating
from headstart.load.throttle import Halted, Permit, ThrottledReader
from headstart.reading import Reader
from headstart.state import values
from headstart.state.values import Tracked
from headstart.tracking.mark import Kind, Mark

AT_ONCE = AtOnce()
#: An agent at the lowest priority takes some 15 ms to answer at all.
AGENT_PORTIONS = 3


def run(
    contact: Contact, identified: Identified, wanted: Wanted, *, compare: bool = True, pace: Pace = AT_ONCE
) -> PrecopyReport:
    """Copy what remains, from the running disks, as ``pace`` says. ``compare``: also of disks that nothing records,
    which are read whole to find out."""
    began = time.monotonic()
    disks, size = dict(identified.disks), contact.context.repository.block_size
    before = pace.chosen(contact, identified, remaining(contact, disks))
    halted = ""
    unknown = [name for name in disks if compare and contact.untracked(name)]
    stored = read = 0
    by: set[Transport] = set()
    if unknown or any(before.values()):
        total = values.bytes_of(before, disks, size)
        chosen = {name: found for name, found in before.items() if found}
        chosen |= {name: disks[name].everything(size) for name in unknown}
        marks = {name: Mark(Kind.ROUND, identified.round) for name in before}

        def believe(read: Collection[str]) -> None:
            contact.make_lasting(read)
            contact.require_standing(marks)

        with (
            filling(contact.context, contact.name, identified.round, total, believe) as fill,
            transport.sources(contact, chosen, wanted) as sources,
            _Copying(contact, fill, sources, elsewhere=Transport.HOST in transport.ways(wanted)) as copying,
        ):
            permit = pace.permit(contact)
            try:
                for name, source in sources.disks.items():
                    contact.require_size(name, source.reader)
                    asking = replace(source, reader=_asking(source, permit))
                    if name in unknown:
                        disks[name] = _look(contact, disks[name], asking.reader)
                        before[name] = remaining(contact, {name: disks[name]})[name]
                        fill.expect(values.bytes_of({name: before[name]}, disks, size))
                    copying.disk(disks[name], asking, before[name], permit)
                copying.settle()
            except (Halted, Migrating) as error:
                halted = str(error)
                copying.give_up()
            # While the sources stand: what they show may be on the disk by itself (``Bitmaps.flush``).
            fill.settle()
        by = copying.by
        read = fill.done
        stored = fill.writer.stored_bytes + copying.stored_bytes
        records.record(contact.context, contact.name, contact.context.journal.draft(contact.name) or identified.draft)
    after = remaining(contact, disks)
    reported = {**identified.reported, **{name: before[name] for name in unknown}}
    return PrecopyReport(
        vm=contact.name,
        round=identified.draft.rounds,
        transport=Transport.AGENT.value if contact.vm.guest_only else _told(by),
        identified_bytes=values.bytes_of(reported, disks, size),
        copied_bytes=read,
        stored_bytes=stored,
        remaining_bytes=values.bytes_of(after, disks, size),
        identify_seconds=identified.seconds,
        seconds=identified.seconds + time.monotonic() - began,
        notes=(*contact.notes, *_unreadable(contact, after)),
        halted=halted,
    )


def _asking(source: Source, permit: Permit | None) -> Reader:
    if permit is None:
        return source.reader
    if source.sliced:
        return ThrottledReader(source.reader, _Coarse(permit))
    return ThrottledReader(source.reader, permit, AGENT_PORTIONS if source.by is Transport.AGENT else 1)


@dataclass(frozen=True, slots=True)
class _Coarse:
    """A permit that is asked for portions that are worth a point in time."""

    inner: Permit

    def portion(self) -> int:
        return max(self.inner.portion(), slices.PORTION)

    def wait(self, count: int) -> None:
        self.inner.wait(count)

    def check(self) -> None:
        self.inner.check()


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


class _Copying:
    """Each disk by whom it is for. A context manager; inside, appliances may work. ``elsewhere``: what they lose is
    read by this host."""

    def __init__(self, contact: Contact, fill: Filling, sources: Sources, *, elsewhere: bool) -> None:
        self._contact = contact
        self._fill = fill
        self._elsewhere = elsewhere
        offered = {name: source.offered for name, source in sources.disks.items() if source.offered is not None}
        self._foreman = Foreman(contact, fill)
        self._crew = Crew(contact.context.repository, offered, self._foreman)
        for remote in sources.appliances if offered else ():
            self._crew.join(remote)
        #: Those that appliances have read, and how this host would.
        self._given: dict[str, tuple[Tracked, Source]] = {}
        self._by: set[Transport] = set()

    @property
    def by(self) -> set[Transport]:
        return self._by | ({Transport.APPLIANCE} if self._foreman.delivered else set())

    @property
    def stored_bytes(self) -> int:
        """By others than the writer of this host."""
        return self._crew.stored_bytes

    def disk(self, tracked: Tracked, source: Source, wanted: Blocks, permit: Permit | None) -> None:
        if source.by is not Transport.APPLIANCE:
            self._by.add(source.by)
            _copy(self._contact, self._fill, tracked, source, wanted)
            return
        self._given[tracked.name] = (tracked, source)
        self._rest(tracked.name, self._crew.copy(tracked.name, wanted, permit))

    def _rest(self, name: str, wanted: Blocks) -> None:
        """What no appliance has copied."""
        tracked, source = self._given[name]
        if wanted and self._elsewhere:
            self._by.add(Transport.HOST)
            _copy(self._contact, self._fill, tracked, source, wanted)
        elif wanted:
            self._contact.note(f"the rest of disk {name} remains to be copied: no appliance is left")

    def settle(self) -> None:
        """Everything counts that can."""
        for name, wanted in self._crew.settle().items():
            self._rest(name, wanted)

    def give_up(self) -> None:
        """What was copied counts, and nothing more is read."""
        self._crew.settle()

    def __enter__(self) -> _Copying:
        return self

    def __exit__(self, *details: object) -> None:
        self._crew.close()


def _copy(contact: Contact, fill: Filling, tracked: Tracked, source: Source, wanted: Blocks) -> None:
    """An agent that fails costs the rest of the round: what it had delivered counts."""
    inside = source.by is Transport.AGENT
    try:
        sparing = inside and bool(contact.layered([tracked.name]))
        fill.disk(tracked, source.reader, wanted, delivered=inside, sparing=sparing)
    except (Lost, Refused, slices.NotNow) as error:
        # That of a guest without a hypervisor is the machine's: what is read of it has still to be counted.
        if inside and isinstance(error, Lost):
            contact.inside.lost(error)
        contact.note(f"the rest of disk {tracked.name} remains to be copied: {error}")


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
