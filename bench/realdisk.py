"""A disk with real files, as the kind of content decides what hashing and compressing cost: the host's own programs."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from headstart.units import GIB
from tests.kit import disks

CACHE = Path(__file__).parents[1] / "build" / "bench"
SOURCE = Path("/usr")
SIZE = 4 * GIB
FILES_BYTES = 2 * GIB


def image() -> Path:
    """A qcow2 of ``SIZE`` with GPT and ext4, and copies of about ``FILES_BYTES`` of files; made once."""
    target = CACHE / "files.qcow2"
    if not target.exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".making-", dir=CACHE) as folder:
            files = Path(folder, "files")
            _copy_files(files)
            disks.make_ext4(Path(folder, target.name), SIZE, "qcow2", files=files).rename(target)
    return target


def _copy_files(target: Path) -> None:
    left = FILES_BYTES
    for path in _files():
        left -= path.stat().st_size
        if left < 0:
            return
        copy = target / path.relative_to(SOURCE)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, copy)


def _files() -> Iterator[Path]:
    """Those that can be read, always in the same order."""
    for folder, subfolders, names in os.walk(SOURCE):
        subfolders.sort()
        for name in sorted(names):
            path = Path(folder, name)
            if path.is_file() and not path.is_symlink() and os.access(path, os.R_OK):
                yield path
