"""Writing to an image file through QEMU's own drivers: qemu-nbd, as a child that ends with us.

It takes the locks of an image that is in use, and keeps whatever its format has up to date: allocation, and persistent
bitmaps of a qcow2, which record what is written.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from headstart import errors, plain
from headstart.wire import children
from headstart.wire.imageserver import STANDALONE, Layer
from headstart.wire.nbd import Client, Export

START_SECONDS = 30.0
#: Closing an image writes what its driver still has in memory.
END_SECONDS = 600.0
#: Connections at a time.
CLIENTS = 8


class ImageWriter:
    """A context manager. Leaving it without an error closes the image in good order, and raises if that failed."""

    def __init__(
        self, layers: Sequence[Layer], failure: Callable[[str], errors.HeadstartError], *, new: bool = False
    ) -> None:
        """``layers``: the image, then what it stands on, which is only read. ``failure`` makes what is raised where it
        cannot be opened, or written. ``new``: nobody needs the file before its maker has made it durable as a whole
        (vmdk is flushed for each grain else: ten times as slow). Raises ``Unsupported`` without qemu-nbd."""
        self._failure = failure
        self._path = layers[0].path
        self._folder = tempfile.TemporaryDirectory(prefix="headstart-")
        self.export = Export(Path(self._folder.name, "nbd"), "")
        self._said = tempfile.TemporaryFile("w+")  # noqa: SIM115
        self._local = threading.local()
        self._clients: list[Client] = []
        command = ["setpriv", "--pdeathsig", "KILL", "qemu-nbd", "--persistent", f"--shared={CLIENTS}"]
        command += [f"--socket={self.export.socket}", f"--pid-file={self._ready}", "--discard=unmap"]
        command += ["--cache=unsafe"] if new else []
        try:
            self._process = subprocess.Popen(
                [*command, f"json:{json.dumps(_node(layers))}"],
                stdin=subprocess.DEVNULL,
                stdout=self._said,
                stderr=self._said,
            )
        except OSError as error:
            self._tidy()
            raise errors.Unsupported(f"setpriv cannot be started ({error.strerror}): install util-linux.") from error
        try:
            self._wait()
        except BaseException:
            self.abandon()
            raise

    @property
    def _ready(self) -> Path:
        return Path(self._folder.name, "ready")

    def _wait(self) -> None:
        deadline = time.monotonic() + START_SECONDS
        while not self._ready.exists():
            if self._process.poll() == 127:  # of setpriv: there is no such program
                raise errors.Unsupported("qemu-nbd cannot be started: install qemu-utils.")
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise self._failure(self._words() or "qemu-nbd (of qemu-utils) does not answer")
            time.sleep(0.005)

    def _words(self) -> str:
        self._said.seek(0)
        return plain.joined(self._said.read().replace("qemu-nbd: ", "").strip())

    @property
    def client(self) -> Client:
        """This thread's own."""
        found: Client | None = getattr(self._local, "client", None)
        if found is None:
            found = self._local.client = Client(self.export, failure=self._failure)
            self._clients.append(found)
        return found

    def finish(self) -> None:
        """Close the image in good order. Durable is what was flushed, and of a ``new`` one nothing."""
        self.client.flush()
        self._disconnect()
        self._process.terminate()
        try:
            status = self._process.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            raise self._failure(f"qemu-nbd does not end within {END_SECONDS:.0f} s") from None
        if status:
            raise self._failure(self._words() or f"qemu-nbd ended with status {status}")

    def abandon(self) -> None:
        """Whatever state the image is in."""
        self._disconnect()
        children.end(self._process)
        self._tidy()

    def _disconnect(self) -> None:
        while self._clients:
            with contextlib.suppress(errors.HeadstartError):
                self._clients.pop().close()
        self._local = threading.local()

    def _tidy(self) -> None:
        self._said.close()
        self._folder.cleanup()

    def __enter__(self) -> ImageWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, *details: object) -> None:
        try:
            if kind is None:
                self.finish()
        finally:
            self.abandon()


def _node(layers: Sequence[Layer]) -> dict[str, Any]:
    """The block node of an image. Formats are named, never guessed: a guest may write what looks like one."""
    below: dict[str, Any] | None = None
    for layer in reversed(layers):
        shared = {"read-only": layer is not layers[0]}
        file = {"driver": "host_device" if layer.device else "file", "filename": layer.path, **shared}
        node: dict[str, Any] = {"driver": layer.driver, "file": file, **shared}
        if layer.driver not in STANDALONE:
            node["backing"] = below
        below = node
    assert below is not None, "a disk has an image"
    return below
