"""Where a booted VM writes: one qcow2 file for each disk, upon the snapshot's disk over NBD.

::

    guest  --->  overlay (qcow2)  --- what it has not --->  nbd: the disk in the snapshot
"""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

from headstart import errors, plain
from headstart.repository.manifest import Manifest
from headstart.restore import order
from headstart.wire.nbd import Export

#: Says whose overlays a folder has.
_OWNER = "snapshot"


class Overlays:
    """A context manager. ``kept``: its files stay for the next time; else it goes with its end, and what another one
    left there goes first."""

    def __init__(self, folder: Path, manifest: Manifest, *, kept: bool) -> None:
        """Raises ``TargetRefused`` for a folder with anything else in it, ``Usage`` if it cannot be made."""
        self.folder = folder
        self.kept = kept
        self._manifest = manifest
        if not kept:
            shutil.rmtree(folder, ignore_errors=True)
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            self.again = self._claimed()
        except OSError as error:
            raise errors.TargetRefused(
                f"The folder {folder} for what the VM writes cannot be used: {error.strerror}. Name another one with"
                " --overlay.",
                target=str(folder),
            ) from error

    def _claimed(self) -> bool:
        """Whether they were there."""
        owner = self.folder / _OWNER
        if owner.exists():
            found = owner.read_text(errors="replace").strip()
            if found != self._manifest.id:
                raise errors.TargetRefused(
                    f"{self.folder} holds what was written upon snapshot {plain.line(found, 40)}. Boot that one, or"
                    " name another folder.",
                    target=str(self.folder),
                )
            return True
        if any(self.folder.iterdir()):
            raise errors.TargetRefused(
                f"{self.folder} is not empty, and holds no VM's writes of Headstart's. Name another folder.",
                target=str(self.folder),
            )
        owner.write_text(f"{self._manifest.id}\n")
        return False

    def images(self) -> dict[str, Path]:
        """By disk."""
        return {disk.name: self.folder / f"{order.file_name(disk.name)}.qcow2" for disk in self._manifest.disks}

    def variables(self, content: bytes) -> Path:
        """The firmware's, as they were left the last time."""
        path = self.folder / "uefi-variables.fd"
        if not path.exists():
            path.write_bytes(content)
        return path

    def make(self, exports: Mapping[str, Export]) -> dict[str, Path]:
        """The files, upon these exports by disk."""
        for disk in self._manifest.disks:
            image, below = self.images()[disk.name], _below(exports[disk.name])
            if image.exists():
                _qemu_img("rebase", "-u", "-f", "qcow2", "-F", "raw", "-b", below, str(image))
            else:
                _qemu_img("create", "-q", "-u", "-f", "qcow2", "-F", "raw", "-b", below, str(image), str(disk.size))
        return self.images()

    def discard(self) -> None:
        """Nobody needs them any longer."""
        self.kept = False

    def close(self) -> None:
        if not self.kept:
            shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self) -> Overlays:
        return self

    def __exit__(self, *details: object) -> None:
        self.close()


def _below(export: Export) -> str:
    place = {
        "driver": "nbd",
        "server": {"type": "unix", "path": str(export.socket)},
        "export": export.name,
    }
    return f"json:{json.dumps({'driver': 'raw', 'file': place})}"


def _qemu_img(*arguments: str) -> None:
    try:
        done = subprocess.run(["qemu-img", *arguments], capture_output=True, text=True, stdin=subprocess.DEVNULL)
    except OSError as error:
        raise errors.Unsupported(f"qemu-img cannot be started ({error.strerror}): install qemu-utils.") from error
    if done.returncode:
        raise errors.NoSpace(f"What the VM writes has no place: {plain.joined(done.stderr.strip())}.")
