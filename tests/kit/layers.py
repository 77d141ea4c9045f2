"""Raw images that stand below overlays of ours, and what their owner sees of that."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

from headstart.hypervisor import overlays


def cover(image: Path, installation: str) -> Path:
    """What to start the VM from, which then stands on an overlay of the installation's."""
    place = overlays.place_of(image, image.parent, installation)
    path = place.new()
    place.create(path, image, "raw", image.stat().st_size)
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
