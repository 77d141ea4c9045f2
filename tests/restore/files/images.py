"""File systems in images, and a snapshot of images that is open."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator, Mapping
from pathlib import Path

from headstart.repository.manifest import Excluded
from headstart.restore.files.contents import Contents
from headstart.units import MIB
from tests.kit import filetrees, stores
from tests.restore import stored


@contextlib.contextmanager
def opened(images: Mapping[str, Path], *excluded: Excluded) -> Iterator[Contents]:
    """``excluded``: of the last disk."""
    repo = stores.new_repository()
    manifest = stored.store_snapshot(repo, {name: image.read_bytes() for name, image in images.items()})
    *others, last = manifest.disks
    manifest = dataclasses.replace(manifest, disks=(*others, dataclasses.replace(last, excluded=excluded)))
    with Contents(repo, manifest) as contents:
        yield contents


def ext4(folder: Path, name: str, files: Mapping[str, bytes], *options: str, kind: str = "ext4") -> Path:
    tree = folder / f"tree of {name}"
    for path, content in files.items():
        (tree / path).parent.mkdir(parents=True, exist_ok=True)
        (tree / path).write_bytes(content)
    return filetrees.make(kind, folder / name, 16 * MIB, "-d", tree, *options)
