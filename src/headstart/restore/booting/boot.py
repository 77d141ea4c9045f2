"""Starting a VM from a backup: its disks served over NBD, what it writes beside them, its definition adjusted.

::

    store -> nbdkit -> overlays -> QEMU         booted: the guest stands before its first instruction
                                                run on:  all of it is gone at the end, but overlays of the user's
                                                moved:   the images are where the user wants them; QEMU runs on
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from headstart import errors, plain
from headstart.backup.build import DEFINITION
from headstart.repository import attachment, lost
from headstart.repository.manifest import Attachment, Manifest
from headstart.repository.repo import Repository
from headstart.restore import order
from headstart.restore.booting import definition, moving, runplace
from headstart.restore.booting import instance as instances
from headstart.restore.booting.definition import Derived, Place
from headstart.restore.booting.instance import Instance
from headstart.restore.booting.overlays import Overlays
from headstart.restore.serving.serving import Serving, Source, Unix

VARIABLES = "uefi-variables"


@dataclass(frozen=True, slots=True)
class Wanted:
    """``folder``: of sockets. ``overlays``: of what the guest writes, which stays there if ``kept``. ``variables``:
    where the firmware's are put, else beside the overlays. ``definition`` in place of the snapshot's. ``outlives``: the
    VM is not ended when this process is killed. ``rehearsed``: what shows is to be of its disks alone, so its drives
    are empty; and it takes no memory that others need."""

    name: str
    folder: Path
    overlays: Path
    kept: bool = False
    network: bool = False
    memory: int | None = None
    definition: str = ""
    variables: Path | None = None
    outlives: bool = False
    rehearsed: bool = False


@dataclass(frozen=True, slots=True)
class Booted:
    """``notes``: what the user should know."""

    instance: Instance
    served: Serving
    overlays: Overlays
    definition: str
    place: Place
    notes: tuple[str, ...]

    @property
    def derived(self) -> Derived:
        return self.instance.derived


@contextlib.contextmanager
def booted(source: Source, wanted: Wanted) -> Iterator[Booted]:
    """The VM, before its guest runs. Hold a lease on the snapshot as long as this lasts.

    Raises ``Unsupported``, ``NotFound`` where its definition cannot be had or adjusted, ``Damaged`` for that and for
    disks of which something is lost, ``Locked`` for a name that is taken, ``NoSpace`` for more memory than the host
    has, and what serving the disks and starting QEMU raise."""
    manifest = source.manifest
    text = wanted.definition or definition_of(source.repo, manifest)
    if is_domain(text):
        raise errors.Unsupported(
            f"{plain.line(manifest.vm)} is a domain of libvirt's: boot it there with --libvirt URI (usually"
            " qemu:///system), or name a QEMU command line with --definition FILE."
        )
    variables = variables_of(source.repo, manifest)
    require_whole(source.repo, manifest)
    with contextlib.ExitStack() as stack:
        stack.enter_context(runplace.claimed(wanted.folder))
        overlays = stack.enter_context(Overlays(wanted.overlays, manifest, kept=wanted.kept))
        place = placed(wanted, overlays, variables)
        derived = definition.derive(text, manifest.disks, place)
        instances.require_memory(derived.memory, free=wanted.rehearsed)
        names = [disk.name for disk in manifest.disks]
        unix = Unix(wanted.folder / "nbd")
        served = stack.enter_context(Serving(source, names, unix))
        overlays.make({name: unix.export(name) for name in names})
        instance = stack.enter_context(Instance(derived, outlives=wanted.outlives))
        _require_disks(instance, manifest)
        notes = (*derived.notes, *(("it goes on with what it wrote the last time",) * overlays.again))
        yield Booted(instance, served, overlays, text, place, notes)


def placed(wanted: Wanted, overlays: Overlays, variables: bytes | None) -> Place:
    """``variables``: the content of the UEFI variables, which gets a file."""
    return Place(
        wanted.name,
        wanted.folder,
        overlays.images(),
        _put_variables(wanted, overlays, variables),
        wanted.network,
        wanted.memory,
        trusted=bool(wanted.definition),
        media=not wanted.rehearsed,
    )


def _put_variables(wanted: Wanted, overlays: Overlays, content: bytes | None) -> Path | None:
    if content is None:
        return None
    if wanted.variables is None:
        return overlays.variables(content)
    wanted.variables.write_bytes(content)
    return wanted.variables


def definition_of(repo: Repository, manifest: Manifest) -> str:
    """As the backup has it. Raises ``NotFound``, ``Damaged``, ``Unsupported``."""
    found = _attached(manifest, DEFINITION)
    if found is None:
        raise errors.NotFound(
            f"Snapshot {manifest.id} has no definition of its VM: name one with --definition FILE.",
            snapshot=manifest.id,
        )
    content = attachment.read_attachment(repo, found)
    try:
        text = content.decode()
    except UnicodeDecodeError:
        raise errors.Unsupported(
            "The definition in the snapshot is no text in UTF-8. Name another one with --definition FILE."
        ) from None
    return text


def is_domain(definition: str) -> bool:
    """It is libvirt's, and not a command line."""
    return definition.lstrip().startswith("<")


def variables_of(repo: Repository, manifest: Manifest) -> bytes | None:
    found = _attached(manifest, VARIABLES)
    return None if found is None else attachment.read_attachment(repo, found)


def _attached(manifest: Manifest, kind: str) -> Attachment | None:
    return next((each for each in manifest.attachments if each.kind == kind), None)


def require_whole(repo: Repository, manifest: Manifest) -> None:
    for disk in manifest.disks:
        missing = lost.unreadable(repo, disk)
        if missing:
            raise errors.Damaged(
                f"{len(missing)} blocks of disk {plain.line(disk.name)} were lost in the repository: the guest would"
                " meet errors where they were. 'headstart restore --lost-as-zeroes' restores the rest.",
                disk=disk.name,
            )


def _require_disks(instance: Instance, manifest: Manifest) -> None:
    """QEMU has made of the definition what we read in it."""
    found = moving.attachments(instance.qmp)
    for disk in manifest.disks:
        if disk.name not in found or found[disk.name].disk.size != disk.size:
            raise errors.HeadstartError(
                f"Disk {plain.line(disk.name)} is not in the VM that QEMU made of the definition, which has:"
                f" {', '.join(found) or 'none'}. Name a whole command line with --definition.",
                disk=disk.name,
            )


def default_name(manifest: Manifest) -> str:
    return f"{order.file_name(manifest.vm)[:40]}-{manifest.id[:8]}"
