"""The verbs: one round, one backup, the state of a VM. Here the parts of the method meet.

::

    precopy     meet  identify  copy
    backup      finish what a dead run spooled;  meet  (identify  copy)*  complete  publish  after-publish
"""

from __future__ import annotations

import contextlib
import secrets
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from headstart import errors
from headstart.backup import hooks, identify, losses, plan, precopy, publish, whereabouts
from headstart.backup.belief import Doubt
from headstart.backup.complete import Completing, Options
from headstart.backup.contact import Contact
from headstart.backup.context import Context
from headstart.backup.meeting import Asleep, meet
from headstart.backup.pace import Pace
from headstart.backup.publish import Published
from headstart.backup.report import BackupReport, DiskReport, PrecopyReport, VolumeReport
from headstart.backup.spooling import spool_of
from headstart.backup.transport import Transport, Wanted
from headstart.hypervisor.contract import Disturbed, NotTaken
from headstart.repository.manifest import Manifest
from headstart.state.journal import Journal
from headstart.state.noted import Noted
from headstart.state.runs import Runs
from headstart.state.values import CompletedDisk

#: A completion that finds something false, or meets a busy host, begins again; more often than this
#: something is badly wrong.
ATTEMPTS = 3
#: A VM that is being started answers within this.
STARTING_SECONDS = 30.0


def precopy_round(
    context: Context, name: str, transport: Wanted = Transport.AUTO, pace: Pace = precopy.AT_ONCE
) -> PrecopyReport:
    """One round now."""
    with running(context, name, "precopy") as report:
        _require_whole(context, name)
        earlier = _finish_spooled(context, name)
        with _telling(earlier), meet(context, context.journal.vm(name)) as contact:
            contact.notes += earlier
            done = _round(contact, transport, pace=pace)
        report.update(done.json())
        return done


def backup(context: Context, name: str, options: Options) -> BackupReport:
    """One backup now. A failure after the point in time leaves the residue in the spool: the next run
    publishes that backup first."""
    began = time.monotonic()
    with running(context, name, "backup") as report:
        _require_whole(context, name)
        earlier = _finish_spooled(context, name)
        with _telling(earlier):
            published, contact, completing = _back_up(context, name, options, earlier)
        failures = completing.failures
        facts = {"HEADSTART_VM": name, "HEADSTART_SNAPSHOT": published.manifest.id}
        failures += _after_publish(options, facts)
        volumes = _volumes(context, published.manifest, completing)
        done = replace(_report(published, contact, failures, time.monotonic() - began), volumes=volumes)
        report.update(done.json())
        return done


def _require_whole(context: Context, name: str) -> None:
    """What is half rolled back was never on the VM's disks at one moment: no restore point is made of it."""
    unfinished = Noted(context.journal).rollback(name)
    if unfinished is not None and unfinished.writing:
        raise errors.Busy(
            f"VM '{name}' is half rolled back to snapshot {unfinished.snapshot}: a rollback was interrupted. Finish it"
            f" with 'headstart rollback {name} {unfinished.snapshot}'.",
            vm=name,
            snapshot=unfinished.snapshot,
        )


def back_up_at_rest(context: Context, name: str, *, whole: bool = False) -> tuple[Manifest, list[str]]:
    """A backup of a VM that is off, within a run that has it already; and what the user should know. ``whole``: also of
    volumes that are left out as a rule. Raises ``Disturbed`` if the VM was started meanwhile."""
    earlier = _finish_spooled(context, name)
    vm = context.journal.vm(name)
    if whole:
        vm, context = replace(vm, volumes=()), replace(context, volumes=())
    with _telling(earlier), meet(context, vm, Asleep.READ) as contact:
        if not contact.machine.off:
            raise Disturbed("the VM was started just now")
        _complete_offline(contact, Options())
        return publish.run(context, name).manifest, [*earlier, *contact.notes]


def _back_up(
    context: Context, name: str, options: Options, earlier: Sequence[str]
) -> tuple[Published, Contact, Completing]:
    """Of the running VM, or of its images if it is off. One that is started meanwhile is met again, as soon as it
    answers."""
    notes, begun = list(earlier), 0
    deadline = 0.0
    while True:
        begun += 1
        try:
            with meet(context, context.journal.vm(name), Asleep.READ) as contact:
                contact.notes += notes
                done = _complete_offline(contact, options) if contact.machine.off else _complete(contact, options)
                published = publish.run(context, name)
                if not contact.machine.off:
                    _clean_up(contact)
                return published, contact, done
        except Disturbed as error:
            if begun >= ATTEMPTS:
                raise
            notes = [*notes, f"the backup was begun again: {error}"]
            deadline = time.monotonic() + STARTING_SECONDS
        except errors.Unreachable:
            begun -= 1
            if time.monotonic() >= deadline:
                raise
            time.sleep(0.2)


def _complete_offline(contact: Contact, options: Options) -> Completing:
    """Nothing is copied ahead, frozen or begun: the images are read."""
    _forget_missing(contact)
    if options.plain:
        for tracked in contact.tracked():
            contact.context.journal.forget_copied(contact.name, tracked)
    completing = Completing(contact, identify.at_rest(contact), options, secrets.token_hex(8))
    completing.run()
    contact.note("the VM was off: its images were read, and nothing in them was changed")
    return completing


def _round(contact: Contact, transport: Wanted, *, compare: bool = True, pace: Pace = precopy.AT_ONCE) -> PrecopyReport:
    _forget_missing(contact)
    return precopy.run(contact, identify.run(contact), transport, compare=compare, pace=pace)


def _complete(contact: Contact, options: Options) -> Completing:
    for attempt in range(1, ATTEMPTS + 1):
        if options.plain:
            for tracked in contact.tracked():
                contact.context.journal.forget_copied(contact.name, tracked)
        elif options.settle:
            _settle(contact)
        completing = Completing(contact, identify.run(contact), options, secrets.token_hex(8))
        try:
            completing.run()
        except (Doubt, NotTaken) as error:
            froze = error.facts.get("freeze_seconds", 0.0)
            contact.notes.append(f"the backup was begun again (the guest had been frozen for {froze:.1f} s): {error}")
            if attempt == ATTEMPTS:
                raise
        else:
            return completing
    raise AssertionError("the last attempt returns or raises")


def _settle(contact: Contact) -> None:
    """Rounds right before the completion, while they still leave less and less for the window. From outside, which
    is faster: the backup is due."""
    for number in range(1, plan.MOST_ROUNDS + 1):
        # What only comparing finds is found again at the point in time anyway.
        done = _round(contact, Transport.HOST, compare=number == 1)
        if not plan.worth_another_round(done.copied_bytes, number):
            return


def _forget_missing(contact: Contact) -> None:
    """A chunk of the draft must be in the repository: a killed run may have left its pack in no index
    object, a collector of garbage may have swept it, the store may have lost it."""
    context = contact.context
    lost = context.repository.drop_lost() - {pack.hex() for pack in context.repository.index.doomed}
    if lost:
        contact.note(f"the store has lost {len(lost)} packs ('headstart verify' tells what they held)")
    for name in context.journal.tracked(contact.name):
        if losses.missing(context, contact.name, name):
            for pack in context.journal.packs(contact.name):
                with contextlib.suppress(errors.Damaged):
                    context.repository.adopt(pack)
            gone = losses.missing(context, contact.name, name)
            context.journal.forget_copied(contact.name, name, gone)


def _finish_spooled(context: Context, name: str) -> list[str]:
    """Publish a backup whose point in time is over already, or give it up. Returns what the user should know."""
    waiting = context.journal.completion(name)
    if waiting is None:
        # What a killed completion left may be what fills the disk.
        spool_of(context, name, "").remove()
        return []
    try:
        publish.run(context, name)
        return [f"the unfinished backup {waiting.id} was published"]
    except publish.HOPELESS as error:
        context.journal.abandon_completion(name)
        return [f"the unfinished backup {waiting.id} was given up: {error}"]


def finish(context: Context, name: str) -> list[str]:
    """Publish a backup that waits in the spool; the VM is not needed. Returns what was done."""
    waiting = context.journal.completion(name)
    with running(context, name, "publish") as report:
        notes = _finish_spooled(context, name)
        report["notes"] = notes
        point = context.journal.point(name)
        if waiting is not None and point is not None and point.snapshot == waiting.id:
            # It was not given up: what failed before is over.
            report["snapshot"] = waiting.id
        return notes


@contextlib.contextmanager
def _telling(notes: Sequence[str]) -> Iterator[None]:
    """What was done before a run failed is worth knowing, too."""
    try:
        yield
    except errors.HeadstartError as error:
        for note in notes:
            error.add_note(f"Before that, {note}.")
        raise


def _clean_up(contact: Contact) -> None:
    """Marks that the published snapshot made useless. What stays behind goes at the next contact."""
    try:
        identify.sweep(contact)
    except errors.HeadstartError as error:
        contact.notes.append(f"old bitmaps could not be removed yet: {error}")


def _after_publish(options: Options, facts: dict[str, str]) -> list[str]:
    try:
        hooks.run(options.hooks, hooks.AFTER_PUBLISH, facts)
    except errors.HookFailed as error:
        return [str(error)]
    return []


def _volumes(context: Context, manifest: Manifest, done: Completing) -> tuple[VolumeReport, ...]:
    """What lay on the disks at the point in time, and where in it the changes were."""
    seen = whereabouts.look_at_stored(context, manifest) if done.seen is None else done.seen
    with contextlib.suppress(errors.HeadstartError):  # the backup is there, whatever is remembered
        whereabouts.remember(context.journal, manifest.vm, seen)
    return whereabouts.tell(seen, done.changes, context.repository.block_size)


def _report(published: Published, contact: Contact, failures: list[str], seconds: float) -> BackupReport:
    completion, manifest = published.completion, published.manifest
    return BackupReport(
        snapshot=manifest.id,
        vm=manifest.vm,
        created=manifest.created,
        base=manifest.base,
        consistency=manifest.consistency,
        freeze_seconds=completion.freeze_seconds,
        pause_seconds=completion.pause_seconds,
        window_seconds=completion.window_seconds,
        seconds=seconds,
        audit=completion.audit,
        disks=tuple(
            _disk(disk.name, completion.disks[disk.name], published.stored_bytes.get(disk.name, 0))
            for disk in manifest.disks
        ),
        failures=tuple(failures),
        notes=tuple(contact.notes),
    )


def _disk(name: str, completed: CompletedDisk, stored_bytes: int) -> DiskReport:
    return DiskReport(
        name=name,
        size=completed.size,
        changed_bytes=completed.changed_bytes,
        precopied_bytes=completed.precopied_bytes,
        residue_bytes=completed.residue_bytes,
        stored_bytes=stored_bytes,
        compared=completed.compared,
        reason=completed.reason,
        tracking=completed.tracking,
        tracking_reason=completed.tracking_reason,
        excluded_bytes=completed.excluded_bytes,
    )


@contextlib.contextmanager
def running(context: Context, name: str, verb: str) -> Iterator[dict[str, Any]]:
    """One run at a time on a VM, noted in the journal."""
    context.journal.vm(name)
    with context.journal.lock(name, verb):
        number = Runs(context.journal).begin(name, verb)
        report: dict[str, Any] = {}
        try:
            yield report
        except BaseException as error:
            # That a run failed is worth less than why.
            with contextlib.suppress(errors.HeadstartError):
                Runs(context.journal).end(number, _failed(verb, error))
            raise
        Runs(context.journal).end(number, report)


def note_failed(journal: Journal, name: str, verb: str, error: BaseException) -> None:
    """A run that failed before it began: there was no context to run in. Raises ``Locked`` where another one is under
    way."""
    journal.vm(name)
    with journal.lock(name, verb):
        Runs(journal).end(Runs(journal).begin(name, verb), _failed(verb, error))


def _failed(verb: str, error: BaseException) -> dict[str, Any]:
    """The report of a run that failed. A backup's tells the freeze, too: the guest had that all the same."""
    report: dict[str, Any] = {"error": str(error) or type(error).__name__}
    if verb == "backup":
        report["freeze_seconds"] = (
            error.facts.get("freeze_seconds", 0.0) if isinstance(error, errors.HeadstartError) else 0.0
        )
    return report
