"""Completion: one point in time over all disks, and just the residue copied from it.

::

    sample chosen, hooks   freeze  point stands  thaw   read marks  audit  trim  residue -> spool  release
    ---------------------|========================================================================|-------
                          window                                                                    upload

What has been copied ahead counts unless it was written again; the base marks say what changed at
all. After ``run`` the backup can be finished without the VM (``publish``).
"""

from __future__ import annotations

import random
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from headstart import blocks, errors, units
from headstart.backup import audit, blame, hooks, looking, plan
from headstart.backup.blame import Found
from headstart.backup.contact import Contact
from headstart.backup.hooks import Hook
from headstart.backup.identify import Identified
from headstart.backup.plan import Population, Residue, Sample
from headstart.backup.spooling import spool_of
from headstart.backup.whereabouts import Change
from headstart.blocks import Blocks
from headstart.extents import Extent
from headstart.hypervisor import freeze
from headstart.hypervisor.contract import PointInTime, PointRequest, Protects
from headstart.state.values import Completion, Tracked
from headstart.tracking.contract import Kind, Mark
from headstart.transfer.spool import Spool
from headstart.volumes.looker import Looker
from headstart.volumes.selection import LeftOut, Seen, Selected

#: What is read is let go in portions: the guest pays for less and less.
LET_GO_BYTES = 64 * units.MIB
#: Scratch space for what the guest overwrites in the window, at least.
LEAST_RESERVE = 64 * units.MIB


@dataclass(frozen=True, slots=True)
class Options:
    """``audit`` None: every block. ``plain``: nothing that was copied ahead is used. ``settle``: what changed in the
    meantime is copied by rounds right before the point in time. ``frozen``: without frozen file systems it fails.
    ``distrust``: an agent that delivered false blocks reads nothing in later runs either, until it is trusted again."""

    plain: bool = False
    audit: int | None = plan.AUDIT_BLOCKS
    freeze: bool = True
    hooks: tuple[Hook, ...] = ()
    settle: bool = True
    frozen: bool = False
    distrust: bool = True


class Doubt(errors.HeadstartError):
    """The audit found something false, and this kind of point in time has no more than was asked for.

    What was false is out of the journal: begin again."""


class Completing:
    """One completion of a VM whose newest round is ``identified``."""

    def __init__(self, contact: Contact, identified: Identified, options: Options, round_id: str) -> None:
        """``round_id`` names the marks that the next draft begins with."""
        self._contact = contact
        self._context = contact.context
        self._identified = identified
        self._options = options
        self._round = round_id
        self._block_size = contact.context.repository.block_size
        self._id = identified.draft.id
        # Of each attempt its own: marks of one that failed may come back with a copy of the image, and
        # know nothing of what was written between the two.
        self._base = self._id + secrets.token_hex(4)
        self._off = contact.machine.off
        self._drafts = {name: self._context.journal.copied_blocks(contact.name, name) for name in identified.disks}
        delivered = {name: self._context.journal.delivered_blocks(contact.name, name) for name in identified.disks}
        #: What of the drafts is the word of the agent in the guest, or of an appliance; and which is whose.
        self._delivered = {name: Blocks().union(*found.values()) for name, found in delivered.items()}
        self._by = {
            whose: {name: found.get(whose, Blocks()) for name, found in delivered.items()}
            for whose in sorted(set().union(*delivered.values()))
        }
        #: Why the point in time, which has no more than was asked for, does not do.
        self._doubts: list[str] = []
        #: What the base mark of each disk recorded up to the point.
        self._told: dict[str, Blocks] = {}
        self.failures: list[str] = []
        #: What lay on the disks at the point in time, if anything may be left out.
        self.seen: Seen | None = None
        #: By disk, what the backup is made of, once it is known.
        self.changes: dict[str, Change] = {}

    def run(self) -> None:
        """Raises ``PointLost`` (try again), ``HookFailed``, ``Doubt``, ``NoSpace``, ``Busy``."""
        spool = spool_of(self._context, self._contact.name, self._base)
        spool.create()
        try:
            self._run(spool)
        except BaseException:
            # Half a residue is of no use, and may be what fills the disk.
            spool.remove()
            raise

    def _run(self, spool: Spool) -> None:
        with looking.prepared(self._contact) as looker:
            self._complete(spool, looker)

    def _complete(self, spool: Spool, looker: Looker | None) -> None:
        samples = self._samples()
        expected = self._expected(samples)
        request = self._request(samples, {} if looker is None else looking.foreseen(self._contact, looker))
        if not self._off:
            hooks.run(self._options.hooks, hooks.BEFORE_FREEZE, self._facts())
        created = self._context.clock()
        with self._contact.machine.take(request) as point, freeze.telling(point):
            if not self._off:
                self._hook(hooks.AFTER_THAW, self._facts())
            # What the point holds must not be undone by a kill that no record tells of.
            self._contact.make_lasting([] if self._off else self._identified.disks)
            self._contact.notes += point.notes
            self._require_frozen(point)
            for name in self._identified.disks:
                self._contact.require_size(name, point.reader(name))
            residues, stale = self._residues(point)
            selected = self._select(point, looker)
            sampled, mismatched = self._audit(point, samples, expected, residues)
            residues = {name: plan.leave_out(found, selected.blocks(name)) for name, found in residues.items()}
            if self._options.audit is not None:
                for name, found in residues.items():
                    point.keep(name, found.residue)
            self._before_release(point)
            for name, found in residues.items():
                self._spool(spool, point, name, found.residue)
            self._keep_files(spool)
            point.check()
            spool.seal()
            window = point.release()
        facts = {
            "created": created,
            "base_mark": self._base,
            "consistency": point.consistency,
            "off": self._off,
            "freeze_seconds": point.freeze_seconds,
            "pause_seconds": point.pause_seconds,
            "window_seconds": window,
            "audit": {
                "sampled_bytes": sampled,
                "mismatched_bytes": mismatched,
                "agent_mismatched_bytes": self._contact.false_bytes,
                "appliance_mismatched_bytes": self._contact.appliance_false_bytes,
            },
            "disks": {name: self._disk_facts(name, found, selected) for name, found in residues.items()},
            "definition": self._contact.vm.definition or self._contact.inventory.definition,
            "files": [kind for kind, _ in self._contact.inventory.files],
        }
        self.changes = {name: self._change(name, found, selected) for name, found in residues.items()}
        self._note(residues, stale, facts)

    def _require_frozen(self, point: PointInTime) -> None:
        # Of a VM that is off nothing is under way.
        if self._options.frozen and point.consistency not in ("filesystem", "offline"):
            reasons = " ".join(point.notes) or "Nobody in the guest freezes them (qga, or Headstart's agent)."
            raise errors.PointLost(f"The guest's file systems were not frozen, which the policy asks for: {reasons}")

    @property
    def _recorded(self) -> dict[str, Tracked]:
        """The disks whose changes are recorded; of the others everything is compared."""
        return {name: each for name, each in self._identified.disks.items() if not self._contact.untracked(name)}

    # before the freeze

    def _samples(self) -> dict[str, Sample]:
        populations = {}
        for name, tracked in self._recorded.items():
            everything = blocks.everything(tracked.facts.size, self._block_size)
            delivered = self._delivered[name]
            populations[name] = Population(delivered, self._drafts[name] - delivered, everything - tracked.owed)
        samples = plan.sample(populations, self._options.audit, random.SystemRandom())
        nothing = dict.fromkeys(self._identified.disks, Sample(Blocks(), Blocks()))
        return nothing | {name: self._with_ends(name, sample) for name, sample in samples.items()}

    def _with_ends(self, name: str, sample: Sample) -> Sample:
        """Also what comes last on the disk: see ``audit.ends``."""
        draft = self._context.journal.last_copied(self._contact.name, name, audit.ENDS)
        unchanged = audit.ends(self._contact, self._identified.disks[name])
        return Sample(sample.draft | draft, sample.unchanged | unchanged)

    def _expected(self, samples: Mapping[str, Sample]) -> dict[str, audit.Expected] | None:
        if self._options.audit is None:
            return None
        disks = self._identified.disks
        return {name: audit.foresee(self._contact, disks[name], sample) for name, sample in samples.items()}

    def _request(self, samples: Mapping[str, Sample], looked_at: Mapping[str, Blocks]) -> PointRequest:
        disks, recorded = self._identified.disks, self._recorded
        start = [(name, Mark(Kind.BASE, self._base)) for name in recorded]
        start += [(name, Mark(Kind.ROUND, self._round)) for name in recorded]
        end = [(name, Mark(Kind.ROUND, tracked.round)) for name, tracked in recorded.items()]
        starts, ends = self._contact.tracker.actions(*(([], []) if self._off else (start, end)))
        reads = {name: tuple(self._marks(tracked)) for name, tracked in recorded.items()}
        wanted = {name: (tracked.owed - self._drafts[name]) | samples[name].blocks for name, tracked in disks.items()}
        wanted = {name: found | looked_at.get(name, Blocks()) for name, found in wanted.items()}
        spared = looking.spared(self._contact)
        sizes = {name: blocks.total_bytes(found - spared.get(name, Blocks()), self._block_size, disks[name].facts.size)
                 for name, found in wanted.items()}  # fmt: skip
        reserve = {name: max(LEAST_RESERVE, 2 * size) for name, size in sizes.items()}
        freezer = self._contact.freezer() if self._options.freeze and not self._off else None
        return PointRequest(starts, ends, wanted, self._options.freeze, reserve, reads, freezer)

    def _marks(self, tracked: Tracked) -> dict[str, Mark]:
        """What tells the changes of a disk, by the bitmaps' names. Of a VM that is off the draft has lost already what
        its rounds recorded."""
        marks = [Mark(Kind.BASE, tracked.base)]
        if not self._off:
            marks.append(Mark(Kind.ROUND, tracked.round))
        return self._contact.tracker.names(tracked.name, marks)

    # while the point stands

    def _residues(self, point: PointInTime) -> tuple[dict[str, Residue], dict[str, Blocks]]:
        """What is left to read; and what of the draft was written again before the point."""
        found = point.recorded()
        residues, stale = {}, {}
        for name, tracked in self._identified.disks.items():
            if name not in self._recorded:
                residues[name] = self._compare(point, tracked)
                stale[name] = residues[name].residue
                continue
            recorded, *again = (found[name][bitmap] for bitmap in self._marks(tracked))
            stale[name] = Blocks().union(*again)
            self._told[name] = recorded
            protected = point.protected(name)
            residue = plan.residue(recorded, tracked.entire, self._drafts[name], stale[name], protected)
            if not (self._drafts[name] | tracked.owed) <= (recorded | tracked.entire):
                residue = self._disbelieve(point, name, "its base bitmap lacks blocks that a round's bitmap had")
            residues[name] = residue
        self._raise_doubts()
        return residues, stale

    def _select(self, point: PointInTime, looker: Looker | None) -> Selected:
        """What the disks say now, while all of them is protected, decides what is left out."""
        if looker is None:
            return Selected()
        self.seen = looker.look(looking.at_point(point, self._block_size))
        found = looking.select(self._contact, self.seen, self._block_size)
        self._contact.notes += found.notes
        return found

    def _compare(self, point: PointInTime, tracked: Tracked) -> Residue:
        """What is to be read of a disk that nothing records: all of it is compared now. What the draft has counts
        as changed, also where that is what the last snapshot has."""
        name, draft = tracked.name, self._drafts[tracked.name]
        where = "" if self._off else " in the window"
        self._contact.note(f"disk {name} was compared as a whole{where}: {self._contact.disk(name).untracked}")
        differing = audit.differing(self._contact, tracked, point.reader(name), draft)
        return plan.residue(draft | differing, Blocks(), draft, differing, None)

    def _disbelieve(self, point: PointInTime, name: str, reason: str) -> Residue:
        """The marks of a disk lie: everything is read."""
        tracked = self._identified.disks[name]
        everything = blocks.everything(tracked.facts.size, self._block_size)
        self._contact.notes.append(f"disk {name} is read whole: {reason}")
        # Where no new base begins, none is left to be believed.
        base = "" if self._off else tracked.base
        doubted = replace(tracked, base=base, reason=reason, entire=everything, owed=everything)
        self._identified = replace(self._identified, disks={**self._identified.disks, name: doubted})
        self._drafts[name] = Blocks()
        if point.protects is Protects.WANTED:
            self._context.journal.put_disk(self._contact.name, replace(doubted, base=""))
            self._doubts.append(f"Disk {name} has to be read whole: {reason}.")
        return Residue(everything, Blocks(), everything)

    def _raise_doubts(self) -> None:
        """After all disks were looked at: what tells that a mark lies may be gone at the next attempt."""
        if self._doubts:
            raise Doubt(" ".join(self._doubts))

    def _audit(
        self,
        point: PointInTime,
        samples: Mapping[str, Sample],
        expected: Mapping[str, audit.Expected] | None,
        residues: dict[str, Residue],
    ) -> tuple[int, int]:
        """Bytes compared and bytes false. What is false is read again, with all that is like it."""
        sampled = mismatched = 0
        false = {name: Blocks() for name in samples}
        doubted = False
        standing = self._standing(point, samples, residues)
        for name, sample in standing.items():
            tracked = self._identified.disks[name]
            lookup = None if expected is None else {**expected[name], **self._added(name, sample, expected[name])}
            mismatch = audit.compare(self._contact, tracked, point.reader(name), sample, lookup)
            wrong = mismatch.draft | mismatch.unchanged
            sampled += blocks.total_bytes(mismatch.sampled, self._block_size, tracked.facts.size)
            mismatched += blocks.total_bytes(wrong, self._block_size, tracked.facts.size)
            if mismatch.unchanged:
                reason = f"{len(mismatch.unchanged)} blocks changed that its bitmap does not report"
                residues[name] = self._disbelieve(point, name, reason)
            else:
                # Where the bitmap lies, a block may have been right when the agent read it.
                false[name] = mismatch.draft & self._delivered[name]
            doubted = doubted or bool(mismatch.draft - false[name])
        for whose, theirs in self._by.items():
            lies = {name: found & theirs[name] for name, found in false.items()}
            if any(lies.values()):
                compared = sum(len(each.draft & theirs[name]) for name, each in standing.items())
                self._distrust(point, residues, whose, lies, compared)
        if doubted:
            self._contact.notes.append("the audit found false blocks in the draft: all of it is read again")
            self._discard(point, residues, self._drafts)
        self._raise_doubts()
        return sampled, mismatched

    def _standing(
        self, point: PointInTime, samples: Mapping[str, Sample], residues: Mapping[str, Residue]
    ) -> dict[str, Sample]:
        """What of the sample still counts. Of what the agent delivered others take the place of those that were
        written again, where they can be read: the guest chooses what it writes."""
        found = {
            name: Sample(sample.draft & residues[name].precopied, sample.unchanged - residues[name].changed)
            for name, sample in samples.items()
        }
        if self._options.audit is None or point.protects is Protects.WANTED:
            return found
        used = {name: self._delivered[name] & residues[name].precopied for name in self._recorded}
        rest = {name: each - found[name].draft for name, each in used.items()}
        drawn = sum(len(used[name] & found[name].draft) for name in used)
        lacking = max(0, min(self._options.audit, sum(map(len, used.values()))) - drawn)
        more = plan.draw(rest, lacking, random.SystemRandom())
        return found | {name: replace(found[name], draft=found[name].draft | each) for name, each in more.items()}

    def _added(self, name: str, sample: Sample, expected: audit.Expected) -> audit.Expected:
        """The chunks of blocks of the draft that were drawn only now: the journal knows them."""
        added = (block for block in sample.draft if block not in expected)
        return dict(self._context.journal.chunks_of(self._contact.name, name, added))

    def _distrust(
        self,
        point: PointInTime,
        residues: dict[str, Residue],
        whose: int,
        false: Mapping[str, Blocks],
        compared: int,
    ) -> None:
        """Nothing that they delivered is used, and they read nothing any longer."""
        theirs = self._by[whose]
        used = {name: theirs[name] & found.precopied for name, found in residues.items()}
        found = Found(sum(map(len, false.values())), compared, self._bytes(false), self._bytes(used))
        blame.tell(self._contact, whose, found, lasting=self._options.distrust)
        self._discard(point, residues, theirs)

    def _bytes(self, found: Mapping[str, Blocks]) -> int:
        disks = self._identified.disks
        return sum(blocks.total_bytes(each, self._block_size, disks[name].facts.size) for name, each in found.items())

    def _discard(self, point: PointInTime, residues: dict[str, Residue], gone: Mapping[str, Blocks]) -> None:
        """These blocks of the draft are not used: they are read from the point in time, or from the next one."""
        for name, each in list(gone.items()):
            found = residues[name]
            self._drafts[name] = self._drafts[name] - each
            residues[name] = Residue(found.changed, found.precopied - each, found.residue | (found.precopied & each))
            if point.protects is Protects.WANTED:
                self._context.journal.forget_copied(self._contact.name, name, each)
        if point.protects is Protects.WANTED:
            self._doubts.append("The audit found false blocks in the draft.")

    def _spool(self, spool: Spool, point: PointInTime, name: str, wanted: Blocks) -> None:
        tracked = self._identified.disks[name]
        size = self._block_size
        rest = wanted.copy()
        waiting = 0
        extents = blocks.to_extents(wanted, size, tracked.facts.size)

        def read(extent: Extent) -> None:
            nonlocal waiting
            self._context.beat()
            rest.remove_range(extent.start // size, blocks.count_of(extent.end, size))
            waiting += extent.length
            if waiting >= LET_GO_BYTES and self._options.audit is not None:
                point.keep(name, rest)
                waiting = 0

        spool.fill(name, point.reader(name), extents, read)

    def _keep_files(self, spool: Spool) -> None:
        """Small files that belong to the VM, as they are now."""
        for kind, path in self._contact.inventory.files:
            try:
                spool.keep_file(kind, path.read_bytes())
            except OSError as error:
                self.failures.append(f"{kind} ({path}) could not be read: {error.strerror}")
                spool.keep_file(kind, b"")

    # afterwards

    def _note(self, residues: Mapping[str, Residue], stale: Mapping[str, Blocks], facts: dict[str, Any]) -> None:
        disks = []
        gone: dict[str, Blocks] = {}
        for name, found in residues.items():
            tracked = self._identified.disks[name]
            noted = replace(tracked, owed=found.changed, round=self._round)
            if self._contact.layered([name]):
                # The overlays that told are committed with the next round, also if this backup is given up.
                noted = replace(noted, entire=tracked.entire | self._told[name])
            disks.append(noted)
            # Everything in the draft that is not used: written again, not believed, or left out.
            unused = stale[name] | (found.changed - found.precopied)
            gone[name] = unused & self._context.journal.copied_blocks(self._contact.name, name)
        self._context.journal.spooled(self._contact.name, Completion(self._id, facts), disks, gone)

    def _disk_facts(self, name: str, found: Residue, selected: Selected) -> dict[str, Any]:
        tracked, disk = self._identified.disks[name], self._contact.disk(name)
        chosen, size, excluded = self._contact.choice(name), tracked.facts.size, selected.blocks(name)
        told = {each.volume.name: self._left_out(each, name, size) for each in selected.left_out if name in each.blocks}
        return {
            "size": size,
            "format": disk.format,
            "serial": disk.serial,
            "interface": disk.interface,
            "changed_bytes": blocks.total_bytes(found.changed - excluded, self._block_size, size),
            "precopied_bytes": blocks.total_bytes(found.precopied, self._block_size, size),
            "residue_bytes": blocks.total_bytes(found.residue, self._block_size, size),
            "compared": bool(tracked.reason) and tracked.reason != plan.FIRST,
            "reason": tracked.reason,
            "tracking": chosen.way.value,
            "tracking_reason": chosen.why,
            "excluded_bytes": blocks.total_bytes(excluded, self._block_size, size),
            "excluded": list(told.values()),
        }

    def _change(self, name: str, found: Residue, selected: Selected) -> Change:
        size, excluded = self._identified.disks[name].facts.size, selected.blocks(name)
        return Change(size, found.changed - excluded, found.residue, excluded)

    def _left_out(self, left_out: LeftOut, disk: str, size: int) -> dict[str, Any]:
        each = left_out.volume
        extents = blocks.to_extents(left_out.blocks[disk], self._block_size, size)
        return {
            "volume": each.name,
            "content": each.content,
            "label": each.label or each.partition_label,
            "mounted": list(self.seen.mounted(each)) if self.seen is not None else [],
            "pattern": left_out.pattern,
            "extents": [{"start": extent.start, "length": extent.length} for extent in extents],
        }

    def _facts(self) -> dict[str, str]:
        return {"HEADSTART_VM": self._contact.name, "HEADSTART_SNAPSHOT": self._id}

    def _before_release(self, point: PointInTime) -> None:
        if not any(hook.event == hooks.BEFORE_RELEASE for hook in self._options.hooks):
            return
        try:
            uris = {f"HEADSTART_NBD_{hooks.variable(name)}": point.uri(name) for name in self._identified.disks}
        except errors.Unsupported as error:
            self.failures.append(f"the {hooks.BEFORE_RELEASE} hooks were not run: {error}")
            return
        self._hook(hooks.BEFORE_RELEASE, self._facts() | {name: uri for name, uri in uris.items() if uri})

    def _hook(self, event: str, facts: Mapping[str, str]) -> None:
        """The backup goes on without these: what failed is told at the end."""
        self._context.beat()
        try:
            hooks.run(self._options.hooks, event, facts)
        except errors.HookFailed as error:
            self.failures.append(str(error))
