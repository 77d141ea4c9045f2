"""Raw images that stand below overlays of ours, and what their owner sees of that."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from headstart.hypervisor import overlays


def cover(image: Path, installation: str, folder: Path | None = None) -> Path:
    """What to start the VM from, which then stands on an overlay of the installation's: beside the image, or that of
    a device in ``folder``."""
    place = overlays.place_of(image, folder or image.parent, installation)
    path = place.new()
    with image.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
    place.create(path, image, "raw", size)
    place.point(path)
    return place.head


def chain(head: Path) -> list[str]:
    """The images that a start opens, as qemu-img sees them: topmost first. Every file of ours beside them is in it,
    but for what was set aside."""
    told: list[dict[str, Any]] = json.loads(
        subprocess.run(
            ["qemu-img", "info", "-U", "--backing-chain", "--output=json", head],
            capture_output=True,
            check=True,
            timeout=20,
        ).stdout
    )
    files = [str(Path(each["filename"]).resolve()) for each in told]
    ours = {str(path) for path in head.parent.glob(f"{head.name}-????????-????????")}
    ours -= {str(path.resolve()) for path in head.parent.glob(f"{head.name}.aside-*")}
    assert ours == set(files[:-1]), (ours, files)
    return files


def assert_sound(head: Path) -> None:
    """Of a VM that is off: qemu-img finds nothing wrong with any of the overlays."""
    for path in chain(head)[:-1]:
        done = subprocess.run(["qemu-img", "check", "-f", "qcow2", path], capture_output=True, text=True, timeout=20)
        assert done.returncode == 0, done.stdout + done.stderr


@contextlib.contextmanager
def loop_device(image: Path) -> Iterator[Path]:
    """A block device with the content of a file. Skips where there is none to be had (not root, no loop devices)."""
    done = subprocess.run(["losetup", "--find", "--show", image], capture_output=True, text=True, timeout=20)
    if done.returncode:
        pytest.skip(f"there is no loop device to be had here: {done.stderr.strip()}")
    device = Path(done.stdout.strip())
    try:
        yield device
    finally:
        subprocess.run(["losetup", "--detach", device], check=True, timeout=20)
