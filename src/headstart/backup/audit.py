"""The audit of one completion: what is drawn before the freeze, compared while the point stands, and what becomes of
what is false."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass, replace

from headstart.backup import comparison, plan
from headstart.backup.belief import Belief
from headstart.backup.blame import Found
from headstart.backup.contact import Contact
from headstart.backup.plan import Population, Sample
from headstart.blocks import Blocks
from headstart.hypervisor.contract import PointInTime, Protects


@dataclass(frozen=True, slots=True)
class Audited:
    sampled_bytes: int = 0
    mismatched_bytes: int = 0


class Auditing:
    """Drawn, and what should be there looked up in the store, when it is made. ``wanted`` None: every block, looked up
    while it is compared. ``lasting``: who delivered false blocks is not used in later runs either."""

    def __init__(self, contact: Contact, belief: Belief, wanted: int | None, *, lasting: bool) -> None:
        self._contact = contact
        self._belief = belief
        self._wanted = wanted
        self._lasting = lasting
        self._block_size = contact.context.repository.block_size
        self.samples = self._draw()
        self._expected: dict[str, comparison.Expected] | None = None
        if wanted is not None:
            self._expected = {
                name: comparison.foresee(contact, belief.disks[name], sample) for name, sample in self.samples.items()
            }

    def _draw(self) -> dict[str, Sample]:
        belief, populations = self._belief, {}
        for name, tracked in belief.recorded_disks.items():
            delivered = belief.delivered[name]
            populations[name] = Population(
                delivered, belief.drafts[name] - delivered, tracked.everything(self._block_size) - tracked.owed
            )
        samples = plan.sample(populations, self._wanted, random.SystemRandom())
        nothing = dict.fromkeys(belief.disks, Sample(Blocks(), Blocks()))
        return nothing | {name: self._with_ends(name, sample) for name, sample in samples.items()}

    def _with_ends(self, name: str, sample: Sample) -> Sample:
        """Also what comes last on the disk: see ``comparison.ends``."""
        draft = self._contact.context.journal.last_copied(self._contact.name, name, comparison.ENDS)
        unchanged = comparison.ends(self._contact, self._belief.disks[name])
        return Sample(sample.draft | draft, sample.unchanged | unchanged)

    def run(self, point: PointInTime) -> Audited:
        """What is false is read again, with all that is like it. Raises ``Doubt``."""
        belief = self._belief
        false = {name: Blocks() for name in self.samples}
        sampled: dict[str, Blocks] = {}
        wrong: dict[str, Blocks] = {}
        doubted = False
        standing = self._standing(point)
        for name, sample in standing.items():
            lookup = None if self._expected is None else self._expected[name] | self._added(name, sample)
            mismatch = comparison.compare(self._contact, belief.disks[name], point.reader(name), sample, lookup)
            sampled[name], wrong[name] = mismatch.sampled, mismatch.draft | mismatch.unchanged
            if mismatch.unchanged:
                reason = f"{len(mismatch.unchanged)} blocks changed that its bitmap does not report"
                belief.disbelieve(point, name, reason)
            else:
                # Where the bitmap lies, a block may have been right when the agent read it.
                false[name] = mismatch.draft & belief.delivered[name]
            doubted = doubted or bool(mismatch.draft - false[name])
        for whose, theirs in belief.by.items():
            lies = {name: found & theirs[name] for name, found in false.items()}
            if any(lies.values()):
                compared = sum(len(each.draft & theirs[name]) for name, each in standing.items())
                self._distrust(point, whose, lies, compared)
        if doubted:
            self._contact.notes.append("the audit found false blocks in the draft: all of it is read again")
            belief.discard(point, belief.drafts)
        belief.require_certain()
        return Audited(belief.bytes(sampled), belief.bytes(wrong))

    def _standing(self, point: PointInTime) -> dict[str, Sample]:
        """What of the sample still counts. Of what the agent delivered others take the place of those that were
        written again, where they can be read: the guest chooses what it writes."""
        belief, residues = self._belief, self._belief.residues
        found = {
            name: Sample(sample.draft & residues[name].precopied, sample.unchanged - residues[name].changed)
            for name, sample in self.samples.items()
        }
        if self._wanted is None or point.protects is Protects.WANTED:
            return found
        used = {name: belief.delivered[name] & residues[name].precopied for name in belief.recorded_disks}
        rest = {name: each - found[name].draft for name, each in used.items()}
        drawn = sum(len(used[name] & found[name].draft) for name in used)
        lacking = max(0, min(self._wanted, sum(map(len, used.values()))) - drawn)
        more = plan.draw(rest, lacking, random.SystemRandom())
        return found | {name: replace(found[name], draft=found[name].draft | each) for name, each in more.items()}

    def _added(self, name: str, sample: Sample) -> comparison.Expected:
        """The chunks of blocks of the draft that were drawn only now: the journal knows them."""
        known = self._expected[name] if self._expected is not None else {}
        added = (block for block in sample.draft if block not in known)
        return dict(self._contact.context.journal.chunks_of(self._contact.name, name, added))

    def _distrust(self, point: PointInTime, whose: int, false: Mapping[str, Blocks], compared: int) -> None:
        """Nothing that they delivered is used, and they read nothing any longer."""
        belief = self._belief
        theirs = belief.by[whose]
        used = {name: theirs[name] & found.precopied for name, found in belief.residues.items()}
        found = Found(sum(map(len, false.values())), compared, belief.bytes(false), belief.bytes(used))
        self._contact.notes.append(self._contact.blamed.add(whose, found, lasting=self._lasting))
        belief.discard(point, theirs)
