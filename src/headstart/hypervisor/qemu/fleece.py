"""Filters that protect just what is wanted, with nodes from which QEMU itself can read the point in time.

::

    guest device                  guest device
        |                             v
        |         stop          copy-before-write ---> scratch file (local)
        v       ------->              |    ^
      disk        cont                v    |
                                    disk  snapshot-access, for jobs of ours

For disks that an iothread serves. While one is at work, this QEMU aborts when a node is put upon it
(``blockdev-add`` waits for the disk's requests without the lock of its thread:
``qemu_mutex_unlock_impl: Operation not permitted``). In a stopped VM nothing is under way and there is
nothing to wait for: all is added there. It can be taken away while the guest runs: those commands do lock.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from headstart import blocks, errors
from headstart.blocks import Blocks
from headstart.hypervisor.contract import PointRequest
from headstart.hypervisor.guard import Guard
from headstart.hypervisor.qemu import scratch, standstill
from headstart.hypervisor.qemu.inventory import Attachment, Look
from headstart.hypervisor.qemu.migration import Watch
from headstart.hypervisor.qemu.pull import CBW_SECONDS, PullPoint
from headstart.hypervisor.qemu.site import Site
from headstart.wire import nbd
from headstart.wire.qmp import Command

#: The bitmap of what is wanted, on whatever node it stands.
WANTED = "wanted"


class Fleece(PullPoint):
    """Filters and nodes to read from; nothing is exported. A context manager.

    Until the point in time ``request.ends`` go on recording; there they are frozen and added to what is wanted.
    """

    def __init__(self, site: Site, seen: Look, request: PointRequest, watch: Watch) -> None:
        self._wishes: list[str] = []
        super().__init__(site, seen, request, watch)

    def access(self, number: int) -> str:
        """The node of a disk's point in time. Its bitmap ``WANTED`` tells what can be read of it."""
        return self._site.node(f"access{number}")

    def _stand(self, request: PointRequest, guard: Guard, qga: Any) -> None:
        with contextlib.ExitStack() as wishes:
            for number, each in enumerate(self._seen.attachments):
                self._scratch(number, each)
                wish = self._wish(number, each, request.wanted.get(each.disk.name, Blocks()))
                self._wishes.append(wishes.enter_context(wish))
            self._flush()
            with self._freezing(guard, qga) as outcome:
                self._flush()
                self._site.bitmaps.transact(self._seen, request.starts)
                self._insert(request, guard)
            for number in range(len(self._wishes)):
                self._tell(number)
        self.consistency = outcome.consistency
        self.freeze_seconds = outcome.freeze_seconds
        self._began = outcome.began

    def _scratch(self, number: int, attachment: Attachment) -> None:
        """A file to save what the guest overwrites."""
        path, node = self._site.file(f"scratch{number}"), self._site.node(f"scratch{number}")
        self._stack.callback(path.unlink, missing_ok=True)
        scratch.add(self._site.qmp, path, attachment.disk.size, node)
        self._stack.callback(self._delete, node)

    @contextlib.contextmanager
    def _wish(self, number: int, attachment: Attachment, wanted: Blocks) -> Iterator[str]:
        """A node without data in whose bitmap the wanted bits are set: QEMU has no command for that, but a
        write does it, and here it reaches nobody's disk."""
        qmp, node, size = self._site.qmp, self._site.node(f"wish{number}"), attachment.disk.size
        qmp.execute("blockdev-add", driver="null-co", node_name=node, size=size)
        try:
            self._add_bitmap(node)
            with (
                self._site.exports.served(),
                self._site.exports.offered(node, f"wish{number}", writable=True) as offer,
                nbd.Client(offer, failure=errors.PointLost) as client,
            ):
                client.zero(blocks.to_extents(wanted, self._site.block_size, size))
            yield node
        finally:
            self._delete(node)

    def _insert(self, request: PointRequest, guard: Guard) -> None:
        """All filters at one moment."""
        orders = [*self._ends(request)]
        for number, each in enumerate(self._seen.attachments):
            orders += self._filter(number, each)
        self.pause_seconds = standstill.carry_out(self._site.qmp, guard, orders)

    def _ends(self, request: PointRequest) -> Iterator[Command]:
        """What the ended bitmaps recorded is wanted too."""
        wishes = {each.disk.name: wish for each, wish in zip(self._seen.attachments, self._wishes, strict=True)}
        for stop in request.ends:
            source = {"node": self._seen.attachment(stop.disk).tracked, "name": stop.name}
            yield (
                "block-dirty-bitmap-merge",
                {"node": wishes[stop.disk], "target": WANTED, "bitmaps": [source]},
            )
        if request.ends:
            actions = [self._site.bitmaps.action(self._seen, stop) for stop in request.ends]
            yield "transaction", {"actions": actions}

    def _filter(self, number: int, attachment: Attachment) -> Iterator[Command]:
        """Orders to insert the filter of one disk, with a node to read from."""
        name = self._site.node(f"cbw{number}")
        self._stack.callback(self._delete, name)
        yield (
            "blockdev-add",
            {
                "driver": "copy-before-write",
                "node-name": name,
                "file": attachment.root,
                "target": self._site.node(f"scratch{number}"),
                "bitmap": {"node": self._wishes[number], "name": WANTED},
                "on-cbw-error": "break-snapshot",
                "cbw-timeout": CBW_SECONDS,
            },
        )
        self._inserted[attachment.disk.name] = attachment
        yield "qom-set", {"path": attachment.device, "property": "drive", "value": name}
        # Not before the filter has its place: with a parent, it refuses to share the disk with the device.
        self._offers.callback(self._delete, self.access(number))
        yield "blockdev-add", {"driver": "snapshot-access", "node-name": self.access(number), "file": name}

    def _tell(self, number: int) -> None:
        """Put the bitmap of what is wanted where a job looks for it."""
        self._add_bitmap(self.access(number))
        source = {"node": self._wishes[number], "name": WANTED}
        self._site.qmp.execute("block-dirty-bitmap-merge", node=self.access(number), target=WANTED, bitmaps=[source])

    def _add_bitmap(self, node: str) -> None:
        granularity = self._site.block_size
        self._site.qmp.execute("block-dirty-bitmap-add", node=node, name=WANTED, granularity=granularity)

    def _offer(self) -> None:
        """Nobody from outside: this QEMU aborts when an NBD client leaves a node of an iothread."""

    def __enter__(self) -> Fleece:
        return self
