"""What the parts of the driver share about one VM."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from pathlib import Path

from headstart.hypervisor import names
from headstart.hypervisor.qemu.bitmaps import QemuBitmaps
from headstart.hypervisor.qemu.exports import Exports
from headstart.wire.qmp import Qmp


@dataclass(frozen=True, slots=True)
class Site:
    qmp: Qmp
    installation: str
    scratch: Path
    label: str
    qga: Path | None
    exports: Exports
    bitmaps: QemuBitmaps
    block_size: int
    #: Held while a device gets its own node back.
    putting_back: threading.Lock = field(default_factory=threading.Lock)

    def node(self, role: str) -> str:
        return names.node(self.installation, role)

    @property
    def stopped(self) -> Path:
        """Exists while the VM stands still because of us."""
        return self.file("stopped")

    def file(self, role: str) -> Path:
        """A scratch file of this VM; whatever a dead run left there is nobody's."""
        return self.scratch / f"{self.label}.{role}"
