"""Compression: zstd, with one context per thread."""

from __future__ import annotations

import threading

import zstandard

from headstart.repository import layout
from headstart.store.contract import Data


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


def decompress(frame: bytes, length: int) -> bytes:
    """``length`` bytes; ``ValueError`` when the frame holds anything else."""
    try:
        data = _contexts.decompressor.decompress(frame, max_output_size=length)
    except zstandard.ZstdError as error:
        raise ValueError(str(error)) from error
    if len(data) != length:
        raise ValueError("another length")
    return data


def decompress_frame(frame: bytes) -> bytes:
    """The content of an authenticated frame of ``compress``, which tells its length."""
    return _contexts.decompressor.decompress(frame)
