"""Compression: zstd, with one context per thread."""

from __future__ import annotations

import threading

import zstandard

from headstart import units
from headstart.repository import layout
from headstart.store.contract import Data

#: What one byte of a frame can hold at most: a block of 128 KiB that repeats one byte takes four (RFC 8878, 3.1.1.2).
_DENSEST = 32 * units.KIB


class _Contexts(threading.local):
    """zstd contexts keep their tables, and serve one thread at a time."""

    def __init__(self) -> None:
        self.compressor = zstandard.ZstdCompressor(level=layout.ZSTD_LEVEL)
        self.decompressor = zstandard.ZstdDecompressor()


_contexts = _Contexts()


def compress(data: Data) -> bytes:
    """A zstd frame that knows its content's length."""
    return _contexts.compressor.compress(data)


def shrink(data: Data) -> tuple[int, Data]:
    """Flags, and the frame or, when that is no shorter, ``data`` itself."""
    frame = compress(data)
    if len(frame) < len(data):
        return layout.COMPRESSED, frame
    return 0, data


def decompress(frame: Data, length: int) -> bytes:
    """``length`` bytes; ``ValueError`` when the frame holds anything else."""
    return _decompressed(frame, length, length)


def decompress_frame(frame: bytes, longest: int) -> bytes:
    """The content of a frame of ``compress``, which tells its length; ``ValueError`` when it is none, or more."""
    return _decompressed(frame, 0, longest)


def _decompressed(frame: Data, shortest: int, longest: int) -> bytes:
    """zstd makes room for as much as a frame says that it holds: that is looked at first."""
    try:
        length = zstandard.frame_content_size(frame)
        if not shortest <= length <= min(longest, len(frame) * _DENSEST):
            raise ValueError("another length")
        return _contexts.decompressor.decompress(frame)
    except (zstandard.ZstdError, MemoryError) as error:
        raise ValueError(str(error)) from error
