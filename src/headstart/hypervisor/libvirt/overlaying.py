"""Recording by overlays in a domain: put on, read, committed back, taken off.

::

    vda                   vda                        vda
     |                     |                          |
     |    snapshot         v        blockcommit       v
     v     ------->    segment 2      ------->    segment 2
    segment 1              |                          |
     |                     v                          v
     v                 segment 1 (read here)        image
    image                  |
                           v
                         image

libvirt puts each step into the definition as well, so that the domain is started from the topmost segment by itself. A
snapshot is one of all disks at one moment, and leaves what stood before on the disk: nobody writes to it any longer,
and so it is read as the file that it is.
"""

from __future__ import annotations

import contextlib
import operator
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import libvirt

from headstart import blocks, durable, errors
from headstart.blocks import Blocks
from headstart.hypervisor import recording, segmentfile, witness
from headstart.hypervisor.contract import Remove
from headstart.hypervisor.libvirt import layers, obstacles
from headstart.hypervisor.libvirt.inventory import Attachment, Look
from headstart.hypervisor.overlays import Place, Segment
from headstart.hypervisor.recording import Stack
from headstart.wire import imagemap
from headstart.wire.libvirt import Domain

#: Between looks at a block job, unless an event tells.
LOOK_SECONDS = 0.2
#: A commit of what a guest wrote between two rounds, and what it goes on writing meanwhile.
COMMIT_SECONDS = 3600.0

_SNAPSHOT = (
    libvirt.VIR_DOMAIN_SNAPSHOT_CREATE_DISK_ONLY
    | libvirt.VIR_DOMAIN_SNAPSHOT_CREATE_ATOMIC
    | libvirt.VIR_DOMAIN_SNAPSHOT_CREATE_NO_METADATA
    | libvirt.VIR_DOMAIN_SNAPSHOT_CREATE_REUSE_EXT
)
_ACTIVE = libvirt.VIR_DOMAIN_BLOCK_COMMIT_ACTIVE
_PIVOT = libvirt.VIR_DOMAIN_BLOCK_JOB_ABORT_PIVOT

#: Where libvirt keeps the definitions of the system's domains.
DEFINITIONS = Path("/etc/libvirt/qemu")

#: By disk: marks that begin, and marks that end.
Changes = Mapping[str, tuple[Sequence[str], Sequence[str]]]


class Overlaying:
    """Of those disks of one domain that have a ``Stack``."""

    def __init__(self, domain: Domain, block_size: int) -> None:
        self._domain = domain
        self._block_size = block_size

    # -- looking

    def recorded(self, stack: Stack, wanted: Sequence[str]) -> dict[str, Blocks]:
        """What each of the named marks recorded in those segments that nobody writes to."""
        read = [each for each in stack.holding(wanted) if each in stack.segments[:-1]]
        found = {each: blocks.of_extents(imagemap.allocated(each.path), self._block_size) for each in read}
        return recording.recorded(wanted, found)

    # -- beginning and ending marks

    def rotate(self, seen: Look, changes: Changes) -> None:
        """A segment more on each of these disks, on all of them at one moment. All or nothing."""
        with self.prepared(seen, changes) as begin:
            begin()

    @contextlib.contextmanager
    def prepared(self, seen: Look, changes: Changes) -> Iterator[Callable[[], None]]:
        """The same in two steps: the segments are there inside, and what is yielded puts them on."""
        obstacles.wait_until_clear(self._domain, seen.targets)
        with contextlib.ExitStack() as undo:
            made = {disk: self._make(seen.attachment(disk), *each, undo) for disk, each in changes.items()}
            paths = {disk: segments[-1].path for disk, segments in made.items()}
            text = _description(paths, self._targets())

            def begin() -> None:
                # Where nobody tells whether it was done the next contact finds out, and nothing may be removed before.
                refused = undo.pop_all()
                try:
                    self._snapshot(text, paths)
                except errors.Unreachable:
                    raise
                except errors.HeadstartError:
                    refused.close()
                    raise

            yield begin
        for disk, segments in made.items():
            place = _stack(seen.attachment(disk)).place
            place.note(segments, recording.sealed(place, segments))

    def _make(
        self, attachment: Attachment, starts: Sequence[str], stops: Sequence[str], undo: contextlib.ExitStack
    ) -> tuple[Segment, ...]:
        stack, size = _stack(attachment), attachment.disk.size
        if not size:
            raise errors.Busy(f"libvirt does not tell how large disk {attachment.disk.name} is. Try again.")
        place, path = stack.place, stack.place.new()
        segments = recording.begun(stack.segments, path, starts, stops)
        below = stack.segments[-1].path if stack.segments else place.image
        undo.callback(place.remove, path)
        place.create(path, below, "qcow2" if stack.segments else stack.form, size)
        recording.require_room(place.folder, size)
        undo.callback(self._noted_again, stack)
        # Until the first one stands the guest writes to the image.
        place.note(segments, place.seal if stack.segments else recording.UNSEALED)
        return segments

    @staticmethod
    def _noted_again(stack: Stack) -> None:
        if stack.segments:
            stack.place.note(stack.segments, stack.place.seal)
        else:
            stack.place.forget()

    def _snapshot(self, text: str, paths: Mapping[str, Path]) -> None:
        try:
            self._domain.order(lambda domain: domain.snapshotCreateXML(text, _SNAPSHOT))
            _keep_definitions()
        except errors.HeadstartError as error:
            # The daemon may have been restarted meanwhile: it knows whether it was done before that.
            there = [self._files(disk)[:1] == [path] for disk, path in paths.items()]
            if all(there):
                return
            if any(there) or any(witness.look(str(path)).writer for path in paths.values()):
                raise errors.Unreachable(
                    f"libvirt lost track of the images of this VM when overlays were put on it: {error}"
                ) from error
            raise

    def _targets(self) -> list[str]:
        """Of all disks, also those that are left out: libvirt puts an overlay on each that is not named."""
        root = ElementTree.fromstring(self._xml())
        return [target.get("dev", "") for target in root.iterfind("devices/disk/target")]

    # -- ending them

    def remove(self, seen: Look, removes: Sequence[Remove]) -> None:
        """Forget marks, and take out segments that no other one needs; where none is left, all. Raises
        ``HeadstartError`` if one is not there, and then none has gone."""
        for disk, gone in recording.forgotten(removes, lambda disk: _stack(seen.attachment(disk))).items():
            attachment = seen.attachment(disk)
            stack = _stack(attachment)
            segments = recording.without(stack.segments, gone)
            stack.place.note(segments, stack.place.seal)
            if segments[-1].names:
                self.commit(attachment, segments, recording.nameless(segments))
            else:
                self.take_off(attachment, stack.place, stack.segments)

    def settle(self, seen: Look, disks: Sequence[str]) -> None:
        for disk in disks:
            attachment = seen.attachment(disk)
            if attachment.stack is not None and len(attachment.stack.segments) > 1:
                self.commit(attachment, attachment.stack.segments, len(attachment.stack.segments) - 1)

    def commit(self, attachment: Attachment, segments: tuple[Segment, ...], count: int) -> None:
        """Bring the lowest ``count`` segments into the image."""
        if not count:
            return
        place, target = _stack(attachment).place, attachment.disk.name
        gone, kept = segments[:count], segments[count:]
        # If it fails, or we die, there is nothing in these that is to be read: the next contact commits them.
        place.note(kept, place.seal)
        self._require_free(target, gone)
        place.note(kept, recording.UNSEALED)
        top = str(gone[-1].path)
        self._domain.order(operator.methodcaller("blockCommit", target, str(place.image), top, 0, 0))
        self._wait(target, lambda: not self._job(target))
        self._clear_away(target, place, gone, kept)

    def take_off(self, attachment: Attachment, place: Place, segments: tuple[Segment, ...]) -> None:
        """Bring everything into the image, which the domain runs on from then on."""
        target = attachment.disk.name
        self._require_free(target, segments)
        obstacles.wait_until_clear(self._domain, [target])
        place.note((), recording.LEAVING)
        self._domain.order(operator.methodcaller("blockCommit", target, str(place.image), None, 0, _ACTIVE))
        self._wait(target, lambda: self._is_ready(target) or not self._job(target))
        self._domain.order(operator.methodcaller("blockJobAbort", target, _PIVOT))
        self._wait(target, lambda: not self._job(target))
        self._clear_away(target, place, segments, ())
        place.forget()

    def _require_free(self, target: str, segments: Sequence[Segment]) -> None:
        for each in segments:
            if segmentfile.holds_snapshots(each.path):
                raise errors.Busy(
                    f"Somebody keeps an internal snapshot of disk {target} in the overlay {each.path}: it would be gone"
                    " with that. Remove it (virsh snapshot-delete), and try again."
                )

    def _clear_away(self, target: str, place: Place, gone: Sequence[Segment], kept: Sequence[Segment]) -> None:
        """Files go when what was in them is on the disk, and no definition leads to them any longer."""
        paths = [each.path for each in gone]
        used = {*self._files(target), *self._files(target, defined=True)} & set(paths)
        if used:
            raise errors.Busy(
                f"libvirt did not commit an overlay of ours, or its definition of the VM still names it:"
                f" {', '.join(map(str, sorted(used)))}. 'virsh dumpxml --inactive' shows the definition."
            )
        place.sync([each.path for each in kept])
        _keep_definitions()
        place.note(kept, recording.sealed(place, kept))
        for path in paths:
            place.remove(path)

    # -- what libvirt knows

    def _xml(self, flags: int = 0) -> str:
        text: str = self._domain.ask(lambda domain: domain.XMLDesc(flags))
        return text

    def _files(self, target: str, *, defined: bool = False) -> list[Path]:
        """The images of a disk that libvirt names, topmost first."""
        if defined and not self._domain.ask(lambda domain: domain.isPersistent()):
            return []
        root = ElementTree.fromstring(self._xml(libvirt.VIR_DOMAIN_XML_INACTIVE if defined else 0))
        return files(root, target)

    def defined(self, seen: Look) -> dict[str, Path]:
        """What each disk would be started from."""
        root = ElementTree.fromstring(self._xml(libvirt.VIR_DOMAIN_XML_INACTIVE))
        found = {each.disk.name: files(root, each.disk.name) for each in seen.attachments}
        return {disk: paths[0] for disk, paths in found.items() if paths}

    def _job(self, target: str) -> Mapping[str, Any]:
        found: Mapping[str, Any] = self._domain.ask(operator.methodcaller("blockJobInfo", target, 0))
        return found

    def _is_ready(self, target: str) -> bool:
        root = ElementTree.fromstring(self._xml())
        return root.find(f"devices/disk/target[@dev='{target}']/../mirror[@ready='yes']") is not None

    def _wait(self, target: str, over: Callable[[], bool]) -> None:
        deadline = time.monotonic() + COMMIT_SECONDS
        mark = self._domain.mark
        while not over():
            if time.monotonic() > deadline:
                raise errors.Busy(f"An overlay of ours on disk {target} is not committed after an hour.")
            self._domain.wait_event("block-job", LOOK_SECONDS, mark)
            mark = self._domain.mark

    # -- putting right

    def recover(self, seen: Look, installation: str, folder: Path) -> Iterator[str]:
        """What a run that died left between two steps; overlays that record nothing go. Of a domain that runs."""
        for attachment in seen.attachments:
            found = layers.covered(attachment.disk, installation, folder)
            if found.obstacle == layers.BURIED:
                yield f"disk {attachment.disk.name}: {found.obstacle}"
            elif found.obstacle != layers.THEIRS and found.place.in_use():
                yield from self._put_right(attachment, found.place, found.paths)

    def _put_right(self, attachment: Attachment, place: Place, paths: tuple[Path, ...]) -> Iterator[str]:
        target, stack = attachment.disk.name, attachment.stack
        segments = place.named(paths) if stack is None else stack.segments
        self._let_commit_end(target, place)
        doubt, lost = recording.doubt(place, paths) or recording.overdue(paths), recording.lost(place, paths)
        yield from self._tidied(target, place, paths, lost)
        if doubt:
            segments = recording.unbelieved(segments)
            place.note(segments, recording.UNSEALED)
            yield f"disk {target}: {doubt}"
        if not paths:
            place.forget()
        elif stack is not None and segments[-1].names:
            count = recording.nameless(segments)
            if count:
                self.commit(attachment, segments, count)
                yield f"overlays that nobody needed any longer were committed into {place.image}"
            elif place.seal != recording.sealed(place, segments):
                place.note(segments, recording.sealed(place, segments))
        elif self._domain.ask(lambda domain: domain.snapshotNum()):
            place.note(recording.unbelieved(segments), place.seal)
            yield f"the overlay of ours on disk {target} stays: {layers.SNAPSHOTS}"
        else:
            self.take_off(attachment, place, segments)
            why = f" ({attachment.disk.unlayered})" if attachment.disk.unlayered else ""
            yield f"overlays of ours on disk {target} record nothing{why}: they were committed into {place.image}"

    def _let_commit_end(self, target: str, place: Place) -> None:
        """One that a dead run began: nobody pivots, if that is what it waits for."""
        if place.seal == recording.LEAVING and self._job(target):
            self._domain.order(operator.methodcaller("blockJobAbort", target, 0))
            self._wait(target, lambda: not self._job(target))
        elif place.seal == recording.UNSEALED:
            obstacles.wait_until_clear(self._domain, [target])

    def _tidied(self, target: str, place: Place, paths: Sequence[Path], lost: Sequence[Path]) -> Iterator[str]:
        """Files of ours that are in no chain: those that were never put on or are committed go, others are told."""
        defined = self._files(target, defined=True)
        strays = place.strays(paths)
        if strays:
            # A dead run may have committed them, and nothing more.
            place.sync(paths)
            _keep_definitions()
        for path in strays:
            if witness.look(str(path)).writer:
                raise errors.Busy(
                    f"The overlay {path} of disk {target} is in use, and libvirt does not tell that the VM runs on it."
                    " Nothing was changed: shut the VM down, and look at 'virsh dumpxml'."
                )
            if path in defined:
                yield (
                    f"the definition of the VM names the overlay {path} of disk {target}, on which it does not run:"
                    " with its next start the disk would have again what it had then"
                )
                continue
            if path in lost:
                aside = place.put_aside(path)
                yield f"the overlay {path} of disk {target} was set aside: {aside} leads to it"
            else:
                place.remove(path)
                yield f"the overlay {path} of a dead run, which nothing stood on, was removed"


def _keep_definitions() -> None:
    """libvirt makes a definition durable, but not that it is the one of this name now."""
    with contextlib.suppress(OSError):
        durable.sync(DEFINITIONS)


def files(root: ElementTree.Element, target: str) -> list[Path]:
    """The images of a disk that an XML names, topmost first."""
    found = root.find(f"devices/disk/target[@dev='{target}']/..")
    named = []
    while found is not None:
        source = found.find("source")
        path = None if source is None else source.get("file") or source.get("dev")
        if path:
            named.append(Path(path))
        found = found.find("backingStore")
    return named


def _description(paths: Mapping[str, Path], targets: Sequence[str]) -> str:
    """XML of libvirt's formatsnapshot."""
    root = ElementTree.Element("domainsnapshot")
    disks = ElementTree.SubElement(root, "disks")
    for target in targets:
        path = paths.get(target)
        if path is None:
            ElementTree.SubElement(disks, "disk", name=target, snapshot="no")
            continue
        disk = ElementTree.SubElement(disks, "disk", name=target, snapshot="external", type="file")
        ElementTree.SubElement(disk, "driver", type="qcow2")
        ElementTree.SubElement(disk, "source", file=str(path))
    return ElementTree.tostring(root, encoding="unicode")


def _stack(attachment: Attachment) -> Stack:
    assert attachment.stack is not None, "only disks that overlays record"
    return attachment.stack
