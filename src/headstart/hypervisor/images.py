"""What tells whether the file under a disk is still the same one."""

from __future__ import annotations

from pathlib import Path

from headstart.hypervisor.inventory import ImageFile


def image_file(path: Path, driver: str, *, active: bool) -> ImageFile:
    """``active``: the layer that the guest's writes go to."""
    try:
        facts = path.stat()
    except OSError:
        return ImageFile(str(path), driver)
    return ImageFile(
        str(path),
        driver,
        facts.st_ino,
        None if active else facts.st_size,
        None if active else facts.st_mtime_ns,
    )
