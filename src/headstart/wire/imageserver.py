"""Offering the images of a VM that is off over NBD, read-only: qemu-storage-daemon, as a child that ends with us.

``force-share`` takes no lock that keeps anybody else from opening an image, also for writing: who reads has to find
out by himself whether it was written meanwhile.
"""

from __future__ import annotations

import json
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from headstart import errors
from headstart.wire import children
from headstart.wire.nbd import Export

START_SECONDS = 30.0
#: Formats that stand on nothing.
STANDALONE = ("raw", "vhdx")


@dataclass(frozen=True, slots=True)
class Layer:
    """``device``: a block device, and no file."""

    path: str
    driver: str
    device: bool = False


@dataclass(frozen=True, slots=True)
class Chain:
    """A disk: its layers, the active one first, and those bitmaps of that one that are to be told."""

    name: str
    layers: Sequence[Layer]
    bitmaps: Sequence[str]


class ImageServer:
    """A context manager; ``exports`` can be opened until it is closed."""

    def __init__(self, socket: Path, chains: Sequence[Chain]) -> None:
        """Raises ``Unreachable`` if an image cannot be opened, ``Unsupported`` without qemu-storage-daemon."""
        clear(socket)
        self._socket = socket
        self.exports: Mapping[str, Export] = {
            chain.name: Export(socket, f"disk{number}") for number, chain in enumerate(chains)
        }
        self._ready = _ready(socket)
        self._said = tempfile.TemporaryFile("w+")  # noqa: SIM115
        try:
            with children.ours_to_end():
                self._process = subprocess.Popen(
                    ["setpriv", "--pdeathsig", "KILL", "qemu-storage-daemon", *self._arguments(chains)],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=self._said,
                )
        except OSError as error:
            self._said.close()
            raise errors.Unsupported(f"setpriv cannot be started ({error.strerror}): install util-linux.") from error
        try:
            self._wait()
        except BaseException:
            self.close()
            raise

    def _arguments(self, chains: Sequence[Chain]) -> Iterator[str]:
        for number, chain in enumerate(chains):
            for node in _nodes(f"disk{number}", chain.layers):
                yield from ("--blockdev", json.dumps(node))
        yield from ("--nbd-server", json.dumps({"addr": {"type": "unix", "path": str(self._socket)}}))
        for number, chain in enumerate(chains):
            name = f"disk{number}"
            export = {"type": "nbd", "id": name, "node-name": name, "name": name, "bitmaps": list(chain.bitmaps)}
            yield from ("--export", json.dumps(export))
        # Written when everything before it has been done.
        yield from ("--pidfile", str(self._ready))

    def _wait(self) -> None:
        deadline = time.monotonic() + START_SECONDS
        while not self._ready.exists():
            if self._process.poll() is not None or time.monotonic() > deadline:
                self._said.seek(0)
                said = self._said.read().strip() or "qemu-storage-daemon (of qemu-utils) does not answer"
                raise errors.Unreachable(f"The images cannot be opened: {said}")
            time.sleep(0.005)

    def close(self) -> None:
        children.kill(self._process)  # it only reads
        self._said.close()
        clear(self._socket)

    def __enter__(self) -> ImageServer:
        return self

    def __exit__(self, *details: object) -> None:
        self.close()


def _ready(socket: Path) -> Path:
    return socket.with_name(f"{socket.name}.ready")


def clear(socket: Path) -> None:
    """What a run leaves there that was killed."""
    for path in (socket, _ready(socket)):
        path.unlink(missing_ok=True)


def _nodes(name: str, layers: Sequence[Layer]) -> Iterator[dict[str, Any]]:
    """The block nodes of a chain, the lowest first; the topmost has the name."""
    below: str | None = None
    shared = {"read-only": True, "force-share": True}
    for number in reversed(range(len(layers))):
        layer = layers[number]
        file = {"driver": "host_device" if layer.device else "file", "filename": layer.path, **shared}
        node = {"driver": layer.driver, "node-name": f"{name}-{number}" if number else name, "file": file, **shared}
        if layer.driver not in STANDALONE:
            node["backing"] = below
        below = str(node["node-name"])
        yield node
