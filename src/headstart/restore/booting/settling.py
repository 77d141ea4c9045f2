"""A booted VM gets a place of its own: its disks, its firmware's variables, and how it is started there again."""

from __future__ import annotations

import contextlib
import dataclasses
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from headstart import blocks, errors
from headstart.blocks import Blocks
from headstart.hypervisor.qemu import offline
from headstart.repository.manifest import Manifest
from headstart.repository.repo import Repository
from headstart.restore import image, order, partfile, space
from headstart.restore.booting import commandline, definition
from headstart.restore.booting.boot import Booted
from headstart.restore.booting.definition import Derived
from headstart.state.journal import Journal
from headstart.state.values import Vm

VARIABLES = "uefi-variables.fd"
START = "start.sh"


@dataclass(frozen=True, slots=True)
class Home:
    """Where a VM is to stay."""

    directory: Path
    images: Mapping[str, Path]

    @property
    def variables(self) -> Path:
        return self.directory / VARIABLES

    @property
    def start(self) -> Path:
        return self.directory / START


def prepared(repo: Repository, manifest: Manifest, directory: Path) -> Home:
    """Raises ``TargetRefused`` for files that are there, or a folder that cannot be written; ``NoSpace``."""
    images = {disk.name: directory / f"{order.file_name(disk.name)}.qcow2" for disk in manifest.disks}
    home = Home(directory, images)
    for path in (*images.values(), home.variables, home.start):
        partfile.refuse_existing(path)
    try:
        directory.mkdir(parents=True, exist_ok=True)
        probe = directory / ".headstart-probe"
        probe.touch(exist_ok=True)
        probe.unlink()
    except OSError as error:
        raise errors.TargetRefused(
            f"The directory {directory} cannot be written: {error.strerror}. Name another one.", target=str(directory)
        ) from error
    needs = []
    for disk in manifest.disks:
        allocated = image.survey(repo, disk, Blocks())
        needs.append((directory, blocks.total_bytes(allocated, disk.block_size, disk.size)))
    space.check(needs)
    return home


def write_start(booted: Booted, manifest: Manifest, home: Home) -> tuple[str, ...]:
    """A script that starts the VM there, with its network as it was. Returns what the user should know."""
    place = dataclasses.replace(booted.place, images=home.images, network=True)
    notes: tuple[str, ...] = ()
    try:
        derived = definition.derive(booted.definition, manifest.disks, place)
    except errors.Unsupported:
        derived = definition.derive(booted.definition, manifest.disks, dataclasses.replace(place, network=False))
        notes = (f"{home.start} starts the VM without its network, which its definition does not tell",)
    home.start.write_text(_script(booted, derived))
    home.start.chmod(0o700)
    return notes


def _script(booted: Booted, derived: Derived) -> str:
    folder = shlex.quote(str(booted.place.folder))
    return (
        f"#!/bin/sh\n# Starts VM {booted.place.name} from the images beside it. Nobody else reads this: change it.\n"
        f"set -e\nmkdir -p -m 700 {folder}\nexec {commandline.shell((*derived.words, '-daemonize'))}\n"
    )


def require_free(journal: Journal, name: str) -> None:
    """Raises ``Usage`` where a VM of this name could not be taken for the new one."""
    known = {vm.name: vm for vm in journal.vms()}.get(name)
    if known is None:
        return
    if known.domain is not None:
        raise errors.Usage(
            f"VM '{name}' is a domain of libvirt's here, and the one to be booted is plain QEMU's: take another --name."
        )
    if known.monitor is not None and offline.listens(known.monitor):
        raise errors.Usage(
            f"VM '{name}' runs (its monitor {known.monitor} answers). Shut it down first, or take another --name."
        )
    require_published(journal, name)


def require_published(journal: Journal, name: str) -> None:
    """Raises ``Usage`` where a backup would be lost."""
    if journal.completion(name) is not None:
        raise errors.Usage(
            f"A backup of VM '{name}' waits to be published: 'headstart precopy {name}' does that, also if the VM does"
            " not answer. Or take another --name."
        )


def entry(name: str, derived: Derived) -> Vm:
    """How this host is to know it."""
    return Vm(name, derived.monitor, str(derived.agent) if derived.agent else "", derived.qga)


def clear(home: Home) -> None:
    """What a move that came to nothing leaves; the VM has ended."""
    for path in (*home.images.values(), home.variables, home.start):
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)
