"""Trees of files in file systems made by their own tools or by the kernel."""

from __future__ import annotations

import contextlib
import os
import stat
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.kit.inguest.filetree import MIB, describe, fill

__all__ = ["MIB", "describe", "fill"]


def plainly(described: dict[str, dict[str, Any]]) -> dict[str, tuple[Any, ...]]:
    """What also Windows' file systems keep, with times in steps of two seconds."""
    return {
        path: (stat.S_IFMT(told["mode"]), told["mtime"] // (2 * 10**9), told.get("size"), told.get("digest"))
        for path, told in described.items()
        if path != "."
    }


def allocated(path: Path) -> int:
    return path.stat().st_blocks * 512


@contextlib.contextmanager
def mounted(image: Path, folder: Path, *options: str) -> Iterator[Path]:
    """By the kernel. Skips where it will not, as without root and without loop devices."""
    folder.mkdir(exist_ok=True)
    if os.geteuid() != 0:
        pytest.skip("mounting needs root")
    done = subprocess.run(["mount", "-o", ",".join(("loop", *options)), image, folder], capture_output=True, text=True)
    if done.returncode != 0:
        pytest.skip(f"the kernel does not mount it: {done.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", folder], check=True)


@contextlib.contextmanager
def served(program: str, image: Path, folder: Path, *options: str) -> Iterator[Path]:
    """By a program with FUSE, such as ``ntfs-3g``. Skips where there is no FUSE."""
    folder.mkdir(exist_ok=True)
    if not Path("/dev/fuse").exists() or os.geteuid() != 0:
        pytest.skip("no FUSE here")
    done = subprocess.run([program, *options, image, folder], capture_output=True, text=True, timeout=30)
    assert done.returncode == 0, done.stderr
    try:
        yield folder
    finally:
        subprocess.run(["umount", folder], check=True)
        _wait_for_end(image)


@contextlib.contextmanager
def attached(image: Path) -> Iterator[Path]:
    """A block device that is the image. Skips where there are none."""
    if os.geteuid() != 0:
        pytest.skip("loop devices need root")
    done = subprocess.run(["losetup", "--find", "--show", image], capture_output=True, text=True)
    if done.returncode != 0:
        pytest.skip(f"no loop devices here: {done.stderr.strip()}")
    try:
        yield Path(done.stdout.strip())
    finally:
        subprocess.run(["losetup", "--detach", done.stdout.strip()], check=True)


def _wait_for_end(image: Path) -> None:
    """The program goes on writing for a moment after the mount point has gone."""
    deadline = time.monotonic() + 10
    while _is_open(image):
        assert time.monotonic() < deadline, f"{image} is still in use"
        time.sleep(0.02)


def _is_open(image: Path) -> bool:
    for link in Path("/proc").glob("[0-9]*/fd/*"):
        with contextlib.suppress(OSError):
            if link.readlink() == image:
                return True
    return False


def make(kind: str, image: Path, size: int, *options: str | Path) -> Path:
    """An empty file system, or with ``-d`` for ext4 a filled one."""
    with image.open("xb") as file:
        file.truncate(size)
    program = {
        "ext2": ("mkfs.ext2", "-q", "-F"),
        "ext3": ("mkfs.ext3", "-q", "-F"),
        "ext4": ("mkfs.ext4", "-q", "-F"),
        "xfs": ("mkfs.xfs", "-q", "-f"),
        "vfat": ("mkfs.vfat",),
        "exfat": ("mkfs.exfat",),
        "ntfs": ("mkntfs", "-F", "-f", "-q"),
    }[kind]
    environment = {**os.environ, "PATH": f"{os.environ['PATH']}:/usr/sbin:/sbin"}
    done = subprocess.run([*program, *options, image], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return image


def into_fat(image: Path, tree: Path, *names: str) -> None:
    """By mtools: what is in a tree, with its times."""
    sources = [tree / name for name in names or sorted(each.name for each in tree.iterdir())]
    environment = {**os.environ, "MTOOLS_SKIP_CHECK": "1", "LC_ALL": "C.UTF-8"}
    command: list[str | Path] = ["mcopy", "-i", image, "-s", "-m", "-Q", *sources, "::"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
