"""Offering a raw file over NBD, read-only, for as long as needed: nbdkit, as a child that ends with us."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

from headstart import errors
from headstart.wire import children
from headstart.wire.nbd import Export

START_SECONDS = 10.0


class FileServer:
    """A context manager; ``export`` can be opened inside."""

    def __init__(self, file: Path, socket: Path, name: str) -> None:
        """Raises ``Unsupported`` without nbdkit."""
        self.export = Export(socket, name)
        socket.unlink(missing_ok=True)
        command = ["nbdkit", "--foreground", "--exit-with-parent", "--readonly", "--unix", str(socket)]
        try:
            self._process = subprocess.Popen(
                [*command, "--export", name, "file", str(file)], stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL
            )
        except OSError as error:
            raise errors.Unsupported(f"nbdkit cannot be started ({error.strerror}): install it.") from error
        try:
            self._wait()
        except BaseException:
            self.close()
            raise

    def _wait(self) -> None:
        deadline = time.monotonic() + START_SECONDS
        while not self.export.socket.exists():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise errors.Unsupported(f"nbdkit does not offer {self.export.socket}.")
            time.sleep(0.005)

    def close(self) -> None:
        children.end(self._process)
        self.export.socket.unlink(missing_ok=True)

    def __enter__(self) -> FileServer:
        return self

    def __exit__(self, *details: object) -> None:
        self.close()
