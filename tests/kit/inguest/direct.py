"""Reading and writing a block device past the guest's page cache."""

from __future__ import annotations

import contextlib
import fcntl
import mmap
import os
import pathlib
import struct
from types import TracebackType

SECTOR = 512
PIECE = 1 << 20

BLKDISCARD = 0x1277
BLKZEROOUT = 0x127F


class Device:
    """A block device (or file) opened with O_DIRECT. Offsets and lengths are multiples of a sector.

    With ``sync`` every write is on the disk when it returns, as by fsync. Not for several threads.
    """

    def __init__(self, path: str, *, write: bool = False, sync: bool = False) -> None:
        flags = os.O_DIRECT | (os.O_RDWR if write else os.O_RDONLY) | (os.O_DSYNC if sync else 0)
        self._buffer = mmap.mmap(-1, PIECE)  # O_DIRECT wants page-aligned memory
        self._fd = os.open(path, flags)
        self.size = os.lseek(self._fd, 0, os.SEEK_END)

    def __enter__(self) -> Device:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._fd)
        self._buffer.close()

    def read(self, offset: int, length: int) -> bytes:
        """All ``length`` bytes; an error at the end of the device."""
        pieces = []
        with memoryview(self._buffer) as buffer:
            for start in range(0, length, PIECE):
                wanted = min(PIECE, length - start)
                with buffer[:wanted] as part:
                    if os.preadv(self._fd, [part], offset + start) != wanted:
                        raise EOFError(f"read past the end at {offset + start}")
                    pieces.append(bytes(part))
        return b"".join(pieces)

    def write(self, offset: int, data: bytes) -> None:
        with memoryview(self._buffer) as buffer:
            for start in range(0, len(data), PIECE):
                piece = data[start : start + PIECE]
                buffer[: len(piece)] = piece
                with buffer[: len(piece)] as part:
                    if os.pwritev(self._fd, [part], offset + start) != len(piece):
                        raise EOFError(f"short write at {offset + start}")

    def flush(self) -> None:
        os.fsync(self._fd)

    def discard(self, offset: int, length: int) -> None:
        fcntl.ioctl(self._fd, BLKDISCARD, struct.pack("QQ", offset, length))

    def write_zeroes(self, offset: int, length: int) -> None:
        fcntl.ioctl(self._fd, BLKZEROOUT, struct.pack("QQ", offset, length))


def by_serial() -> dict[str, str]:
    """Serial number -> device, for virtio-blk and SCSI disks."""
    found = {}
    for block in pathlib.Path("/sys/block").iterdir():
        with contextlib.suppress(FileNotFoundError):
            found[(block / "serial").read_text().strip()] = f"/dev/{block.name}"
        with contextlib.suppress(FileNotFoundError):
            # A header of four bytes stands before the serial number.
            page = (block / "device/vpd_pg80").read_bytes()
            found[page[4:].decode(errors="replace").strip()] = f"/dev/{block.name}"
    return found
