"""What ``doctor`` wants to know of a VM: found by looking, with nothing put right and nothing left behind.

``Machine`` is no use for that: meeting a VM through it takes away what a dead run left.
"""

from __future__ import annotations

from dataclasses import dataclass

from headstart.hypervisor.inventory import Inventory
from headstart.hypervisor.qemu.versions import Row


@dataclass(frozen=True, slots=True)
class Trace:
    """A dirty bitmap, or a libvirt checkpoint's, of whomever. ``fault``: why it cannot be believed."""

    disk: str
    name: str
    recording: bool = True
    persistent: bool = False
    fault: str = ""


@dataclass(frozen=True, slots=True)
class Channels:
    """Of a domain of libvirt's: None where it has no such port, else whether the guest has opened it."""

    agent: bool | None = None
    agent_address: str = ""
    qga: bool | None = None


@dataclass(frozen=True, slots=True)
class Checkup:
    """The VM at one moment. ``release``: of QEMU, (0, 0, 0) if it is not told. ``status``: ``running``, ``off``, or as
    QEMU says it. ``works``: what somebody does to the disks now. ``leftovers``: what a dead run of this installation
    left in it. ``owner``: user and group that QEMU runs as, if known. ``channels``, ``apparmor`` (it confines
    QEMU): libvirt only.
    ``faults``: what this QEMU is known to break, and of which disks; not with libvirt."""

    release: tuple[int, int, int]
    status: str
    inventory: Inventory
    iothreads: tuple[str, ...] = ()
    traces: tuple[Trace, ...] = ()
    works: tuple[str, ...] = ()
    leftovers: tuple[str, ...] = ()
    others: tuple[str, ...] = ()
    owner: tuple[int, int] | None = None
    channels: Channels | None = None
    apparmor: bool = False
    faults: tuple[tuple[Row, tuple[str, ...]], ...] = ()
