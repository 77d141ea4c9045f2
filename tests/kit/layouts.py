"""Disks with partitions of several kinds, made without mounting anything."""

from __future__ import annotations

import struct
import subprocess
from pathlib import Path

from tests.kit import disks, filetrees
from tests.kit.disks import MIB, SECTOR

SIZE = 64 * MIB
#: MiB: where the partitions begin, and how long they are.
ROOT, SWAP, SCRATCH = (1, 24), (25, 8), (33, 16)
TABLE = "label: gpt\n" + "".join(
    f"start={start * MIB // SECTOR}, size={length * MIB // SECTOR}\n" for start, length in (ROOT, SWAP, SCRATCH)
)
#: Their numbers.
NUMBERS = {"root": 1, "swap": 2, "scratch": 3}


def swap_header(label: str = "") -> bytes:
    """As mkswap writes it."""
    header = struct.pack("<III", 1, 2000, 0) + bytes(range(16)) + label.encode().ljust(16, b"\0")
    return bytes(1024) + header + bytes(4086 - 1024 - len(header)) + b"SWAPSPACE2"


def system(folder: Path, fstab: str, table: str = TABLE) -> Path:
    """A raw disk: a root with this fstab, swap, and a file system labelled ``scratch``; all with content."""
    tree = folder / "tree of root"
    for name, content in {
        "etc/fstab": fstab.encode("utf-8", "surrogateescape"),
        "usr/bin/true": b"",
        "big": bytes(range(256)) * 4096,
    }.items():
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).write_bytes(content)
    root = filetrees.make("ext4", folder / "root", ROOT[1] * MIB, "-d", tree, "-L", "system")
    (folder / "tree of scratch").mkdir()
    (folder / "tree of scratch" / "waste").write_bytes(b"waste" * MIB)
    scratch = filetrees.make(
        "ext4", folder / "scratch", SCRATCH[1] * MIB, "-d", folder / "tree of scratch", "-L", "scratch"
    )
    image = folder / "system.raw"
    with image.open("xb") as file:
        file.truncate(SIZE)
    subprocess.run(["/sbin/sfdisk", "-q", image], input=table, text=True, check=True, capture_output=True)
    with image.open("r+b") as file:
        for (start, _), content in (
            (ROOT, root.read_bytes()),
            (SWAP, swap_header("paging").ljust(MIB, b"\0") + b"paged out" * 100_000),
            (SCRATCH, scratch.read_bytes()),
        ):
            file.seek(start * MIB)
            file.write(content)
    return image


def as_disk(image: Path, name: str, image_format: disks.Format = "qcow2", *, iothread: bool = False) -> disks.Disk:
    if image_format == "raw":
        return disks.Disk(image, "raw", name, iothread=iothread)
    made = image.with_suffix(".qcow2")
    subprocess.run(["qemu-img", "convert", "-q", "-f", "raw", "-O", "qcow2", image, made], check=True)
    return disks.Disk(made, "qcow2", name, iothread=iothread)
