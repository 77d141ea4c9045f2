"""What a host remembers of its VMs. Values; ``journal`` keeps them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from headstart import blocks
from headstart.blocks import Blocks
from headstart.hypervisor.inventory import ImageFile
from headstart.repository.manifest import Excluded
from headstart.tracking.choice import Wish

#: Who read a block of a draft: this host from outside, the agent in the guest, or (from here on) an appliance.
HOST, AGENT, FIRST_APPLIANCE = 0, 1, 2


@dataclass(frozen=True, slots=True)
class Domain:
    """A VM of libvirt's, by name or UUID."""

    uri: str
    name: str


@dataclass(frozen=True, slots=True)
class Vm:
    """A VM as it was added: plain QEMU behind a monitor, or a ``domain`` of libvirt's, or neither: then there is only
    the agent in the guest. ``definition`` is what the user gave; empty: as the hypervisor reports it."""

    name: str
    monitor: Path | None = None
    #: Where agentd answers, as ``guest.links`` takes it; empty: nowhere, or where libvirt has its channel.
    agent: str = ""
    qga: Path | None = None
    excluded: tuple[str, ...] = ()
    definition: str = ""
    added: float = 0.0
    domain: Domain | None = None
    track: Wish = Wish.AUTO
    #: Patterns of the volumes that alone are backed up (``volumes.selection``); empty: everything.
    volumes: tuple[str, ...] = ()

    @property
    def guest_only(self) -> bool:
        """No hypervisor helps: its filters record, its agent reads, and its word is all there is."""
        return self.monitor is None and self.domain is None

    @property
    def where(self) -> str:
        """For people."""
        if self.guest_only:
            return f"the agent at {self.agent}"
        return f"{self.domain.name} of {self.domain.uri}" if self.domain is not None else str(self.monitor)


@dataclass(frozen=True, slots=True)
class Facts:
    """What tells that a disk is still the one of the last contact."""

    size: int
    format: str
    layers: tuple[ImageFile, ...]


@dataclass(frozen=True, slots=True)
class Tracked:
    """One disk between two contacts.

    ``base`` is the id of its base mark; an empty one is not to be believed at all. If the mark precedes a
    published snapshot, ``snapshot`` names that one and what the mark recorded is all that changed.
    Otherwise (first backup, lost bitmap) the blocks in ``entire`` count as changed besides. ``owed`` are
    the blocks identified as changed up to the beginning of the round ``round``; what of them is not in
    the draft remains to be copied. ``excluded`` were left out of ``snapshot``, which has zeroes there; they
    are in ``entire``, so that whatever stops being left out is read whole.
    """

    name: str
    nonce: str
    facts: Facts
    base: str
    snapshot: str | None
    round: str
    entire: Blocks = field(default_factory=Blocks)
    owed: Blocks = field(default_factory=Blocks)
    reason: str = ""
    excluded: Blocks = field(default_factory=Blocks)

    def everything(self, block_size: int) -> Blocks:
        return blocks.everything(self.facts.size, block_size)


def bytes_of(found: Mapping[str, Blocks], disks: Mapping[str, Tracked], block_size: int) -> int:
    """Bytes of blocks by disk."""
    return sum(blocks.total_bytes(each, block_size, disks[name].facts.size) for name, each in found.items())


@dataclass(frozen=True, slots=True)
class Draft:
    """The next backup image in the making. ``next_rounds`` are those that runs began since
    the newest one was read, and did not come to read; the last of them may not even have begun."""

    id: str
    #: Id of the repository that holds its chunks.
    repository: str
    rounds: int = 0
    records: int = 0
    next_rounds: tuple[str, ...] = ()
    begun: float = 0.0


@dataclass(frozen=True, slots=True)
class AuditReport:
    """``agent_mismatched_bytes``: what the agent in the guest had delivered, also in attempts that were begun again;
    ``appliance_mismatched_bytes``: what appliances had."""

    sampled_bytes: int = 0
    mismatched_bytes: int = 0
    agent_mismatched_bytes: int = 0
    appliance_mismatched_bytes: int = 0


@dataclass(frozen=True, slots=True)
class CompletedDisk:
    """What the manifest and the report will say of a disk, as ``backup.report.DiskReport`` has it. What has a default
    may be missing in what an older version left."""

    size: int
    format: str
    serial: str
    interface: str
    changed_bytes: int
    precopied_bytes: int
    residue_bytes: int
    compared: bool
    reason: str
    tracking: str = ""
    tracking_reason: str = ""
    excluded_bytes: int = 0
    excluded: tuple[Excluded, ...] = ()


@dataclass(frozen=True, slots=True)
class Completion:
    """A point in time that is over: its residue waits in the spool to be uploaded and published. What the manifest and
    the report will say.

    ``created``: the point in time, seconds since 1970. ``base_mark``: the id of the base marks that began with it.
    ``off``: the VM was. ``files``: kinds of small files that are in the spool."""

    id: str
    created: float
    base_mark: str
    consistency: str
    off: bool
    freeze_seconds: float
    pause_seconds: float
    window_seconds: float
    audit: AuditReport
    disks: Mapping[str, CompletedDisk]
    definition: str
    files: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Point:
    """A published snapshot and its point in time, in seconds since 1970."""

    snapshot: str
    created: float


@dataclass(frozen=True, slots=True)
class Rollback:
    """A VM is being rolled back to ``snapshot``, since ``begun`` (seconds since 1970). While ``writing``, its disks are
    neither the one nor the other. ``safety``: the snapshot of what was there; ``running``: the VM was, and ``how``
    tells how to start it, as ``hypervisor.power`` has it."""

    snapshot: str
    begun: float
    running: bool
    how: str = ""
    writing: bool = False
    safety: str | None = None


@dataclass(frozen=True, slots=True)
class Distrust:
    """An agent in a guest that delivered false blocks: when that was found, in seconds since 1970, and what."""

    since: float
    reason: str


@dataclass(frozen=True, slots=True)
class Run:
    number: int
    vm: str
    verb: str
    begun: float
    ended: float | None
    report: dict[str, Any]
