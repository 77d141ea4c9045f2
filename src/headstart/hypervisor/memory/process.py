"""What a run of a simulated VM holds in memory: writes under way, points in time, exports."""

from __future__ import annotations

from dataclasses import dataclass, field

from headstart.blocks import Blocks
from headstart.hypervisor.memory.image import Drive


@dataclass(eq=False)
class Copies:
    """What one disk's filter does: save the old content of protected blocks before they are written."""

    protected: Blocks
    saved: dict[int, int] = field(default_factory=dict)
    broken: bool = False


@dataclass(eq=False)
class Filters:
    """A point in time as it stands in the VM, whoever made it, alive or dead."""

    installation: str
    disks: dict[str, Copies]


@dataclass(eq=False)
class Process:
    """One run of the VM. Connections are to a process, and of no use with the next one."""

    points: list[Filters] = field(default_factory=list)
    writes: list[Write] = field(default_factory=list)
    #: Who runs the only NBD server: a connection, or somebody else.
    server: object | None = None
    exports: dict[str, str] = field(default_factory=dict)
    clients: dict[str, object] = field(default_factory=dict)
    #: The installations that have stopped the VM or frozen the guest, and not yet undone it.
    stopped_by: str = ""
    frozen_by: str = ""
    #: Its owner lets it be migrated: overlays stay as they are.
    may_move: bool = False
    #: Writes that were finished, by disk.
    written: dict[str, int] = field(default_factory=dict)


@dataclass(eq=False)
class Write:
    """A guest's write under way. Bitmaps learn of it at its end."""

    process: Process
    drive: Drive
    block: int
    content: int

    def finish(self) -> None:
        """Also comes by itself when QEMU drains the disk. After the VM's death nothing happens any longer."""
        if self in self.process.writes:
            self.process.writes.remove(self)
            self.process.written[self.drive.name] = self.process.written.get(self.drive.name, 0) + 1
            self.drive.top.content[self.block] = self.content
            self.drive.top.mark(self.block)
