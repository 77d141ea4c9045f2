"""Meeting a VM: put right what a dead run left, look at the disks, find our marks again."""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum

from headstart import errors
from headstart.backup import opening
from headstart.backup.bases import Bases
from headstart.backup.context import Context
from headstart.backup.inside import Inside
from headstart.blocks import Blocks
from headstart.guest.only.machine import GuestMachine
from headstart.hypervisor.contract import Disturbed, GuestFreezer, Machine
from headstart.hypervisor.inventory import Disk, Inventory, Recorder
from headstart.reading import Reader
from headstart.state.values import Distrust, Tracked, Vm
from headstart.tracking import choice
from headstart.tracking.choice import Choice
from headstart.tracking.mark import Mark, Standing
from headstart.tracking.tracker import Tracker
from headstart.volumes import selection


@dataclass(slots=True)
class Contact:
    """A VM that answers, during one run. ``notes`` is what the user should be told. ``distrust``: why its agent reads
    nothing; ``false_bytes``: what it had delivered and the audit found false in this run."""

    context: Context
    vm: Vm
    machine: Machine
    inventory: Inventory
    tracker: Tracker
    nonces: dict[str, str]
    inside: Inside
    bases: Bases
    notes: list[str] = field(default_factory=list)
    distrust: Distrust | None = None
    false_bytes: int = 0
    #: By disk, what will probably be left out; None: nobody has looked yet (``looking.spared``).
    spared: dict[str, Blocks] | None = None
    #: The same of appliances, and which these are.
    appliance_false_bytes: int = 0
    distrusted_appliances: set[str] = field(default_factory=set)

    @property
    def name(self) -> str:
        return self.vm.name

    @property
    def rules(self) -> list[tuple[str, ...]]:
        """Lists of patterns that may leave volumes out."""
        return [each for each in (self.vm.volumes, self.context.volumes) if selection.looks_inside(each)]

    def note(self, text: str) -> None:
        """Told once, also where several rounds of a run find the same."""
        if text not in self.notes:
            self.notes.append(text)

    def freezer(self) -> GuestFreezer | None:
        """The agent, where the VM was added with one."""
        if not self.inside.expected:
            return None
        try:
            return self.inside.agent().freezer()
        except errors.HeadstartError as error:
            self.note(f"the agent does not help to freeze: {error}")
            return None

    def disk(self, name: str) -> Disk:
        found = self.inventory.disk(name)
        if found is None:
            raise errors.NotFound(f"VM '{self.name}' has no disk '{name}' any longer.")
        return found

    def require_size(self, name: str, reader: Reader) -> None:
        """Raises ``Busy`` if the disk was resized since it was looked at: its bitmaps do not tell."""
        size = self.disk(name).size
        if reader.size != size:
            raise errors.Busy(
                f"Disk {name} was resized from {size} to {reader.size} bytes just now. Try again: then it is compared.",
                disk=name,
            )

    def untracked(self, name: str) -> bool:
        """Only comparing tells what changed on it."""
        return bool(self.disk(name).untracked)

    def choice(self, name: str) -> Choice:
        """How the changes of a disk are learned, and why so."""
        return choice.choose(self.vm.track, self.disk(name))

    def layered(self, names: Iterable[str]) -> list[str]:
        """Those of the disks whose changes overlays record."""
        return [name for name in names if self.disk(name).recorder is Recorder.OVERLAY and not self.untracked(name)]

    def make_lasting(self, names: Iterable[str]) -> None:
        """What was seen of these disks up to now is so, too, after the VM's process was killed, or the power cut; or
        nothing of it is known then, not even that it was copied."""
        recorders = (Recorder.OVERLAY, Recorder.ERA)
        chosen = [name for name in names if self.disk(name).recorder in recorders and not self.untracked(name)]
        if chosen:
            self.machine.flush(chosen)

    def require_standing(self, marks: Mapping[str, Mark]) -> None:
        """Raises ``Busy`` unless these record where the guest's writes go. What was read before may come from
        somebody's new overlay, and be gone with it: no mark below would tell."""
        standing = self.tracker.standing()
        for name, mark in marks.items():
            if self.untracked(name):
                continue
            if standing.get(name, {}).get(mark) is not Standing.RECORDING:
                raise errors.Busy(
                    f"Somebody changed the images of disk {name} just now (a snapshot?): try again.",
                    disk=name,
                )

    def tracked(self) -> dict[str, Tracked]:
        """What is known of the disks that the VM has now."""
        known = self.context.journal.tracked(self.name)
        return {disk.name: known[disk.name] for disk in self.inventory.disks if disk.name in known}


class Asleep(Enum):
    """What to do with a VM that is off."""

    #: It is ``Unreachable``.
    REFUSE = "refuse"
    #: It is only looked at, and may be off where the hypervisor tells all the same.
    LOOK = "look"
    #: Its images are read.
    READ = "read"
    #: It is made ready without its guest running.
    AWAKEN = "awaken"


@contextlib.contextmanager
def meet(context: Context, vm: Vm, asleep: Asleep = Asleep.REFUSE) -> Iterator[Contact]:
    """Raises ``Unreachable`` if the VM does not answer, ``Disturbed`` if it ends just now."""
    vm = opening.met(context, vm)
    images = opening.images(context, vm) if asleep is Asleep.READ else None
    machine = images or opening.machine(context, vm)
    inside = Inside("", context.agent)
    try:
        notes = list(machine.recover())
        if images is None:
            _refuse_sleeper(machine, asleep)
        if asleep is Asleep.AWAKEN:
            notes += machine.awaken()
        if asleep is not Asleep.LOOK:
            notes += machine.reclaim(context.journal.kept(vm.name))
        if not machine.off:
            inside = _inside(context, vm, machine)
        inventory = choice.applied(vm.track, machine.inventory())
        if not inventory.disks:
            raise errors.Usage(f"VM '{vm.name}' has no disk that could be backed up.")
        known = context.journal.tracked(vm.name)
        nonces = {
            disk.name: known[disk.name].nonce if disk.name in known else secrets.token_hex(4)
            for disk in inventory.disks
        }
        gone = [name for name in known if name not in nonces]
        notes += [f"disk {name}, which the last backup had, is not in the VM any longer" for name in gone]
        tracker = Tracker(machine, context.journal.installation, nonces)
        distrust = context.journal.distrusted(vm.name)
        bases = Bases(context, vm.name)
        yield Contact(context, vm, machine, inventory, tracker, nonces, inside, bases, notes, distrust)
    finally:
        inside.close()
        machine.close()


def _inside(context: Context, vm: Vm, machine: Machine) -> Inside:
    """An agent serves one session at a time: that of a guest without a hypervisor is the machine's."""
    if isinstance(machine, GuestMachine):
        return Inside(vm.agent, lambda _: machine.session)
    return Inside(vm.agent or machine.agent, context.agent)


def _refuse_sleeper(machine: Machine, asleep: Asleep) -> None:
    """It is off, and its images were not asked for, or it ended just now."""
    if machine.off and asleep is Asleep.READ:
        raise Disturbed("the VM was shut down just now")
    if machine.off and asleep is Asleep.REFUSE:
        raise errors.Unreachable("The VM is off: nothing changes. 'headstart backup' reads its images.")
