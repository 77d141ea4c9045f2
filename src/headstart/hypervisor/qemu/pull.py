"""A point in time that is read from outside: copy-before-write filters and snapshot-access nodes.

::

    guest device                         guest device
        |                                    |
        |                    qom-set         v
        |                   ------->   copy-before-write ---> scratch file (local)
        v                                    |   ^
      disk                                   v   |
                                           disk  snapshot-access <-- NBD export, ours

A write of the guest to a protected block first saves the old content to the scratch file. If that
fails or lasts longer than ``CBW_SECONDS``, the point in time breaks and the guest goes on.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from typing import Any

from headstart import blocks, errors
from headstart.blocks import Blocks
from headstart.hypervisor import names, space
from headstart.hypervisor.contract import PointRequest, Protects, of_disk
from headstart.hypervisor.freeze import Freeze, frozen
from headstart.hypervisor.guard import Guard
from headstart.hypervisor.qemu import freeze, inventory, migration, scratch, standstill
from headstart.hypervisor.qemu.inventory import Attachment, Look
from headstart.hypervisor.qemu.site import Site
from headstart.wire import nbd
from headstart.wire.qmp import Command, CommandFailed, Qmp

#: The longest a guest's write waits for us, once; then the point in time is given up.
CBW_SECONDS = 3


class PullPoint:
    """``headstart.hypervisor.contract.PointInTime`` by filters; protects everything until ``keep``."""

    protects = Protects.ALL

    def __init__(self, site: Site, seen: Look, request: PointRequest, watch: migration.Watch) -> None:
        """``watch`` begins here, and lasts as long as anything of the point stands."""
        self._site = site
        self._watch = watch
        self._seen = seen
        self._stack = contextlib.ExitStack()
        self._offers = contextlib.ExitStack()
        self._clients: dict[str, nbd.Client] = {}
        self._exports: dict[str, nbd.Export] = {}
        self._inserted: dict[str, Attachment] = {}
        #: What is still protected, of disks of which something was let go.
        self._kept: dict[str, Blocks] = {}
        self._reads = request.reads
        self.pause_seconds = 0.0
        self.notes: list[str] = []
        space.require_local(site.scratch)
        space.require(site.scratch, sum(request.reserve.values()), "The point in time")
        try:
            self._stack.enter_context(watch)
            with (
                freeze.agent(site, request, self.notes) as freezer,
                Guard(site.qmp.fileno(), freezer.order if freezer else None, site.stopped, site.qmp.close) as guard,
            ):
                self._stand(request, guard, freezer)
            self._offer()
        except BaseException:
            self._withdraw()
            raise

    def _stand(self, request: PointRequest, guard: Guard, qga: Any) -> None:
        filters = [self._prepare(number, each) for number, each in enumerate(self._seen.attachments)]
        self._flush()
        with self._freezing(guard, qga) as outcome:
            if len(filters) > 1:
                # What the freeze made the guest write, before QEMU flushes it while it stands still.
                self._flush()
            self._site.bitmaps.transact(self._seen, request.starts)
            if len(filters) == 1:
                self._site.qmp.call(*_root(*filters[0]))
                self._inserted[filters[0][0].disk.name] = filters[0][0]
            else:
                self._inserted = {attachment.disk.name: attachment for attachment, _ in filters}
                self.pause_seconds = standstill.carry_out(self._site.qmp, guard, [_root(*each) for each in filters])
        self.consistency = outcome.consistency
        self.freeze_seconds = outcome.freeze_seconds
        self._began = outcome.began

    @contextlib.contextmanager
    def _freezing(self, guard: Guard, freezer: Any) -> Iterator[Freeze]:
        """As ``frozen``; a migration that has begun meanwhile is not gone into."""
        # The agent in the guest thaws by itself, wherever the guest is.
        order = freezer.order if isinstance(freezer, freeze.ThroughQga) else None
        with self._watch.thawing(order), frozen(guard, freezer, self.notes) as outcome:
            migration.require_still(self._site.qmp)
            yield outcome

    def _flush(self) -> None:
        space.flush([inventory.active_image(each) for each in self._seen.attachments])

    def _prepare(self, number: int, attachment: Attachment) -> tuple[Attachment, str]:
        """The filter of one disk, not yet in the guest's way."""
        qmp = self._site.qmp
        path = self._site.file(f"scratch{number}")
        self._stack.callback(path.unlink, missing_ok=True)
        target, name = self._site.node(f"scratch{number}"), self._site.node(f"cbw{number}")
        scratch.add(qmp, path, attachment.disk.size, target)
        self._stack.callback(self._delete, target)
        qmp.call(
            "blockdev-add",
            {
                "driver": "copy-before-write",
                "node-name": name,
                "file": attachment.root,
                "target": target,
                "on-cbw-error": "break-snapshot",
                "cbw-timeout": CBW_SECONDS,
            },
        )
        self._stack.callback(self._delete, name)
        return attachment, name

    def _offer(self) -> None:
        self._offers.enter_context(self._site.exports.served())
        for number, each in enumerate(self._seen.attachments):
            name = self._site.node(f"access{number}")
            self._site.qmp.execute(
                "blockdev-add",
                driver="snapshot-access",
                node_name=name,
                file=self._site.node(f"cbw{number}"),
                discard="unmap",
            )
            self._offers.callback(self._delete, name)
            # Writable only so that TRIM is taken; the node refuses writes.
            offer = self._site.exports.offered(name, f"point{number}", writable=True)
            export = self._offers.enter_context(offer)
            self._exports[each.disk.name] = export
            client = nbd.Client(export, failure=self._watch.failure(errors.PointLost))
            self._clients[each.disk.name] = self._offers.enter_context(client)

    def recorded(self) -> dict[str, dict[str, Blocks]]:
        return self._site.bitmaps.recorded(self._seen, self._reads)

    def reader(self, disk: str) -> nbd.Client:
        return of_disk(self._clients, disk)

    def protected(self, disk: str) -> Blocks | None:
        return None

    def keep(self, disk: str, wanted: Blocks) -> None:
        size, block_size = self._seen.attachment(disk).disk.size, self._site.block_size
        kept = self._kept.get(disk)
        gone = (blocks.everything(size, block_size) if kept is None else kept) - wanted
        self._clients[disk].trim(blocks.to_extents(gone, block_size, size))
        self._kept[disk] = wanted.copy()

    def uri(self, disk: str) -> str:
        return self._exports[disk].uri

    def check(self) -> None:
        """Reads fail once a point is broken; what is left to see is whether the filters still stand."""
        self._watch.require_still()
        roots = _roots(self._site.qmp)
        for number, each in enumerate(self._seen.attachments):
            if roots.get(each.device) != self._site.node(f"cbw{number}"):
                raise errors.PointLost(
                    f"Disk {each.disk.name} was changed by somebody else (unplugged, or another filter inserted)"
                    " while it was being backed up."
                )

    def release(self) -> float:
        # While anything reads through a filter, QEMU does not let the guest write past it.
        self._offers.close()
        self._remove_filters()
        window = time.monotonic() - self._began
        self._withdraw()
        return window

    def _remove_filters(self) -> None:
        while self._inserted:
            name, attachment = next(iter(self._inserted.items()))
            put_back(self._site, attachment.device, attachment.root)
            del self._inserted[name]

    def _withdraw(self) -> None:
        """Best effort: what cannot be taken away now is put right at the next contact. Nothing is tried where the guard
        has the connection."""
        for step in (self._offers.close, self._remove_filters, self._stack.close):
            with contextlib.suppress(errors.HeadstartError):
                step()

    def _delete(self, node: str) -> None:
        with contextlib.suppress(CommandFailed, errors.Unreachable):
            self._site.qmp.execute("blockdev-del", node_name=node)

    def __enter__(self) -> PullPoint:
        return self

    def __exit__(self, *details: object) -> None:
        self._withdraw()


def put_back(site: Site, device: str, root: str) -> None:
    """Let a device stand on its own node again. One that was unplugged meanwhile, or on which no filter of ours stands
    (any longer), needs nothing: told to stand on what it stands on, this QEMU aborts (``bdrv_replace_child_noperm:
    old_bs != new_bs``)."""
    with site.putting_back:
        roots = _roots(site.qmp)
        if not names.is_node_of(site.installation, roots.get(device, "")):
            return
        try:
            site.qmp.execute("qom-set", path=device, property="drive", value=root)
        except CommandFailed as error:
            if error.kind != "DeviceNotFound":
                raise errors.Busy(f"The filter on {device} cannot be taken out: {error.text}") from error


def _roots(qmp: Qmp) -> dict[str, str]:
    """The node that each device stands on."""
    found = qmp.execute("query-block")
    return {each.get("qdev", ""): each.get("inserted", {}).get("node-name", "") for each in found}


def _root(attachment: Attachment, node: str) -> Command:
    """Let the guest's device stand on another node."""
    return "qom-set", {"path": attachment.device, "property": "drive", "value": node}
