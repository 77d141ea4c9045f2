"""A snapshot restored by order of the server: into a new folder where the host's owner allows it, and nowhere else."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from headstart import errors
from headstart.host.house import House
from headstart.repository import lease, snapshot
from headstart.repository.manifest import Manifest
from headstart.restore import order, restoration
from headstart.restore.image import Progress
from headstart.restore.order import Format, Order, Wish

#: One name, that neither leads away nor hides.
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_FORMATS = ("raw", "qcow2")


def restore(house: House, into: Path | None, arguments: Mapping[str, Any], progress: Progress) -> dict[str, Any]:
    """``into``: where the owner allows it. Raises ``Denied``, ``Usage``, and what restoring does."""
    if into is None:
        raise errors.Denied(
            "The owner of this host lets nothing be restored by order: 'restore_into' in its own [host] says where to."
        )
    kind = arguments.get("format", "qcow2")
    if kind not in _FORMATS:
        raise errors.Usage(f"By order a disk is restored as raw or qcow2, not as {kind!r}.")
    wishes = tuple(Wish(str(disk)) for disk in arguments.get("disks", ()))
    with house.vault.another() as repo:
        manifest = snapshot.load(repo, str(arguments.get("snapshot", "")))
        folder = _folder(into, str(arguments.get("folder") or ""), manifest)
        wanted = Order(folder, wishes, cast(Format, kind))
        with lease.reading_snapshot(repo, "restore", manifest):
            done = restoration.restore(repo, manifest, wanted, progress)
    return {
        "directory": str(folder),
        "snapshot": done.snapshot,
        "vm": done.vm,
        "disks": [{"name": disk.name, "path": str(disk.path), "size": disk.size} for disk in done.disks],
        "seconds": done.seconds,
        "notes": list(done.notes),
    }


def _folder(into: Path, name: str, manifest: Manifest) -> Path:
    """Not made yet; one of ours that a restore was interrupted in may be there."""
    name = name or f"{order.file_name(manifest.vm)[:48]}-{manifest.id[:12]}"
    if not _NAME.fullmatch(name):
        raise errors.Usage(f"{name!r} cannot be the name of a folder here.")
    if not into.is_dir():
        raise errors.TargetRefused(f"{into} is not there: its owner makes it, or corrects 'restore_into'.")
    folder = into.resolve() / name
    if os.path.lexists(folder) and (folder.is_symlink() or not folder.is_dir() or folder.stat().st_uid != os.geteuid()):
        raise errors.TargetRefused(f"{folder} is there already, and none of ours. Name another one.")
    return folder
