"""Rolling a VM back in place: its own images become what they were in a snapshot, by what differs.

::

    refuse what cannot be    nothing is touched
    shut the VM down         in good order, with a deadline
    safety snapshot          a backup of the images, as of any VM that is off
    what differs             safety and wanted: two trees, walked only where they differ
    locks                    of all images, as QEMU takes them; nobody has written since the safety snapshot
    journal: it begins       from here the disks are neither the one nor the other
    write, UEFI variables    through QEMU's drivers: bitmaps record it, so the next backup finds just this
    journal: it is done
    start                    if it ran

Killed before it begins, nothing was changed. Killed after, it is begun anew by the same command: then nothing is
believed of the images, and all of them is read and compared. Until then nobody makes a restore point of them.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from headstart import blocks, errors, plain, units
from headstart.backup import cycle, opening
from headstart.backup.context import Context
from headstart.blocks import Blocks
from headstart.hypervisor import witness
from headstart.hypervisor.inventory import Disk, Inventory
from headstart.hypervisor.power import Power
from headstart.hypervisor.witness import Witness
from headstart.repository import attachment, label, lost, tree
from headstart.repository.manifest import Disk as StoredDisk
from headstart.repository.manifest import Manifest, excluded_blocks
from headstart.restore import inplace
from headstart.state.noted import Noted
from headstart.state.values import Rollback, Vm
from headstart.wire.imageserver import Layer
from headstart.wire.imagewriter import ImageWriter

#: Of safety snapshots.
TAG = "before-rollback"
#: A guest shuts down within this, or not at all.
SHUTDOWN_SECONDS = 120.0
#: After so long a VM that an interrupted one shut down, before it wrote anything, is off because its owner wants that.
_RECENT_SECONDS = 3600.0
_VARIABLES = "uefi-variables"


@dataclass(frozen=True, slots=True)
class Order:
    """``safety``: back up first what is there. ``force``: take the power of a guest that does not shut down."""

    safety: bool = True
    force: bool = False
    seconds: float = SHUTDOWN_SECONDS


@dataclass(frozen=True, slots=True)
class RolledBack:
    """A disk, and how many bytes of it were written; ``compared``: all of it was read to find them."""

    name: str
    size: int
    written_bytes: int
    compared: bool


@dataclass(frozen=True, slots=True)
class Report:
    """``safety``: the snapshot of what was there; None if there is none. ``running``: the VM runs again.
    ``not_started``: why it does not although it did; empty otherwise."""

    vm: str
    snapshot: str
    safety: str | None
    disks: tuple[RolledBack, ...]
    running: bool
    seconds: float
    notes: tuple[str, ...]
    not_started: str = ""


def rollback(context: Context, name: str, wanted: Manifest, order: Order) -> Report:
    """Raises ``Usage``, ``NotFound``, ``Busy``, ``TargetRefused``, ``Unreachable`` before anything is touched; later
    also what reading and writing raise. What the error leaves is told with it."""
    begun = time.monotonic()
    with cycle.running(context, name, "rollback") as told:
        run = _Run(context, opening.met(context, context.journal.vm(name)), wanted, order)
        done = run.roll_back()
        seconds = time.monotonic() - begun
        report = Report(name, wanted.id, run.safety, done, run.runs, seconds, tuple(run.notes), run.not_started)
        told.update(snapshot=wanted.id, safety=run.safety, notes=run.notes, not_started=run.not_started)
        return report


def power_of(vm: Vm) -> Power:
    if vm.domain is not None:
        from headstart.hypervisor.libvirt.power import LibvirtPower

        return LibvirtPower(vm.domain.uri, vm.domain.name)
    if vm.guest_only:
        raise errors.Unsupported(
            f"VM '{vm.name}' is known by its guest alone: nobody here can shut it down and write to its disks."
            " 'headstart restore' makes images of them, to be put in place by whoever runs it.",
            vm=vm.name,
        )
    from headstart.hypervisor.qemu.power import QemuPower

    assert vm.monitor is not None, "either a domain or a monitor"
    return QemuPower(vm.monitor, vm.qga)


class _Run:
    def __init__(self, context: Context, vm: Vm, wanted: Manifest, order: Order) -> None:
        self._context = context
        self._vm = vm
        self._wanted = wanted
        self._order = order
        self._power = power_of(vm)
        self._last = Noted(context.journal).rollback(vm.name)
        #: An interrupted one has written.
        self._half = self._last is not None and self._last.writing
        self.safety = self._last.safety if self._last else None
        self._mine = Rollback(wanted.id, context.clock(), running=False)
        self.runs = False
        self.not_started = ""
        self.notes: list[str] = []

    def roll_back(self) -> tuple[RolledBack, ...]:
        self._power.require()
        was_running = self._power.runs()
        self._check(self._look())
        if was_running:
            self._mine = replace(self._mine, running=True, how=self._power.memory())
        elif self._has_shut_down:
            assert self._last is not None, "that is what tells"
            self._mine = replace(self._mine, running=True, how=self._last.how)
        self._power.recall(self._mine.how)
        if not self._half:
            Noted(self._context.journal).begin_rollback(self._vm.name, self._mine)
        try:
            if was_running:
                self._power.shut_down(self._order.seconds, force=self._order.force)
            done = self._write()
        except BaseException as error:
            self._leave(error)
            raise
        if self._mine.running:
            self._start()
        return done

    @property
    def _has_shut_down(self) -> bool:
        """The VM is off because of one that was interrupted, and not because its owner wants it to be."""
        if self._last is None or not self._last.running:
            return False
        return self._half or self._context.clock() - self._last.begun < _RECENT_SECONDS

    def _start(self) -> None:
        """What keeps it from being started undoes nothing of what was done."""
        try:
            self.not_started = self._power.start()
        except errors.HeadstartError as error:
            self.not_started = str(error)
        self.runs = not self.not_started

    def _leave(self, error: BaseException) -> None:
        """Tell what it is like now; a VM that is as it was goes on."""
        begun = Noted(self._context.journal).rollback(self._vm.name)
        if begun is not None and begun.writing:
            back = f", or 'headstart rollback {self._vm.name} {begun.safety}' to go back" if begun.safety else ""
            error.add_note(
                f"VM '{self._vm.name}' is half rolled back and stays off: give the same command again{back}."
            )
            return
        Noted(self._context.journal).end_rollback(self._vm.name)
        if self._mine.running and not self._power.runs():
            self._start()
            now = "was started again" if self.runs else f"was not started again: {self.not_started}"
            error.add_note(f"Nothing was changed, and the VM {now.removesuffix('.')}.")

    # -- before anything is touched

    def _look(self) -> Inventory:
        """Of the VM as it is, running or off."""
        context, vm = self._context, self._vm
        resting = opening.images(context, vm)
        machine = resting or opening.machine(context, vm)
        try:
            if resting is None and vm.monitor is not None:
                # What tells where the images are when it is off.
                context.journal.keep(vm.name, {**context.journal.kept(vm.name), **machine.keepsakes()})
            return machine.inventory()
        finally:
            machine.close()

    def _check(self, there: Inventory) -> None:
        wanted = self._wanted
        if wanted.vm != self._vm.name:
            raise errors.Usage(
                f"Snapshot {wanted.id} is of {plain.line(wanted.vm)}, and not of {self._vm.name}. A VM is rolled back"
                " to a snapshot of its own; 'headstart restore' puts any disk anywhere.",
                vm=wanted.vm,
            )
        for disk in wanted.disks:
            self._check_disk(disk, there.disk(disk.name))
            if lost.unreadable(self._context.repository, disk):
                raise errors.Damaged(
                    f"Parts of disk {plain.line(disk.name)} are lost in the repository. Nothing was touched: roll back"
                    " to another snapshot.",
                    disk=disk.name,
                )
        stored = {disk.name for disk in wanted.disks}
        rest = [disk.name for disk in there.disks if disk.name not in stored]
        self.notes += [f"disk {plain.line(each)} stays as it is: the snapshot does not have it" for each in rest]
        self.notes += [
            f"volume {plain.line(each.volume)} of disk {plain.line(disk.name)} stays as it is: the snapshot was made"
            " without it"
            for disk in wanted.disks
            for each in disk.excluded
        ]

    def _check_disk(self, wanted: StoredDisk, there: Disk | None) -> None:
        name = plain.line(wanted.name)
        if there is None:
            raise errors.NotFound(
                f"The VM has no disk {name} any longer, or it was added without it. Nothing was touched: plug it in, or"
                " restore it with 'headstart restore'.",
                disk=wanted.name,
            )
        if there.size != wanted.size:
            raise errors.TargetRefused(
                f"Disk {name} has {there.size} bytes now, and {wanted.size} in the snapshot. Nothing was touched:"
                " resize it, or restore it to a new file with 'headstart restore'.",
                disk=wanted.name,
                size=there.size,
                needed=wanted.size,
            )
        if there.overridden:
            raise errors.Unsupported(f"Disk {name} cannot be written: {there.overridden}. Nothing was touched.")
        for layer in there.layers:
            if not Path(layer.path).is_absolute() or not Path(layer.path).exists():
                raise errors.Unreachable(
                    f"The image {layer.path} of disk {name} is not on this host. Nothing was touched."
                )
        if not os.access(there.layers[0].path, os.W_OK):
            raise errors.TargetRefused(
                f"The image {there.layers[0].path} of disk {name} may not be written. Nothing was touched.",
                target=there.layers[0].path,
            )

    # -- the VM is off

    def _write(self) -> tuple[RolledBack, ...]:
        there = self._images()
        images = {disk.name: disk for disk in there.disks}
        paths = [layer.path for each in there.disks for layer in each.layers]
        witness.settle(paths)
        seen = {path: witness.look(path) for path in paths}
        safety = self._take_safety()
        with contextlib.ExitStack() as stack:
            changed = {disk.name: self._between(safety, disk) for disk in self._wanted.disks} if safety else {}
            _require_same(seen)
            writers = {disk.name: stack.enter_context(_writer(images[disk.name], seen)) for disk in self._wanted.disks}
            for disk in self._wanted.disks:
                if disk.name not in changed:
                    changed[disk.name] = self._compare(disk, writers[disk.name])
                # Zeroes that stand for what nobody knows, and may be nowhere else than here.
                changed[disk.name] -= excluded_blocks(disk)
            self._mine = replace(self._mine, writing=True, safety=self.safety)
            Noted(self._context.journal).begin_rollback(self._vm.name, self._mine)
            for disk in self._wanted.disks:
                self._fill(disk, changed[disk.name], writers[disk.name])
            self._write_variables(there)
        Noted(self._context.journal).end_rollback(self._vm.name)
        return tuple(
            RolledBack(
                disk.name,
                disk.size,
                blocks.total_bytes(changed[disk.name], disk.block_size, disk.size),
                compared=safety is None,
            )
            for disk in self._wanted.disks
        )

    def _images(self) -> Inventory:
        resting = opening.images(self._context, self._vm)
        if resting is None:
            raise errors.Busy("The VM was started meanwhile, by somebody else.")
        try:
            there = resting.inventory()
            for disk in self._wanted.disks:
                self._check_disk(disk, there.disk(disk.name))
            return there
        finally:
            resting.close()

    def _take_safety(self) -> Manifest | None:
        """None: what is there is not worth one, or none is wanted."""
        if self._half or not self._order.safety:
            return None
        made, notes = cycle.back_up_at_rest(self._context, self._vm.name)
        if self._lacks(made):
            made, notes = cycle.back_up_at_rest(self._context, self._vm.name, whole=True)
        label.tag(self._context.repository, made.id, [TAG])
        self.safety = made.id
        self.notes += notes
        return made

    def _lacks(self, safety: Manifest) -> bool:
        """Something that would be written over is left out of it by today's rules."""
        there = {disk.name: excluded_blocks(disk) for disk in safety.disks}
        return any(there.get(disk.name, Blocks()) - excluded_blocks(disk) for disk in self._wanted.disks)

    def _between(self, safety: Manifest, wanted: StoredDisk) -> Blocks:
        there = next(disk for disk in safety.disks if disk.name == wanted.name)
        return Blocks(tree.diff(self._context.repository, there.root, there.size, wanted.root, wanted.size))

    def _compare(self, disk: StoredDisk, writer: ImageWriter) -> Blocks:
        def looked(done: int) -> None:
            self._context.progress(f"comparing {disk.name}", done, disk.size)

        return inplace.differing(self._context.repository, disk, writer.client, looked)

    def _fill(self, disk: StoredDisk, changed: Blocks, writer: ImageWriter) -> None:
        total = blocks.total_bytes(changed, disk.block_size, disk.size)

        def written(done: int) -> None:
            self._context.progress(f"rolling back {disk.name}", done, total)

        inplace.write(self._context.repository, disk, changed, writer.client, written)

    def _write_variables(self, there: Inventory) -> None:
        """Those of the UEFI firmware, which name what to boot."""
        place = dict(there.files).get(_VARIABLES)
        stored = next((each for each in self._wanted.attachments if each.kind == _VARIABLES), None)
        if place is None or stored is None:
            return
        content = attachment.read_attachment(self._context.repository, stored)
        try:
            with place.open("r+b") as file:
                there_now = file.read()
                if len(there_now) != len(content):
                    self.notes.append(f"{place} stays as it is: the UEFI variables had {len(content)} bytes")
                elif there_now != content:
                    file.seek(0)
                    file.write(content)
                    file.flush()
                    os.fsync(file.fileno())
        except OSError as error:
            raise errors.TargetRefused(
                f"The UEFI variables {place} cannot be written: {error.strerror}.", target=str(place)
            ) from error


def _require_same(seen: Mapping[str, Witness]) -> None:
    for path, before in seen.items():
        if witness.look(path) != before:
            raise errors.Busy(
                f"Somebody wrote to the image {path} just now. Nothing was changed: try again.", path=path
            )


@contextlib.contextmanager
def _writer(image: Disk, seen: Mapping[str, Witness]) -> Iterator[ImageWriter]:
    path = image.layers[0].path

    def refused(reason: str) -> errors.HeadstartError:
        if "No space left" in reason:
            return errors.NoSpace(f"The image {path} cannot be written: {reason}. Make room there.", target=path)
        return errors.TargetRefused(f"The image {path} cannot be written: {reason}.", target=path)

    layers: Sequence[Layer] = [Layer(layer.path, layer.driver, seen[layer.path].device) for layer in image.layers]
    with ImageWriter(layers, refused) as writer:
        yield writer


def told(report: Report) -> Iterator[str]:
    """For people."""
    for disk in report.disks:
        how = ", all of it compared" if disk.compared else ""
        sizes = f"{units.format_bytes(disk.size)}, {units.format_bytes(disk.written_bytes)} written"
        yield f"{plain.line(disk.name)}  {sizes}{how}"
    yield f"Rolled {report.vm} back to {report.snapshot} in {units.format_seconds(report.seconds)}."
    yield "It runs again." if report.running else "It is OFF." if report.not_started else "It is off."
    if report.safety is not None:
        yield f"What was there is snapshot {report.safety}."
