"""What a simulated guest has done so far. It has one CPU, and nobody sees it read."""

from __future__ import annotations

from headstart import errors
from headstart.hypervisor.counters import Counters, DiskCounters
from headstart.hypervisor.memory.vm import STEP_SECONDS, MemoryVm


def look(vm: MemoryVm) -> Counters:
    """``moment`` is of the simulated clock, and each write takes one step of it. Raises ``Unreachable``."""
    vm.step("counters")
    if vm.process is None:
        raise errors.Unreachable("Nobody listens on the QMP socket: is the VM running?")
    written = vm.process.written
    disks = {
        drive.name: _disk(written.get(drive.name, 0), vm.block_size) for drive in vm.drives.values() if drive.plugged
    }
    return Counters(vm.clock, vm.cpu_seconds, vcpus=1, disks=disks)


def _disk(writes: int, block_size: int) -> DiskCounters:
    return DiskCounters(
        read_bytes=0,
        written_bytes=writes * block_size,
        reads=0,
        writes=writes,
        flushes=0,
        read_seconds=0.0,
        write_seconds=writes * STEP_SECONDS,
        flush_seconds=0.0,
    )
