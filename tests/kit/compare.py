"""Comparing what guests see in disk images, byte by byte."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path

from tests.kit import disks

PIECE = 1 << 20
SECTOR = 512

#: How many differences a message names.
NAMED = 10


class WrongBytes(AssertionError):
    """Something does not have the bytes that it should; ``count`` of them."""

    def __init__(self, text: str, count: int) -> None:
        super().__init__(text)
        self.count = count


@contextlib.contextmanager
def as_raw(image: Path, image_format: disks.Format) -> Iterator[Path]:
    """The image as a raw file, for as long as the context lasts. It must not be in use by a VM."""
    if image_format == "raw":
        yield image
        return
    with tempfile.TemporaryDirectory(prefix=".raw-", dir=image.parent) as folder:
        yield disks.to_raw(image, Path(folder, "raw"), image_format)


def differences(one: Path, other: Path) -> Iterator[tuple[int, int]]:
    """Start and length of the runs of sectors in which two raw files of the same size differ."""
    run: tuple[int, int] | None = None
    for start in _differing_sectors(one, other):
        if run is not None and run[0] + run[1] == start:
            run = (run[0], run[1] + SECTOR)
            continue
        if run is not None:
            yield run
        run = (start, SECTOR)
    if run is not None:
        yield run


def assert_identical(
    one: Path,
    other: Path,
    one_format: disks.Format = "raw",
    other_format: disks.Format = "raw",
) -> None:
    """``WrongBytes`` with the first differing places unless a guest would see the same bytes in both images."""
    with as_raw(one, one_format) as first, as_raw(other, other_format) as second:
        sizes = first.stat().st_size, second.stat().st_size
        assert sizes[0] == sizes[1], f"{one} has {sizes[0]} bytes, {other} has {sizes[1]}"
        runs = list(differences(first, second))
    named = ", ".join(f"{length} bytes at {start} (block {start >> 16})" for start, length in runs[:NAMED])
    if runs:
        count = sum(length for _, length in runs)
        raise WrongBytes(f"{one} and {other} differ in {len(runs)} places: {named}", count)


def assert_bytes(image: Path, offset: int, expected: bytes, image_format: disks.Format = "raw") -> None:
    """Fail with the first differing offset unless the image has these bytes at this place."""
    with as_raw(image, image_format) as raw, raw.open("rb") as file:
        file.seek(offset)
        found = file.read(len(expected))
    if found != expected:
        pairs = enumerate(zip(found, expected, strict=False))
        first = next((at for at, (left, right) in pairs if left != right), min(len(found), len(expected)))
        raise AssertionError(f"{image} differs from what is expected at {offset + first}")


def _differing_sectors(one: Path, other: Path) -> Iterator[int]:
    with one.open("rb") as left, other.open("rb") as right:
        offset = 0
        while piece := left.read(PIECE):
            twin = right.read(PIECE)
            if piece != twin:
                for start in range(0, len(piece), SECTOR):
                    if piece[start : start + SECTOR] != twin[start : start + SECTOR]:
                        yield offset + start
            offset += len(piece)
