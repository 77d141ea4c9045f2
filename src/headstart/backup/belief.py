"""What a completion believes of each disk: what its marks say, what of its draft counts, and so what is to be read.

What turns out false costs more reading: of a draft, or of a whole disk. A point in time that has only what was asked
for does not have that; then the journal is told, and the completion begins again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from headstart import errors
from headstart.backup import comparison, plan
from headstart.backup.contact import Contact
from headstart.backup.plan import Residue
from headstart.blocks import Blocks
from headstart.hypervisor.contract import PointInTime, Protects
from headstart.state import values
from headstart.state.values import Tracked
from headstart.tracking.mark import Kind, Mark


class Doubt(errors.HeadstartError):
    """Something false was found, and this kind of point in time has no more than was asked for.

    What was false is out of the journal: begin again."""


class Belief:
    """``disks``, and of each what ``drafts`` have that may be used. From ``learn`` on ``residues``, ``stale`` (what of
    the draft was written again before the point) and ``told`` (what the base mark recorded up to the point)."""

    def __init__(self, contact: Contact, disks: Mapping[str, Tracked]) -> None:
        self._contact = contact
        self._journal = contact.context.journal
        self._block_size = contact.context.repository.block_size
        self.disks = dict(disks)
        self.drafts = {name: self._journal.copied_blocks(contact.name, name) for name in disks}
        delivered = {name: self._journal.delivered_blocks(contact.name, name) for name in disks}
        #: What of the drafts is the word of the agent in the guest, or of an appliance; and which is whose.
        self.delivered = {name: Blocks().union(*found.values()) for name, found in delivered.items()}
        self.by = {
            whose: {name: found.get(whose, Blocks()) for name, found in delivered.items()}
            for whose in sorted(set().union(*delivered.values()))
        }
        self.residues: dict[str, Residue] = {}
        self.stale: dict[str, Blocks] = {}
        self.told: dict[str, Blocks] = {}
        self._doubts: list[str] = []

    @property
    def recorded_disks(self) -> dict[str, Tracked]:
        """The disks whose changes are recorded; of the others everything is compared."""
        return {name: each for name, each in self.disks.items() if not self._contact.untracked(name)}

    def marks(self, tracked: Tracked) -> dict[str, Mark]:
        """What tells the changes of a disk, by the bitmaps' names. Of a VM that is off the draft has lost already what
        its rounds recorded."""
        marks = [Mark(Kind.BASE, tracked.base)]
        if not self._contact.machine.off:
            marks.append(Mark(Kind.ROUND, tracked.round))
        return self._contact.tracker.names(tracked.name, marks)

    def learn(self, point: PointInTime) -> None:
        """What is left to read, by what the marks say at the point."""
        found = point.recorded()
        recorded_disks = self.recorded_disks
        for name, tracked in list(self.disks.items()):
            if name not in recorded_disks:
                self.residues[name] = self._compare(point, tracked)
                self.stale[name] = self.residues[name].residue
                continue
            recorded, *again = (found[name][bitmap] for bitmap in self.marks(tracked))
            self.stale[name], self.told[name] = Blocks().union(*again), recorded
            protected = point.protected(name)
            self.residues[name] = plan.residue(recorded, tracked.entire, self.drafts[name], self.stale[name], protected)
            if not (self.drafts[name] | tracked.owed) <= (recorded | tracked.entire):
                self.disbelieve(point, name, "its base bitmap lacks blocks that a round's bitmap had")
        self.require_certain()

    def _compare(self, point: PointInTime, tracked: Tracked) -> Residue:
        """What is to be read of a disk that nothing records: all of it is compared now. What the draft has counts
        as changed, also where that is what the last snapshot has."""
        name, draft = tracked.name, self.drafts[tracked.name]
        where = "" if self._contact.machine.off else " in the window"
        self._contact.note(f"disk {name} was compared as a whole{where}: {self._contact.disk(name).untracked}")
        differing = comparison.differing(self._contact, tracked, point.reader(name), draft)
        return plan.residue(draft | differing, Blocks(), draft, differing, None)

    def disbelieve(self, point: PointInTime, name: str, reason: str) -> None:
        """The marks of a disk lie: everything is read."""
        tracked = self.disks[name]
        everything = tracked.everything(self._block_size)
        self._contact.notes.append(f"disk {name} is read whole: {reason}")
        # Where no new base begins, none is left to be believed.
        base = "" if self._contact.machine.off else tracked.base
        self.disks[name] = replace(tracked, base=base, reason=reason, entire=everything, owed=everything)
        self.drafts[name] = Blocks()
        if point.protects is Protects.WANTED:
            self._journal.put_disk(self._contact.name, replace(self.disks[name], base=""))
            self._doubts.append(f"Disk {name} has to be read whole: {reason}.")
        self.residues[name] = Residue(everything, Blocks(), everything)

    def discard(self, point: PointInTime, gone: Mapping[str, Blocks]) -> None:
        """These blocks of the draft are not used: they are read from the point in time, or from the next one."""
        for name, each in list(gone.items()):
            found = self.residues[name]
            self.drafts[name] = self.drafts[name] - each
            again = found.residue | (found.precopied & each)
            self.residues[name] = Residue(found.changed, found.precopied - each, again)
            if point.protects is Protects.WANTED:
                self._journal.forget_copied(self._contact.name, name, each)
        if point.protects is Protects.WANTED:
            self._doubts.append("The audit found false blocks in the draft.")

    def leave_out(self, excluded: Mapping[str, Blocks]) -> None:
        self.residues = {
            name: plan.leave_out(found, excluded.get(name, Blocks())) for name, found in self.residues.items()
        }

    def require_certain(self) -> None:
        """Raises ``Doubt``, after all disks were looked at: what tells that a mark lies may be gone at the next
        attempt."""
        if self._doubts:
            raise Doubt(" ".join(self._doubts))

    def unused(self, name: str) -> Blocks:
        """Everything in the draft that is not used: written again, not believed, or left out."""
        found = self.residues[name]
        unused = self.stale[name] | (found.changed - found.precopied)
        return unused & self._journal.copied_blocks(self._contact.name, name)

    def bytes(self, found: Mapping[str, Blocks]) -> int:
        """Of blocks by disk."""
        return values.bytes_of(found, self.disks, self._block_size)
