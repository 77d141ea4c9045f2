"""Disk images for test VMs, made without loop mounts, and compared byte by byte."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tests.kit.inguest import content

MIB = 1 << 20
SECTOR = 512

Format = Literal["raw", "qcow2"]
Interface = Literal["virtio-blk", "virtio-scsi"]

#: Where the only partition of a disk made by ``make_ext4`` begins.
PARTITION_OFFSET = 2048 * SECTOR


@dataclass(frozen=True, slots=True)
class Disk:
    """A disk of a VM.

    ``name`` is the name of the format layer's block node, the drive's id and, by default, the serial number;
    the device's id is ``dev-NAME``. With ``blockdev=False`` the disk is given by ``-drive``, and QEMU names
    the node.
    """

    path: Path
    format: Format
    name: str
    interface: Interface = "virtio-blk"
    serial: str | None = None
    iothread: bool = False
    blockdev: bool = True
    read_only: bool = False

    @property
    def serial_number(self) -> str:
        return self.name if self.serial is None else self.serial

    @property
    def device_id(self) -> str:
        return f"dev-{self.name}"


def make_empty(path: Path, size: int, image_format: Format = "raw") -> Path:
    """A disk of zeroes, not allocated."""
    if image_format == "qcow2":
        _run("qemu-img", "create", "-q", "-f", "qcow2", path, str(size))
    else:
        with path.open("xb") as file:
            file.truncate(size)
    return path


def make_ext4(path: Path, size: int, image_format: Format = "raw", *, files: Path | None = None, free: int = 0) -> Path:
    """A GPT with one ext4 partition, filled with the tree ``files`` if given; ``free`` bytes after it are unused."""
    raw = path.with_name(path.name + ".making")
    make_empty(raw, size)
    # The second partition table takes the last 33 sectors; file systems have whole KiB.
    length = (size - max(free, 33 * SECTOR) - PARTITION_OFFSET) // MIB * MIB
    _run("/sbin/sfdisk", "-q", raw, stdin=f"label: gpt\nstart=2048, size={length // SECTOR}\n")
    options = f"offset={PARTITION_OFFSET},lazy_itable_init=0,lazy_journal_init=0"
    filling = () if files is None else ("-d", files)
    _run("/sbin/mkfs.ext4", "-q", "-F", "-E", options, *filling, raw, f"{length // 1024}k")
    _finish(raw, path, image_format)
    return path


def make_filled(path: Path, size: int, image_format: Format = "raw", seed: int = 1) -> Path:
    """Seeded content, MiB by MiB in turn: random, half of it compressible, zero."""
    raw = path.with_name(path.name + ".making")
    with raw.open("xb") as file:
        file.truncate(size)
        for index, start in enumerate(range(0, size, MIB)):
            piece = _piece(index, seed)[: size - start]
            if piece:
                file.seek(start)
                file.write(piece)
    _finish(raw, path, image_format)
    return path


def _piece(index: int, seed: int) -> bytes:
    kind = index % 3
    if kind == 2:
        return b""
    random = content.random_bytes(f"{seed}:{index}", MIB)
    if kind == 0:
        return random
    half = 32 * 1024
    return b"".join(random[start : start + half] + b"compress" * (half // 8) for start in range(0, MIB, 2 * half))


def _finish(raw: Path, path: Path, image_format: Format) -> None:
    if image_format == "raw":
        raw.rename(path)
    else:
        _run("qemu-img", "convert", "-q", "-f", "raw", "-O", image_format, raw, path)
        raw.unlink()


def to_raw(image: Path, target: Path, image_format: Format) -> Path:
    """A sparse raw copy of what a guest would see. The image must not be in use."""
    _run("qemu-img", "convert", "-q", "-f", image_format, "-O", "raw", image, target)
    return target


def virtual_size(image: Path, image_format: Format) -> int:
    """The size that a guest sees."""
    if image_format == "raw":
        return image.stat().st_size
    with image.open("rb") as file:
        file.seek(24)  # the field `size` of a qcow2 header
        return int.from_bytes(file.read(8), "big")


def _run(*command: str | Path, stdin: str = "") -> None:
    done = subprocess.run(command, input=stdin, capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"{command[0]} ended with {done.returncode}: {done.stderr}{done.stdout}")


def two_disks(folder: Path, size: int = 256 * MIB, free: int = 32 * MIB) -> tuple[Disk, Disk]:
    """The usual pair: ``system``, a virtio-blk qcow2 with GPT and ext4, and ``data``, a virtio-scsi raw disk.

    Half of ``data`` is filled, and its size is no multiple of 64 KiB. On both of them the bytes from ``size - free``
    on (less a MiB at the end) are zero and nobody's: there is room for a ledger.
    """
    system = make_ext4(folder / "system.qcow2", size, "qcow2", free=free)
    data = make_filled(folder / "data.raw", size // 2)
    with data.open("r+b") as file:
        file.truncate(size + 5 * SECTOR)
    return Disk(system, "qcow2", "system"), Disk(data, "raw", "data", interface="virtio-scsi")
