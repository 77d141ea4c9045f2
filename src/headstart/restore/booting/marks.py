"""So that the next backup of a VM that was booted from a snapshot is incremental.

::

    started, guest stopped        base mark on the overlay  ..recording.....................|
    all is on the new image                                 base mark on it, + what the first has  |..recording......
    moved                                                   journal: this mark follows the snapshot

The overlay has the snapshot's content when its mark begins, and the guest has not run: the mark records all that makes
the VM differ from the snapshot. The second one begins before the first is read, and every write goes to both images by
then: what completes before it began is in the first one. So one of the two has each write, and they are joined.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from headstart.hypervisor import names
from headstart.hypervisor.inventory import Disk
from headstart.repository.manifest import Manifest
from headstart.state.values import Facts, Tracked
from headstart.units import BLOCK_SIZE
from headstart.wire.qmp import Qmp


@dataclass(frozen=True, slots=True)
class Marks:
    """Base marks of an installation: one id for all disks of a start, a nonce for each."""

    installation: str
    id: str
    nonces: Mapping[str, str]

    @classmethod
    def new(cls, installation: str, disks: Iterable[str]) -> Marks:
        return cls(installation, secrets.token_hex(16), {disk: secrets.token_hex(4) for disk in disks})

    def name(self, disk: str) -> str:
        """Of the bitmap."""
        return names.Track(self.installation, "base", self.nonces[disk], self.id).name

    def begin(self, qmp: Qmp, nodes: Mapping[str, str]) -> None:
        """On the node of each disk, all at once. Nothing may have been written yet."""
        actions = [{"type": "block-dirty-bitmap-add", "data": self._new(disk, node)} for disk, node in nodes.items()]
        qmp.execute("transaction", actions=actions)

    def _new(self, disk: str, node: str, *, persistent: bool = False) -> dict[str, object]:
        return {"node": node, "name": self.name(disk), "granularity": BLOCK_SIZE, "persistent": persistent}

    def carry(self, qmp: Qmp, disk: str, node: str, to: str) -> None:
        """To the image that every write goes to as well by now."""
        name = self.name(disk)
        source = {"node": node, "name": name}
        qmp.execute(
            "transaction",
            actions=[
                {"type": "block-dirty-bitmap-add", "data": self._new(disk, to, persistent=True)},
                {"type": "block-dirty-bitmap-merge", "data": {"node": to, "target": name, "bitmaps": [source]}},
            ],
        )

    def tracked(self, manifest: Manifest, disks: Iterable[Disk]) -> list[Tracked]:
        """What is true of each disk as it is now."""
        return [_tracked(manifest, disk, self.nonces[disk.name], self.id) for disk in disks]


def untracked(manifest: Manifest, disks: Iterable[Disk]) -> list[Tracked]:
    """The same where no mark has recorded all since the snapshot: the next backup compares with it."""
    reason = "what it wrote before it was booted again was not recorded"
    return [_tracked(manifest, disk, secrets.token_hex(4), "", reason) for disk in disks]


def _tracked(manifest: Manifest, disk: Disk, nonce: str, base: str, reason: str = "") -> Tracked:
    facts = Facts(disk.size, disk.format, disk.layers)
    return Tracked(disk.name, nonce, facts, base=base, snapshot=manifest.id, round="", reason=reason)
