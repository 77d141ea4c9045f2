"""Completion: one point in time over all disks, and just the residue copied from it.

::

    sample chosen, hooks   freeze  point stands  thaw   read marks  audit  trim  residue -> spool  release
    ---------------------|========================================================================|-------
                          window                                                                    upload

What has been copied ahead counts unless it was written again; the base marks say what changed at
all. After ``run`` the backup can be finished without the VM (``publish``).
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass, replace

from headstart import blocks, errors, units
from headstart.backup import completed, hooks, looking, plan
from headstart.backup.audit import Auditing
from headstart.backup.belief import Belief
from headstart.backup.contact import Contact
from headstart.backup.hooks import Hook
from headstart.backup.identify import Identified
from headstart.backup.plan import Sample
from headstart.backup.spooling import spool_of
from headstart.backup.whereabouts import Change
from headstart.blocks import Blocks
from headstart.extents import Extent
from headstart.hypervisor import freeze
from headstart.hypervisor.contract import PointInTime, PointRequest
from headstart.state.values import AuditReport, Completion
from headstart.tracking.mark import Kind, Mark
from headstart.transfer.spool import Spool
from headstart.volumes.looker import Looker
from headstart.volumes.selection import Seen, Selected

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


class Completing:
    """One completion of a VM whose newest round is ``identified``."""

    def __init__(self, contact: Contact, identified: Identified, options: Options, round_id: str) -> None:
        """``round_id`` names the marks that the next draft begins with."""
        self._contact = contact
        self._context = contact.context
        self._options = options
        self._round = round_id
        self._block_size = contact.context.repository.block_size
        self._id = identified.draft.id
        # Of each attempt its own: marks of one that failed may come back with a copy of the image, and
        # know nothing of what was written between the two.
        self._base = self._id + secrets.token_hex(4)
        self._off = contact.machine.off
        self._belief = Belief(contact, identified.disks)
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
            with looking.prepared(self._contact) as looker:
                self._complete(spool, looker)
        except BaseException:
            # Half a residue is of no use, and may be what fills the disk.
            spool.remove()
            raise

    def _complete(self, spool: Spool, looker: Looker | None) -> None:
        options, belief = self._options, self._belief
        auditing = Auditing(self._contact, belief, options.audit, lasting=options.distrust)
        looked_at = {} if looker is None else looking.foreseen(self._contact, looker)
        request = self._request(auditing.samples, looked_at)
        if not self._off:
            hooks.run(options.hooks, hooks.BEFORE_FREEZE, self._names())
        created = self._context.clock()
        with self._contact.machine.take(request) as point, freeze.telling(point):
            if not self._off:
                self._hook(hooks.AFTER_THAW, self._names())
            # What the point holds must not be undone by a kill that no record tells of.
            self._contact.make_lasting([] if self._off else belief.disks)
            self._contact.notes += point.notes
            self._require_frozen(point)
            for name in belief.disks:
                self._contact.require_size(name, point.reader(name))
            belief.learn(point)
            selected = self._select(point, looker)
            audited = auditing.run(point)
            belief.leave_out({name: selected.blocks(name) for name in belief.disks})
            self._keep_residue(point)
            self._before_release(point)
            for name in belief.disks:
                self._spool(spool, point, name)
            self._keep_files(spool)
            point.check()
            spool.seal()
            window = point.release()
        completion = Completion(
            id=self._id,
            created=created,
            base_mark=self._base,
            consistency=point.consistency,
            off=self._off,
            freeze_seconds=point.freeze_seconds,
            pause_seconds=point.pause_seconds,
            window_seconds=window,
            audit=AuditReport(
                audited.sampled_bytes,
                audited.mismatched_bytes,
                self._contact.blamed.agent_bytes,
                self._contact.blamed.appliance_bytes,
            ),
            disks=completed.of_disks(self._contact, belief, selected, self.seen),
            definition=self._contact.vm.definition or self._contact.inventory.definition,
            files=tuple(kind for kind, _ in self._contact.inventory.files),
        )
        self.changes = completed.changes(belief, selected)
        self._note(completion)

    def _require_frozen(self, point: PointInTime) -> None:
        # A VM that is off has nobody who could freeze anything, however it came to be off.
        if self._options.frozen and point.consistency not in ("filesystem", "offline"):
            reasons = " ".join(point.notes) or "Nobody in the guest freezes them (qga, or Headstart's agent)."
            raise errors.PointLost(f"The guest's file systems were not frozen, which the policy asks for: {reasons}")

    # before the freeze

    def _request(self, samples: Mapping[str, Sample], looked_at: Mapping[str, Blocks]) -> PointRequest:
        belief = self._belief
        disks, recorded = belief.disks, belief.recorded_disks
        start = [(name, Mark(Kind.BASE, self._base)) for name in recorded]
        start += [(name, Mark(Kind.ROUND, self._round)) for name in recorded]
        end = [(name, Mark(Kind.ROUND, tracked.round)) for name, tracked in recorded.items()]
        starts, ends = self._contact.tracker.actions(*(([], []) if self._off else (start, end)))
        reads = {name: tuple(belief.marks(tracked)) for name, tracked in recorded.items()}
        wanted = {name: (tracked.owed - belief.drafts[name]) | samples[name].blocks for name, tracked in disks.items()}
        wanted = {name: found | looked_at.get(name, Blocks()) for name, found in wanted.items()}
        spared = looking.spared(self._contact)
        # Where a point in time has only what is wanted, all of what is compared is.
        compared = {name: each.everything(self._block_size) for name, each in disks.items() if name not in recorded}
        sizes = {name: belief.bytes({name: found - spared.get(name, Blocks())}) for name, found in wanted.items()}
        reserve = {name: max(LEAST_RESERVE, 2 * size) for name, size in sizes.items()}
        freezer = self._contact.freezer() if self._options.freeze and not self._off else None
        return PointRequest(starts, ends, wanted | compared, self._options.freeze, reserve, reads, freezer)

    # while the point stands

    def _select(self, point: PointInTime, looker: Looker | None) -> Selected:
        """What the disks say now, while all of them is protected, decides what is left out."""
        if looker is None:
            return Selected()
        self.seen = looker.look(looking.at_point(point, self._block_size))
        found = looking.select(self._contact, self.seen, self._block_size)
        self._contact.notes += found.notes
        return found

    def _keep_residue(self, point: PointInTime) -> None:
        """All else is let go. Not where everything is compared: then it was the only look at it."""
        if self._options.audit is not None:
            for name, found in self._belief.residues.items():
                point.keep(name, found.residue)

    def _spool(self, spool: Spool, point: PointInTime, name: str) -> None:
        wanted, disk_size = self._belief.residues[name].residue, self._belief.disks[name].facts.size
        size = self._block_size
        rest = wanted.copy()
        waiting = 0
        extents = blocks.to_extents(wanted, size, disk_size)

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

    def _note(self, completion: Completion) -> None:
        belief, disks = self._belief, []
        for name, found in belief.residues.items():
            tracked = belief.disks[name]
            noted = replace(tracked, owed=found.changed, round=self._round)
            if self._contact.layered([name]):
                # The overlays that told are committed with the next round, also if this backup is given up.
                noted = replace(noted, entire=tracked.entire | belief.told[name])
            disks.append(noted)
        gone = {name: belief.unused(name) for name in belief.disks}
        self._context.journal.spooled(self._contact.name, completion, disks, gone)

    # hooks

    def _names(self) -> dict[str, str]:
        return {"HEADSTART_VM": self._contact.name, "HEADSTART_SNAPSHOT": self._id}

    def _before_release(self, point: PointInTime) -> None:
        if not any(hook.event == hooks.BEFORE_RELEASE for hook in self._options.hooks):
            return
        try:
            uris = {f"HEADSTART_NBD_{hooks.variable(name)}": point.uri(name) for name in self._belief.disks}
        except errors.Unsupported as error:
            self.failures.append(f"the {hooks.BEFORE_RELEASE} hooks were not run: {error}")
            return
        self._hook(hooks.BEFORE_RELEASE, self._names() | {name: uri for name, uri in uris.items() if uri})

    def _hook(self, event: str, facts: Mapping[str, str]) -> None:
        """The backup goes on without these: what failed is told at the end."""
        self._context.beat()
        try:
            hooks.run(self._options.hooks, event, facts)
        except errors.HookFailed as error:
            self.failures.append(str(error))
