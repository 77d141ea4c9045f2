"""Recording by overlays in a running QEMU: put on, read, committed back.

::

    guest device         guest device             guest device
        |                    |                        |
        |    snapshot        v       block-commit     v
        v     ------->   segment 2     ------->   segment 2
    segment 1                |                        |
        |                    v                        v
        v                segment 1 (read here)      image
      image                  |
                             v
                           image

What is recorded by a mark is what is allocated in the segments that have its name; each is asked for by itself, through
an export of its node, so that what was written again above does not hide it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from headstart import durable, errors
from headstart.blocks import Blocks
from headstart.hypervisor import names, overlays, recording, segmentfile
from headstart.hypervisor.contract import Action, Remove
from headstart.hypervisor.overlays import Place, Segment
from headstart.hypervisor.qemu import jobs
from headstart.hypervisor.qemu.anchor import Anchor
from headstart.hypervisor.qemu.exports import Exports
from headstart.hypervisor.qemu.inventory import Attachment, Look
from headstart.hypervisor.qemu.layers import Stack
from headstart.wire import nbd
from headstart.wire.qmp import CommandFailed, Qmp

DEPTH = "qemu:allocation-depth"


class Overlaying:
    """Of those disks of one VM that have a ``Stack``."""

    def __init__(self, qmp: Qmp, installation: str, exports: Exports, anchor: Anchor, block_size: int) -> None:
        self._qmp = qmp
        self._installation = installation
        self._exports = exports
        self._anchor = anchor
        self._block_size = block_size

    # -- looking

    def recorded(self, attachment: Attachment, wanted: Sequence[str], role: str) -> dict[str, Blocks]:
        """What each of the named marks recorded. The NBD server has to run."""
        stack = _stack(attachment)
        read = enumerate(stack.holding(wanted))
        allocated = {each: self._allocated(stack.node(each), f"{role}-{number}") for number, each in read}
        return recording.recorded(wanted, allocated)

    def _allocated(self, node: str, role: str) -> Blocks:
        """The blocks that the node itself has something of, be it zeroes."""
        with (
            self._exports.offered(node, role, depth=True) as export,
            nbd.Client(export, [DEPTH]) as client,
        ):
            return client.topmost(DEPTH, self._block_size)

    # -- beginning and ending marks

    @contextlib.contextmanager
    def changing(self, seen: Look, actions: Sequence[Action]) -> Iterator[list[dict[str, Any]]]:
        """Actions for a transaction of QEMU's, in which marks begin and end as ``Start`` and ``Stop`` say. What was
        prepared for it is taken back if the transaction fails."""
        wanted = recording.by_disk(actions)
        if wanted:
            self._anchor.hold()
        begun: list[tuple[Place, tuple[Segment, ...]]] = []
        with contextlib.ExitStack() as undo:
            orders = []
            for disk, (starts, stops) in wanted.items():
                order, segments = self._begin(seen, seen.attachment(disk), starts, stops, undo)
                orders.append(order)
                begun.append((_stack(seen.attachment(disk)).place, segments))
            # Where nobody tells whether it was done the next contact finds out, and nothing may be removed before.
            refused = undo.pop_all()
        try:
            yield orders
        except errors.Unreachable:
            raise
        except errors.HeadstartError:
            refused.close()
            raise
        for place, segments in begun:
            durable.sync(segments[-2].path)
            place.note(segments, recording.sealed(place, segments))

    def _begin(
        self, seen: Look, attachment: Attachment, starts: list[str], stops: list[str], undo: contextlib.ExitStack
    ) -> tuple[dict[str, Any], tuple[Segment, ...]]:
        stack, place = _stack(attachment), _stack(attachment).place
        path = place.new()
        segments = recording.begun(stack.segments, path, starts, stops)
        top = seen.graph.nodes[attachment.tracked]
        recording.require_room(place.folder, attachment.disk.size)
        top_path = stack.segments[-1].path
        undo.callback(place.remove, path)
        place.create(path, top_path, "qcow2", attachment.disk.size)
        node = f"headstart-{self._installation}-{segments[-1].id}"
        undo.callback(self._delete, node)
        self._add(node, path, direct=top.direct)
        undo.callback(place.note, stack.segments, place.seal)
        place.note(segments, place.seal)
        undo.callback(place.point, top_path)
        # From here on a start opens the new segment, which is empty: what the guest writes until QEMU is told goes
        # to the one below.
        place.point(path)
        undo.callback(segmentfile.thaw, top_path)
        segmentfile.freeze(top_path)
        return {"type": "blockdev-snapshot", "data": {"node": attachment.tracked, "overlay": node}}, segments

    def _add(self, node: str, path: Any, *, direct: bool) -> None:
        cache = {"direct": direct}
        file = {"driver": "file", "filename": str(path), "cache": cache, "discard": "unmap"}
        self._qmp.call(
            "blockdev-add",
            {
                "driver": "qcow2",
                "node-name": node,
                "file": file,
                "backing": None,
                "cache": cache,
                "discard": "unmap",
            },
        )

    def remove(self, seen: Look, removes: Sequence[Remove]) -> None:
        """Forget marks, and take out segments that no other one needs. Raises ``HeadstartError`` if one is not there,
        and then none has gone."""
        for disk, gone in recording.forgotten(removes, lambda disk: _stack(seen.attachment(disk))).items():
            attachment = seen.attachment(disk)
            stack = _stack(attachment)
            segments = recording.without(stack.segments, gone)
            stack.place.note(segments, stack.place.seal)
            self._commit(attachment, segments, recording.nameless(segments))

    def settle(self, seen: Look, disks: Iterable[str]) -> None:
        for disk in disks:
            attachment = seen.attachment(disk)
            if attachment.stack is not None and len(attachment.stack.segments) > 1:
                self._commit(attachment, attachment.stack.segments, len(attachment.stack.segments) - 1)

    # -- committing

    def _commit(self, attachment: Attachment, segments: tuple[Segment, ...], count: int) -> None:
        """Bring the lowest ``count`` segments into the image."""
        if not count:
            return
        self._anchor.hold()
        stack = _stack(attachment)
        gone, kept = segments[:count], segments[count:]
        # If it fails, or we die, there is nothing in these that is to be read: the next contact commits them.
        stack.place.note(kept, recording.UNSEALED)
        self._run(
            {
                "device": attachment.tracked,
                "top-node": stack.nodes[count - 1],
                "base-node": stack.below,
                "backing-file": str(stack.place.image),
            }
        )
        self._clear_away(stack, gone, kept)

    def _clear_away(self, stack: Stack, gone: Sequence[Segment], kept: Sequence[Segment]) -> None:
        """Files go when what was in them is on the disk, and nothing leads to them any longer."""
        stack.place.sync([each.path for each in kept])
        stack.place.note(kept, recording.sealed(stack.place, kept))
        for each in gone:
            self._delete(stack.node(each))
            stack.place.remove(each.path)

    def _run(self, arguments: Mapping[str, Any]) -> None:
        """A commit job to its end. Raises ``Busy``; the chain is whole then, too."""
        job = names.node(self._installation, "settle")
        try:
            self._qmp.call("block-commit", {"job-id": job, "auto-dismiss": False, **arguments})
            failure = jobs.wait(self._qmp, job)
        except CommandFailed as error:
            failure = error.text
        finally:
            jobs.end(self._qmp, job)
        if failure:
            raise errors.Busy(
                f"QEMU could not commit an overlay of ours into {arguments['backing-file']}: {failure}. That is tried"
                " again with each contact, and nothing is backed up before."
            )

    def _delete(self, node: str) -> None:
        with contextlib.suppress(CommandFailed, errors.Unreachable):
            self._qmp.execute("blockdev-del", node_name=node)

    # -- putting right

    def recover(self, seen: Look, installed: Iterable[str]) -> Iterator[str]:
        """What a run that died left between two steps. ``installed``: all nodes of QEMU."""
        layered = [(each, each.stack) for each in seen.attachments if each.stack is not None]
        known = {node for _, stack in layered for node in stack.nodes}
        doubts = [recording.doubt(each.place, _paths(each)) or recording.overdue(_paths(each)) for _, each in layered]
        lost = {path for _, stack in layered for path in recording.lost(stack.place, _paths(stack))}
        for _, stack in layered:
            yield from self._mended(stack)
        for node in sorted(set(installed) - self._anchor.names):
            if node.startswith(f"headstart-{self._installation}-") and node not in known:
                self._delete(node)
        for (attachment, stack), doubt in zip(layered, doubts, strict=True):
            yield from self._tidied(attachment, stack, lost)
            segments = recording.unbelieved(stack.segments) if doubt else stack.segments
            if doubt:
                stack.place.note(segments, recording.UNSEALED)
                yield f"disk {attachment.disk.name}: {doubt}"
            count = recording.nameless(segments)
            if count:
                self._commit(attachment, segments, count)
                yield f"overlays that nobody needed any longer were committed into {stack.place.image}"
            elif stack.names and stack.place.seal != recording.sealed(stack.place, segments):
                stack.place.note(segments, recording.sealed(stack.place, segments))

    def _tidied(self, attachment: Attachment, stack: Stack, lost: Container[Path]) -> Iterator[str]:
        """Files of ours that are in no chain."""
        strays = stack.place.strays(_paths(stack))
        if strays:
            # A dead run may have committed them, and nothing more.
            stack.place.sync(_paths(stack))
        for path in strays:
            # A QEMU that waits for the VM may have opened it.
            self._anchor.hold()
            if path in lost:
                aside = stack.place.put_aside(path)
                yield f"the overlay {path} of disk {attachment.disk.name} was set aside: {aside} leads to it"
            else:
                stack.place.remove(path)
                yield f"the overlay {path} of a dead run, which nothing stood on, was removed"

    def _mended(self, stack: Stack) -> Iterator[str]:
        """The head led to a segment that QEMU was never told of."""
        top = stack.segments[-1].path
        if stack.place.target() != top:
            self._anchor.hold()
            segmentfile.thaw(top)
            stack.place.point(top)
            stack.place.note(stack.segments, stack.place.seal)
            yield f"{stack.place.head} leads to the overlay again that is written to"


def _stack(attachment: Attachment) -> Stack:
    assert attachment.stack is not None, "only disks that overlays record"
    return attachment.stack


def _paths(stack: Stack) -> list[Path]:
    return list(overlays.paths(stack.segments))


def prepare(attachment: Attachment, place: Place) -> Iterator[str]:
    """Let there be a head to start the VM from, which runs on the image itself now: an empty overlay, as long as
    nobody has started from it. What is to be known of it is said once."""
    disk, stack = attachment.disk, place.stack()
    if stack and not recording.is_blank(stack):
        aside = place.set_aside()
        yield (
            f"disk {disk.name} was started from {place.image}, and what its guest had written to the overlays on it is"
            f" not in it. They were set aside: {aside} leads to them"
        )
    elif stack and segmentfile.size_of(stack[-1].path) == disk.size:
        return
    path = place.new()
    place.create(path, place.image, disk.format, disk.size)
    place.point(path)
    # It has no marks, whatever those before it had.
    place.forget()
    for each in stack if recording.is_blank(stack) else ():
        place.remove(each.path)
    yield (
        f"disk {disk.name} is recorded by overlays as soon as the VM is started from $(readlink -f {place.head}),"
        f" format qcow2, instead of {place.image}"
    )
