"""How a VM is opened, whatever runs it: the running one, its images where it is off, or a look at its counters.

The drivers of libvirt are imported where they are needed: its bindings are not everywhere.
"""

from __future__ import annotations

import time
from collections.abc import Container
from dataclasses import dataclass, replace

from headstart import errors
from headstart.backup.context import Context
from headstart.guest import shells
from headstart.guest.only.machine import GuestMachine
from headstart.hypervisor.contract import Machine
from headstart.hypervisor.counters import Counters
from headstart.hypervisor.qemu import counters, offline
from headstart.hypervisor.qemu.machine import QemuMachine
from headstart.hypervisor.recording import OVERLAYS
from headstart.state.values import Domain, Vm
from headstart.tracking.choice import Wish
from headstart.units import BLOCK_SIZE
from headstart.wire import imageserver
from headstart.wire.qga import Qga


def met(context: Context, vm: Vm) -> Vm:
    """``vm`` under the name that its hypervisor knows it by now, which is noted."""
    if vm.domain is None:
        return vm
    from headstart.hypervisor.libvirt import domains

    uri, name = vm.domain.uri, vm.domain.name
    found = domains.current_name(uri, name, context.journal.kept(vm.name).get(domains.UUID, ""))
    if found == name:
        return vm
    context.journal.put_domain(vm.name, Domain(uri, found))
    return replace(vm, domain=Domain(uri, found))


def machine(context: Context, vm: Vm) -> Machine:
    """Connect to the VM; raises ``Unreachable``."""
    return (context.connect or connect)(context, vm)


def images(context: Context, vm: Vm) -> Machine | None:
    """The images of a VM that is off; None if it runs. Raises ``Unreachable`` where they cannot be read."""
    return (context.images or at_rest)(context, vm)


def agent_address(vm: Vm) -> str:
    """Where our agent in its guest answers, or will; empty if nobody knows. Raises ``Unreachable``, ``NotFound``."""
    if vm.agent or vm.domain is None:
        return vm.agent
    from headstart.hypervisor.libvirt import domains

    return domains.channel_path(vm.domain.uri, vm.domain.name)


def qga(vm: Vm) -> shells.Qga | None:
    """QEMU's guest agent of a running VM, which the caller closes; None if the VM was added without one. Raises
    ``Unreachable``, ``NotFound``."""
    if vm.domain is None:
        return Qga(vm.qga) if vm.qga is not None else None
    from headstart.hypervisor.libvirt import domains

    return domains.qga(vm.domain.uri, vm.domain.name)


@dataclass(frozen=True, slots=True)
class _Either:
    one: Container[str]
    other: Container[str]

    def __contains__(self, name: object) -> bool:
        return name in self.one or name in self.other


def look(vm: Vm) -> Counters:
    """What the VM has done so far, by a short look that changes nothing. Raises ``Unreachable``, ``NotFound``."""
    if vm.domain is not None:
        from headstart.hypervisor.libvirt import counters as libvirt_counters

        return libvirt_counters.look(vm.domain.uri, vm.domain.name)
    if vm.guest_only:
        # Nobody sees from outside what it does; and its agent takes one connection at a time.
        return Counters(time.monotonic(), None, 1, {})
    assert vm.monitor is not None, "either a domain or a monitor"
    return counters.look(vm.monitor)


def connect(context: Context, vm: Vm, excluded: Container[str] = ()) -> Machine:
    """``excluded``: names of disks to leave out, beside those that the VM was added without."""
    left_out = _Either(vm.excluded, excluded)
    _make_scratch(context)
    installation = context.journal.installation
    if vm.domain is not None:
        from headstart.hypervisor.libvirt.machine import LibvirtMachine

        return LibvirtMachine(
            vm.domain.uri,
            vm.domain.name,
            installation=installation,
            scratch=context.scratch,
            label=vm.name,
            excluded=left_out,
            layered=vm.track in (Wish.AUTO, Wish.OVERLAY),
            prepared=vm.track is Wish.OVERLAY,
        )
    if vm.guest_only:
        session = context.agent(vm.agent)
        return GuestMachine(
            session, installation=installation, block_size=BLOCK_SIZE, excluded=left_out, beat=context.beat
        )
    assert vm.monitor is not None, "either a domain or a monitor"
    return QemuMachine(
        vm.monitor,
        installation=installation,
        scratch=context.scratch,
        label=vm.name,
        qga=vm.qga,
        excluded=left_out,
        layered=vm.track in (Wish.AUTO, Wish.OVERLAY),
        prepared=vm.track is Wish.OVERLAY,
    )


def at_rest(context: Context, vm: Vm, excluded: Container[str] = ()) -> Machine | None:
    """The images of a VM that is off, without those of disks to leave out; None if it runs, or nothing is known of
    it. Raises ``Unreachable`` where they cannot be read."""
    left_out = _Either(vm.excluded, excluded)
    _make_scratch(context)
    socket = context.scratch / f"{vm.name}.offline"
    imageserver.clear(socket)
    if vm.domain is not None:
        from headstart.hypervisor.libvirt import offline as libvirt_offline

        return libvirt_offline.at_rest(
            vm.domain.uri,
            vm.domain.name,
            installation=context.journal.installation,
            folder=context.scratch / OVERLAYS,
            socket=socket,
            excluded=left_out,
            block_size=BLOCK_SIZE,
        )
    if vm.monitor is None:
        return None
    return offline.at_rest(
        vm.monitor,
        context.journal.kept(vm.name),
        socket=socket,
        excluded=left_out,
        block_size=BLOCK_SIZE,
    )


def _make_scratch(context: Context) -> None:
    try:
        # Others may pass through to what is theirs, and see nothing: QEMU may be another user.
        context.scratch.mkdir(parents=True, exist_ok=True, mode=0o711)
    except OSError as error:
        raise errors.Usage(
            f"The scratch directory {context.scratch} cannot be made: {error.strerror}."
            " Name another one with --scratch, or run as a user who may write there."
        ) from error
