"""File systems that are small, slow, or hang: really mounted, in place of a folder and with what is in it.

A test that uses one is skipped, with the reason, where nothing can be mounted.
"""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from headstart.units import KIB, MIB


@contextlib.contextmanager
def small(folder: Path, size: int) -> Iterator[None]:
    """In memory, of ``size`` bytes."""
    with _mounted(folder, "-t", "tmpfs", "-o", f"size={size}", "tmpfs"):
        yield


@contextlib.contextmanager
def hanging(folder: Path) -> Iterator[None]:
    """Writes below the folder, which ``disk`` has mounted, wait until this is left (fsfreeze(8))."""
    subprocess.run(["fsfreeze", "--freeze", folder], check=True)
    try:
        yield
    finally:
        subprocess.run(["fsfreeze", "--unfreeze", folder], check=True)


@contextlib.contextmanager
def slow(folder: Path, held: float = 0.25, free: float = 0.05) -> Iterator[None]:
    """Writes below the folder, which ``disk`` has mounted, wait ``held`` seconds again and again."""
    over = threading.Event()

    def hold() -> None:
        while not over.wait(free):
            with hanging(folder):
                time.sleep(held)

    holder = threading.Thread(target=hold)
    holder.start()
    try:
        yield
    finally:
        over.set()
        holder.join()


@contextlib.contextmanager
def disk(folder: Path, size: int) -> Iterator[None]:
    """On a disk of its own, of ``size`` bytes."""
    aside = folder.with_name(f"{folder.name}-disk")
    aside.mkdir()
    with _mounted(aside, "-t", "tmpfs", "-o", f"size={size}", "tmpfs"):
        image = aside / "image"
        with image.open("xb") as file:
            file.truncate(size)
        subprocess.run(["/sbin/mkfs.ext4", "-q", "-F", str(image)], check=True)
        with _mounted(folder, "-o", "loop", str(image)):
            yield


@contextlib.contextmanager
def device(image: Path) -> Iterator[Path]:
    """A read-only block device with what the file holds."""
    made = subprocess.run(
        ["losetup", "--read-only", "--find", "--show", image], capture_output=True, text=True, check=False
    )
    if made.returncode != 0:
        pytest.skip(f"no loop device can be had here: {made.stderr.strip()}")
    path = Path(made.stdout.strip())
    try:
        yield path
    finally:
        subprocess.run(["losetup", "--detach", path], check=True)


def fill(folder: Path) -> Path:
    """Take all the room that is left."""
    filler = folder / "filler"
    with filler.open("wb", buffering=0) as file:
        for piece in (MIB, 4 * KIB):
            with contextlib.suppress(OSError):
                while file.write(bytes(piece)):
                    pass
    return filler


@contextlib.contextmanager
def _mounted(folder: Path, *what: str) -> Iterator[None]:
    before = folder.with_name(f"{folder.name}-before")
    folder.mkdir(exist_ok=True)
    shutil.copytree(folder, before)
    done = subprocess.run(["mount", *what, folder], capture_output=True)
    if done.returncode != 0:
        pytest.skip(f"cannot mount here: {done.stderr.decode().strip()}")
    try:
        shutil.copytree(before, folder, dirs_exist_ok=True)
        yield
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)
