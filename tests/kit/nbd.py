"""QEMU's NBD server, and an image with holes to be served by it."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

from headstart.extents import Extent
from headstart.units import KIB, MIB
from headstart.wire import nbd

SIZE = 24 * MIB + 512
#: Data and holes, of whole pieces and of less.
WRITTEN = [Extent(0, MIB + 4 * KIB), Extent(7 * MIB + 12 * KIB, 3 * MIB), Extent(20 * MIB, SIZE - 20 * MIB)]


@contextlib.contextmanager
def qemu_nbd(image: Path) -> Iterator[nbd.Export]:
    """``--fork`` returns when the server listens: its socket is there a moment earlier."""
    with tempfile.TemporaryDirectory(prefix="headstart-") as folder:
        socket, pid = Path(folder, "nbd"), Path(folder, "pid")
        options = ["--format=raw", "--persistent", "--shared=8", "--fork", f"--socket={socket}", f"--pid-file={pid}"]
        subprocess.run(["qemu-nbd", *options, str(image)], check=True)
        try:
            yield nbd.Export(socket, "")
        finally:
            os.kill(int(pid.read_text()), signal.SIGKILL)


def sparse(path: Path, size: int, written: list[Extent]) -> bytes:
    """A file with holes; its content."""
    content = bytearray(size)
    with path.open("wb") as file:
        file.truncate(size)
        for number, extent in enumerate(written):
            data = random.Random(number).randbytes(extent.length)
            content[extent.start : extent.end] = data
            file.seek(extent.start)
            file.write(data)
    return bytes(content)
