"""Dirty bitmaps of QEMU: all of them at one moment, or read without touching a live node.

Bitmaps are read through a view: a node without data, of the disk's size, with a copy of each. So a
recording bitmap can be read, no client ever opens a node that the guest uses, and the view lives for
milliseconds.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from headstart import errors
from headstart.blocks import Blocks
from headstart.hypervisor import names
from headstart.hypervisor.contract import Action, Bitmap, Remove, Start, Stop
from headstart.hypervisor.qemu import migration
from headstart.hypervisor.qemu.anchor import Anchor
from headstart.hypervisor.qemu.exports import Exports
from headstart.hypervisor.qemu.inventory import Attachment, Look
from headstart.hypervisor.qemu.overlaying import Overlaying
from headstart.wire import nbd
from headstart.wire.qmp import CommandFailed, Qmp


class QemuBitmaps:
    """``headstart.hypervisor.contract.Bitmaps`` on one look at the VM after the other."""

    def __init__(self, qmp: Qmp, installation: str, exports: Exports, anchor: Anchor, block_size: int) -> None:
        self._qmp = qmp
        self.overlays = Overlaying(qmp, installation, exports, anchor, block_size)
        self._installation = installation
        self._exports = exports
        self._block_size = block_size

    def list(self, seen: Look) -> dict[str, tuple[Bitmap, ...]]:
        return {each.disk.name: tuple(self._of(seen, each)) for each in seen.attachments}

    def _of(self, seen: Look, attachment: Attachment) -> Iterator[Bitmap]:
        if attachment.stack is not None:
            yield from attachment.stack.marks()
        for node in seen.graph.chain(attachment.root):
            # Bitmaps without a name are at work inside a job or a filter.
            for found in (bitmap for bitmap in node.bitmaps if "name" in bitmap):
                yield Bitmap(
                    name=found["name"],
                    recording=found["recording"],
                    believed=node.name == attachment.tracked
                    and attachment.stack is None
                    and not found.get("inconsistent", False)
                    and found["granularity"] == self._block_size,
                    persistent=found["persistent"],
                )

    def transact(self, seen: Look, actions: Sequence[Action]) -> None:
        """Marks that are overlays go in the same transaction of QEMU's, but for their end: of them only what is not
        needed by any other can go."""
        layered = [each for each in actions if _is_layered(seen.attachment(each.disk), each)]
        ended = [each for each in layered if isinstance(each, Remove)]
        with self.overlays.changing(seen, [each for each in layered if not isinstance(each, Remove)]) as orders:
            orders += [self.action(seen, action) for action in actions if action not in layered]
            if orders:
                self._qmp.execute("transaction", actions=orders)
        if ended:
            self.overlays.remove(seen, ended)

    def action(self, seen: Look, action: Action) -> dict[str, Any]:
        """One action of QEMU's ``transaction`` command."""
        attachment = seen.attachment(action.disk)
        data: dict[str, Any] = {"node": attachment.tracked, "name": action.name}
        match action:
            case Start():
                kind = "block-dirty-bitmap-add"
                data |= {"granularity": self._block_size, "persistent": attachment.disk.persistent}
            case Stop():
                kind = "block-dirty-bitmap-disable"
            case Remove():
                kind = "block-dirty-bitmap-remove"
                data["node"] = self._bearer(seen, attachment, action.name)
        return {"type": kind, "data": data}

    @staticmethod
    def _bearer(seen: Look, attachment: Attachment, name: str) -> str:
        """The topmost node that carries the bitmap: it may have sunk below somebody's overlay."""
        for node in seen.graph.chain(attachment.root):
            if any(found.get("name") == name for found in node.bitmaps):
                return node.name
        return attachment.tracked

    def changed(self, seen: Look, tracks: Mapping[str, Sequence[str]]) -> dict[str, Blocks]:
        return {disk: Blocks().union(*each.values()) for disk, each in self.recorded(seen, tracks).items()}

    def recorded(self, seen: Look, tracks: Mapping[str, Sequence[str]]) -> dict[str, dict[str, Blocks]]:
        migration.require_still(self._qmp)
        wanted = {disk: bitmaps for disk, bitmaps in tracks.items() if bitmaps}
        found: dict[str, dict[str, Blocks]] = {disk: {} for disk in tracks}
        with self._exports.served():
            for number, (disk, bitmaps) in enumerate(wanted.items()):
                attachment, role = seen.attachment(disk), f"view{number}"
                read = self._read if attachment.stack is None else self.overlays.recorded
                found[disk] = read(attachment, bitmaps, role)
        return found

    def _read(self, attachment: Attachment, bitmaps: Sequence[str], role: str) -> dict[str, Blocks]:
        contexts = {name: f"qemu:dirty-bitmap:{name}" for name in bitmaps}
        with (
            self._view(attachment, bitmaps, role) as view,
            self._exports.offered(view, role, bitmaps=bitmaps) as export,
            nbd.Client(export, list(contexts.values())) as client,
        ):
            return {name: client.dirty(each, self._block_size) for name, each in contexts.items()}

    @contextlib.contextmanager
    def _view(self, attachment: Attachment, bitmaps: Sequence[str], role: str) -> Iterator[str]:
        """A node without data that has disabled copies of the disk's ``bitmaps``."""
        node = names.node(self._installation, role)
        self._qmp.execute("blockdev-add", driver="null-co", node_name=node, size=attachment.disk.size)
        try:
            for name in bitmaps:
                granularity = self._block_size
                self._qmp.execute(
                    "block-dirty-bitmap-add", node=node, name=name, granularity=granularity, disabled=True
                )
                source = {"node": attachment.tracked, "name": name}
                self._qmp.execute("block-dirty-bitmap-merge", node=node, target=name, bitmaps=[source])
            yield node
        finally:
            with contextlib.suppress(CommandFailed, errors.Unreachable):
                self._qmp.execute("blockdev-del", node_name=node)


def _is_layered(attachment: Attachment, action: Action) -> bool:
    if attachment.stack is None:
        return False
    return not isinstance(action, Remove) or action.name in attachment.stack.names
