"""Starting a domain of libvirt's from a backup, and moving it to real storage: as ``boot`` and ``moving`` for QEMU.

libvirt mirrors each disk (``virDomainBlockCopy``), and takes the bitmaps of our checkpoints along.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import os
import time
import uuid
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

import libvirt

from headstart import errors, plain
from headstart.hypervisor.contract import Start
from headstart.hypervisor.inventory import Disk as LiveDisk
from headstart.hypervisor.libvirt import inventory
from headstart.hypervisor.libvirt.machine import LibvirtMachine
from headstart.hypervisor.libvirt.place import give, require_local
from headstart.repository.manifest import Disk
from headstart.restore.booting import boot, domainxml, runplace
from headstart.restore.booting.boot import Wanted
from headstart.restore.booting.domain import DomainInstance
from headstart.restore.booting.domainxml import Around
from headstart.restore.booting.hold import Hold
from headstart.restore.booting.instance import require_memory
from headstart.restore.booting.marks import Marks
from headstart.restore.booting.moving import RETRY_SECONDS, Progress, go_over
from headstart.restore.booting.overlays import Overlays
from headstart.restore.serving.serving import Serving, Source, Unix
from headstart.wire import libvirt as wire
from headstart.wire.libvirt import Domain

_log = logging.getLogger(__name__)

#: Writes go to both images until the move ends: so it does end.
_COPY = libvirt.VIR_DOMAIN_BLOCK_COPY_TRANSIENT_JOB | libvirt.VIR_DOMAIN_BLOCK_COPY_SYNCHRONOUS_WRITES


@dataclass(frozen=True, slots=True)
class BootedDomain:
    instance: DomainInstance
    served: Serving
    overlays: Overlays
    definition: str
    around: Around
    notes: tuple[str, ...]
    consoles: tuple[Path, ...]


@contextlib.contextmanager
def booted(source: Source, wanted: Wanted, uri: str) -> Iterator[BootedDomain]:
    """The domain, before its guest runs. Raises as ``boot.booted``."""
    manifest = source.manifest
    require_local(uri)
    text = wanted.definition or boot.definition_of(source.repo, manifest)
    if not boot.is_domain(text):
        raise errors.Unsupported(f"{plain.line(manifest.vm)} is no domain of libvirt's: boot it without --libvirt.")
    root = domainxml.parse(text)
    variables = boot.variables_of(source.repo, manifest)
    boot.require_whole(source.repo, manifest)
    owner, other = _there(uri, wanted.name, domainxml.uuid_of(text), root.get("type", "kvm"))
    names = [disk.name for disk in manifest.disks]
    unix = Unix(wanted.folder / "nbd")
    with contextlib.ExitStack() as stack:
        stack.enter_context(runplace.claimed(wanted.folder))
        overlays = stack.enter_context(Overlays(wanted.overlays, manifest, kept=wanted.kept))
        place = boot.placed(wanted, overlays, variables)
        around = Around(place, {name: unix.export(name) for name in names}, other, logged=True)
        derived = domainxml.derive(text, manifest.disks, around)
        require_memory(derived.memory, free=wanted.rehearsed)
        served = stack.enter_context(Serving(source, names, unix))
        images = overlays.make(around.below)
        variables_file = [place.variables] if place.variables is not None else []
        _let_in(owner, (wanted.folder, overlays.folder), (unix.socket, *images.values(), *variables_file))
        instance = stack.enter_context(DomainInstance(uri, derived.xml, outlives=wanted.outlives))
        notes = (*derived.notes, *(("it goes on with what it wrote the last time",) * overlays.again))
        yield BootedDomain(instance, served, overlays, text, around, notes, derived.consoles)


def _there(uri: str, name: str, wanted: str, kind: str) -> tuple[tuple[int, int] | None, str]:
    """The user and group that QEMU is, and another UUID where a domain has the wanted one. Raises ``Usage`` for a name
    that is taken."""
    taken = {str(each.UUIDString()): str(each.name()) for each in wire.domains(uri)}
    if name in taken.values():
        raise errors.Usage(
            f"libvirt at {uri} has a domain {name!r}. Take another --name. If that one is lost and off, keep what"
            f" 'virsh dumpxml --inactive {name}' says, and take it away: 'virsh undefine {name} --checkpoints-metadata"
            " --keep-nvram'."
        )
    connection = wire.open_connection(uri)
    try:
        owner = inventory.default_owner(connection.getCapabilities(), kind)
    finally:
        connection.close()
    return owner, str(uuid.uuid4()) if wanted in taken or not wanted else ""


def _let_in(owner: tuple[int, int] | None, folders: tuple[Path, ...], files: tuple[Path, ...]) -> None:
    for folder in folders:
        give(folder, owner)
    if owner is not None and owner[0] not in (0, os.geteuid()):
        for file in files:
            os.chown(file, *owner)


def begin(uri: str, name: str, marks: Marks, scratch: Path) -> None:
    """The marks that the next backup stands on, before the guest's first instruction."""
    with LibvirtMachine(uri, name, installation=marks.installation, scratch=scratch, label=name) as machine:
        machine.transact([Start(disk, marks.name(disk)) for disk in marks.nonces])


def described(
    uri: str, name: str, disks: Collection[str], installation: str, scratch: Path
) -> tuple[list[LiveDisk], Mapping[str, str]]:
    """The disks as they are now, and what finds our checkpoints again."""
    with LibvirtMachine(uri, name, installation=installation, scratch=scratch, label=name) as machine:
        found = [disk for disk in machine.inventory().disks if disk.name in disks]
        return found, machine.keepsakes()


def move(
    domain: Domain,
    hold: Hold,
    images: Mapping[str, Path],
    progress: Progress,
    attend: Callable[[], None],
    moved: Callable[[], None] = lambda: None,
) -> None:
    """Each disk into its image, which is made; all of them go over when all are ready. As ``moving.move`` does it, the
    guest stands still meanwhile."""
    go_over([_Move(domain, disk, image) for disk, image in images.items()], progress, attend, hold)
    moved()
    hold.end()


class _Move:
    """A ``Move`` by libvirt."""

    def __init__(self, domain: Domain, disk: str, image: Path) -> None:
        self._domain = domain
        self._disk = disk
        self._image = image
        self._completing = self.gone_over = False
        #: When a job failed.
        self._failed = 0.0
        target = ElementTree.Element("disk", type="file")
        ElementTree.SubElement(target, "driver", name="qemu", type="qcow2")
        ElementTree.SubElement(target, "source", file=str(image))
        self._target = ElementTree.tostring(target, encoding="unicode")

    def begin(self) -> None:
        self._domain.order(lambda each: each.blockCopy(self._disk, self._target, {}, _COPY))

    def is_ready(self, progress: Progress) -> bool:
        """A job that failed is begun again after a while."""
        if self._failed:
            if time.monotonic() - self._failed > RETRY_SECONDS:
                self.begin()
                self._failed = 0.0
            return False
        job = self._domain.ask(lambda each: each.blockJobInfo(self._disk, 0))
        if not job:
            _log.warning("moving disk %s failed; it is begun again in %d s", plain.line(self._disk), RETRY_SECONDS)
            self._failed = time.monotonic()
            self._image.unlink(missing_ok=True)
            return False
        progress(f"moving {self._disk}", int(job["cur"]), int(job["end"]))
        root = ElementTree.fromstring(self._domain.ask(lambda each: each.XMLDesc(0)))
        return root.find(f"devices/disk/target[@dev='{self._disk}']/../mirror[@ready='yes']") is not None

    def complete(self) -> None:
        self._completing = True
        self._domain.order(lambda each: each.blockJobAbort(self._disk, libvirt.VIR_DOMAIN_BLOCK_JOB_ABORT_PIVOT))
        self.gone_over = True

    def give_up(self) -> None:
        """Unless it has gone over."""
        if self.gone_over:
            return
        with contextlib.suppress(errors.HeadstartError):
            self._domain.order(lambda each: each.blockJobAbort(self._disk, 0))
        self.gone_over = self._completing and self._is_there()
        if not self.gone_over:
            self._image.unlink(missing_ok=True)

    def _is_there(self) -> bool:
        """The disk stands on the new image, or nobody tells."""
        try:
            root = ElementTree.fromstring(self._domain.ask(lambda each: each.XMLDesc(0)))
        except errors.HeadstartError:
            return True
        source = root.find(f"devices/disk/target[@dev='{self._disk}']/../source")
        return source is not None and source.get("file") == str(self._image)


def settle(vm: BootedDomain, uri: str, disks: tuple[Disk, ...], images: Mapping[str, Path]) -> None:
    """libvirt keeps the domain, with its disks where they are now and its network as it was."""
    place = dataclasses.replace(vm.around.place, images=images, network=True)
    derived = domainxml.derive(vm.definition, disks, Around(place, {}, vm.instance.domain.uuid))
    connection = wire.open_connection(uri)
    try:
        connection.defineXML(derived.xml)
    except libvirt.libvirtError as error:
        raise wire.in_our_words(error) from error
    finally:
        connection.close()
