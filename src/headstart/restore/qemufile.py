"""A disk as a file of a format that QEMU writes for us: vmdk, vhdx.

::

    NAME.part          locked and marked, as every part; nothing else is in it
    NAME.part.image    the image in the making: whoever has the part has this, too

Our writers write in the order of the store, as into every target; there is no copy of the disk in between. What a
restore that was killed left of it is begun anew: there is nothing by which the tables of such a format can be proven.
"""

from __future__ import annotations

import contextlib
import os
import stat
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Self

from headstart import errors, plain
from headstart.extents import Extent
from headstart.restore import partfile, writing
from headstart.restore.partfile import PartFile
from headstart.restore.present import Before
from headstart.store.contract import Data
from headstart.wire.imageserver import Layer
from headstart.wire.imagewriter import ImageWriter

IMAGE = ".image"
_CREATE_SECONDS = 60.0
_SECTOR = 512


class QemuFile:
    """A :class:`target.Target`: a new file, in which zeroes are not allocated."""

    before: Before | None = None

    def __init__(self, place: Path, size: int, image_format: str) -> None:
        """Raises ``Unsupported`` without qemu-img and qemu-nbd."""
        self.place = place
        self.size = size
        self._finished = False
        self._part = PartFile(place, 0)
        self.notes = self._part.notes
        self._image = place.with_name(place.name + partfile.SUFFIX + IMAGE)
        try:
            _refuse_foreign(self._image, leftover=bool(self.notes))
            with writing.translated(place):
                self._image.unlink(missing_ok=True)
                os.close(os.open(self._image, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
            try:
                _create(self._image, image_format, -(-size // _SECTOR) * _SECTOR)
                self._writer = ImageWriter([Layer(str(self._image), image_format)], self._refused, new=True)
            except BaseException:
                self._image.unlink(missing_ok=True)
                raise
        except BaseException:
            self._part.__exit__()
            raise

    def _refused(self, reason: str) -> errors.HeadstartError:
        if "No space left" in reason:
            return errors.NoSpace(
                f"{self.place} cannot be written: {reason}. Make room there, or restore to another place.",
                target=str(self.place),
            )
        return errors.TargetRefused(f"{self.place} cannot be written by QEMU: {reason}.", target=str(self.place))

    def write(self, start: int, pieces: Sequence[Data]) -> None:
        self._writer.client.write(start, b"".join(pieces))

    def zero(self, extent: Extent) -> None:
        """A new image is all zeroes."""

    def finish(self) -> None:
        self._writer.finish()
        with writing.translated(self.place):
            descriptor = os.open(self._image, os.O_RDWR | os.O_CLOEXEC)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
            self._part.finish_with(self._image)
        self._finished = True

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *details: object) -> None:
        self._writer.abandon()
        if not self._finished:
            with contextlib.suppress(OSError):
                self._image.unlink()
        self._part.__exit__(*details)


def _refuse_foreign(image: Path, *, leftover: bool) -> None:
    try:
        found = image.lstat()
    except FileNotFoundError:
        return
    if not (leftover and stat.S_ISREG(found.st_mode) and found.st_uid == os.geteuid()):
        raise errors.TargetRefused(
            f"{image} exists, and it cannot be told that a restore of Headstart left it behind. If nobody needs it,"
            " remove it; else restore to another place.",
            target=str(image),
        )


def _create(image: Path, image_format: str, size: int) -> None:
    command = ["qemu-img", "create", "-q", "-f", image_format, str(image), str(size)]
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=_CREATE_SECONDS
        )
    except OSError as error:
        raise errors.Unsupported(
            f"qemu-img cannot be started ({error.strerror}), and {image_format} needs it: install qemu-utils, or"
            " restore as qcow2 or raw."
        ) from error
    except subprocess.TimeoutExpired:
        raise errors.TargetRefused(f"{image} cannot be made within {_CREATE_SECONDS:.0f} s.") from None
    if done.returncode:
        raise errors.TargetRefused(f"{image} cannot be made: {plain.joined(done.stderr.strip())}", target=str(image))
