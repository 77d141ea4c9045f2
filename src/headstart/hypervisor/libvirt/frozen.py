"""A point in time of a domain whose disks overlays record: a snapshot of all of them at one moment.

::

    freeze   snapshot   thaw    older segments read as files, which nobody writes to        served no longer
    ---------|======================================================================================|-------
                                        window

Nothing of what the guest does from then on has to wait for it: it writes to the new segments. What stands below goes on
being what it was, also if the VM or libvirt ends, until it is committed.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from headstart import errors
from headstart.blocks import Blocks
from headstart.hypervisor import overlays
from headstart.hypervisor.contract import Protects, of_disk
from headstart.hypervisor.freeze import Freeze
from headstart.hypervisor.libvirt.inventory import Attachment
from headstart.wire import nbd
from headstart.wire.imageserver import Chain, ImageServer, Layer


class Standing:
    """What stands below the topmost overlays, read as files. A context manager."""

    def __init__(self, socket: Path, attachments: Sequence[Attachment]) -> None:
        """Raises ``Unreachable`` if an image cannot be opened."""
        chains = [_chain(each) for each in attachments]
        self._before = {layer.path: overlays.facts_of(Path(layer.path)) for each in chains for layer in each.layers}
        self._server = ImageServer(socket, chains)

    def uri(self, disk: str) -> str:
        return of_disk(self._server.exports, disk).uri

    def client(self, disk: str) -> nbd.Client:
        return nbd.Client(of_disk(self._server.exports, disk), failure=errors.PointLost)

    def check(self) -> None:
        """Raises ``PointLost`` if somebody has written to one of the files."""
        for path, before in self._before.items():
            try:
                now = overlays.facts_of(Path(path))
            except OSError:
                now = ()
            if now != before:
                raise errors.PointLost(f"Somebody wrote to {path}, below an overlay of ours, while it was read.")

    def close(self) -> None:
        self._server.close()

    def __enter__(self) -> Standing:
        return self

    def __exit__(self, *details: object) -> None:
        self.close()


def _chain(attachment: Attachment) -> Chain:
    layers = attachment.disk.layers[1:]
    kinds = [overlays.facts_of(Path(layer.path)) == ("device",) for layer in layers]
    read = [Layer(layer.path, layer.driver, device) for layer, device in zip(layers, kinds, strict=True)]
    return Chain(attachment.disk.name, read, ())


class FrozenPoint:
    """``headstart.hypervisor.contract.PointInTime``; protects everything until it is released, and later."""

    protects = Protects.ALL
    pause_seconds = 0.0

    def __init__(
        self,
        standing: Standing,
        disks: Sequence[str],
        told: Mapping[str, Mapping[str, Blocks]],
        outcome: Freeze,
        notes: list[str],
    ) -> None:
        """Owns ``standing``."""
        self.consistency, self.freeze_seconds = outcome.consistency, outcome.freeze_seconds
        self.notes = notes
        self._began = outcome.began
        self.stands = True
        self._told = told
        self._standing = standing
        self._stack = contextlib.ExitStack()
        self._stack.enter_context(standing)
        try:
            self._clients = {disk: self._stack.enter_context(standing.client(disk)) for disk in disks}
        except BaseException:
            self._stack.close()
            raise

    def recorded(self) -> Mapping[str, Mapping[str, Blocks]]:
        return self._told

    def reader(self, disk: str) -> nbd.Client:
        return of_disk(self._clients, disk)

    def protected(self, disk: str) -> Blocks | None:
        return None

    def keep(self, disk: str, wanted: Blocks) -> None:
        """Nothing has to be let go of: it costs the guest nothing."""

    def uri(self, disk: str) -> str:
        return self._standing.uri(disk)

    def check(self) -> None:
        self._standing.check()

    def release(self) -> float:
        self.stands = False
        self._stack.close()
        return time.monotonic() - self._began

    def __enter__(self) -> FrozenPoint:
        return self

    def __exit__(self, *details: object) -> None:
        self.release()
