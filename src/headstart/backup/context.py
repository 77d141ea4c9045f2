"""What every run needs, put together by whoever starts it."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Container
from dataclasses import dataclass, replace
from pathlib import Path

from headstart import errors
from headstart.guest import agent as agents
from headstart.guest.agent import Agent
from headstart.guest.only.machine import GuestMachine
from headstart.hypervisor.contract import Counters, Machine
from headstart.hypervisor.qemu import counters, offline
from headstart.hypervisor.qemu.machine import QemuMachine
from headstart.hypervisor.recording import OVERLAYS
from headstart.repository.repo import Repository
from headstart.state.journal import Journal
from headstart.state.values import Domain, Vm
from headstart.tracking.choice import Wish
from headstart.units import BLOCK_SIZE
from headstart.volumes.looker import Looker
from headstart.wire import imageserver

#: ``progress(what, done, total)`` in bytes; called often, from any thread.
Progress = Callable[[str, int, int], None]
#: Called wherever a run gets on; may raise to end it.
Beat = Callable[[], None]


def quiet(what: str, done: int, total: int) -> None:
    """No progress is shown."""


def unwatched() -> None:
    """Nobody listens whether the run gets on."""


@dataclass(frozen=True, slots=True)
class Context:
    """``scratch`` is on a local disk: for scratch files and the spool. ``connect`` opens a VM, ``images`` the files of
    one that is off, ``agent`` an agent in a guest at an address. ``volumes``: patterns of what is backed up, besides
    those of the VM. ``looker`` looks what lies on disks. ``appliances``: addresses of those that may read."""

    journal: Journal
    repo: Repository | None
    scratch: Path
    progress: Progress = quiet
    beat: Beat = unwatched
    connect: Callable[[Context, Vm], Machine] | None = None
    images: Callable[[Context, Vm], Machine | None] | None = None
    agent: Callable[[str], Agent] = agents.connect
    clock: Callable[[], float] = time.time
    host: str = socket.gethostname()
    volumes: tuple[str, ...] = ()
    looker: Callable[..., Looker] = Looker
    appliances: tuple[str, ...] = ()

    @property
    def repository(self) -> Repository:
        if self.repo is None:
            raise errors.Usage("Name the repository with --repository or HEADSTART_REPOSITORY.")
        return self.repo

    def met(self, vm: Vm) -> Vm:
        """``vm`` under the name that its hypervisor knows it by now, which is noted."""
        if vm.domain is None:
            return vm
        from headstart.hypervisor.libvirt import domains

        uri, name = vm.domain.uri, vm.domain.name
        found = domains.current_name(uri, name, self.journal.kept(vm.name).get(domains.UUID, ""))
        if found == name:
            return vm
        self.journal.put_domain(vm.name, Domain(uri, found))
        return replace(vm, domain=Domain(uri, found))

    def machine(self, vm: Vm) -> Machine:
        """Connect to the VM; raises ``Unreachable``."""
        return (self.connect or connect)(self, vm)

    def at_rest(self, vm: Vm) -> Machine | None:
        """The images of a VM that is off; None if it runs. Raises ``Unreachable`` where they cannot be read."""
        return (self.images or at_rest)(self, vm)


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
        return GuestMachine(session, installation=installation, block_size=BLOCK_SIZE, excluded=left_out)
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
        raise errors.Usage(f"The scratch directory {context.scratch} cannot be made: {error.strerror}.") from error
