"""Meeting a VM: put right what a dead run left, look at the disks, find our marks again."""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Iterator
from enum import Enum

from headstart import errors
from headstart.backup import opening
from headstart.backup.bases import Bases
from headstart.backup.blame import Blamed
from headstart.backup.contact import Contact
from headstart.backup.context import Context
from headstart.backup.inside import Inside
from headstart.guest.only.machine import GuestMachine
from headstart.hypervisor.contract import Disturbed, Machine
from headstart.state.values import Vm
from headstart.tracking import choice
from headstart.tracking.tracker import Tracker


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
        bases = Bases(context, vm.name)
        blamed = Blamed(context, vm.name, context.journal.distrusted(vm.name))
        yield Contact(context, vm, machine, inventory, tracker, nonces, inside, bases, blamed, notes)
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
