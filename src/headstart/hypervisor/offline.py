"""A VM that is off: its image files, read beside whoever may want to start it.

::

    witnesses   what the images say of themselves   bitmaps, content   witnesses again: the same, and nobody writes
    ---------|===================================================|------------------------------------------------
                    nobody has written: one point in time

Nothing is changed: a bitmap that was stored in good order tells what was written before the VM was shut down, and goes
on recording with the next start.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from headstart import errors
from headstart.blocks import Blocks
from headstart.hypervisor import images, witness
from headstart.hypervisor.contract import Bitmap, Disturbed, PointInTime, PointRequest, Protects
from headstart.hypervisor.inventory import Disk, ImageFile, Inventory
from headstart.hypervisor.resting import OFF, Resting
from headstart.wire import imageinfo, nbd
from headstart.wire.imageinfo import ImageInfo
from headstart.wire.imageserver import Chain, ImageServer, Layer

#: What is recorded of images that can have bitmaps: until QEMU ends.
FORGETFUL = "its image keeps no bitmaps while the VM is off"
#: How consistent a point in time of it is: nothing was under way.
CONSISTENCY = "offline"


class OfflineMachine(Resting):
    """``headstart.hypervisor.contract.Machine`` of a VM that is off. A context manager."""

    def __init__(
        self,
        inventory: Inventory,
        socket: Path,
        block_size: int,
        runs: Callable[[], bool],
        consistency: str = CONSISTENCY,
    ) -> None:
        """``inventory`` names the layers of each disk; ``runs`` tells whether the VM was started meanwhile. Raises
        ``Unreachable`` if an image is not there, is not local, or in use."""
        self._block_size = block_size
        self._runs = runs
        self._consistency = consistency
        self._layers = {disk.name: tuple(_layer(disk, layer.path) for layer in disk.layers) for disk in inventory.disks}
        paths = [path for each in self._layers.values() for path in each]
        witness.settle(paths)
        self._before = {path: witness.look(path) for path in paths}
        for path, seen in self._before.items():
            if seen.writer:
                raise errors.Unreachable(
                    f"{OFF}, as it seems, and somebody has its image {path} open for writing: a VM with another"
                    " monitor, or a tool. It is backed up when that is over.",
                    path=path,
                )
        self._info = {disk.name: list(map(_info, disk.layers)) for disk in inventory.disks}
        self._inventory = replace(inventory, disks=tuple(map(self._as_it_is, inventory.disks)))
        chains = [self._chain(disk) for disk in self._inventory.disks]
        self._server = ImageServer(socket, chains)

    # -- looking

    def _as_it_is(self, disk: Disk) -> Disk:
        info = self._info[disk.name]
        paths = [layer.path for layer in disk.layers]
        for path, each, below in zip(paths, info, [*paths[1:], ""], strict=True):
            if not _same(each.backing, below):
                raise errors.Unreachable(
                    f"{OFF}, and its image {path} stands on {each.backing or 'nothing'} and not on"
                    f" {below or 'nothing'} any longer: it is backed up when it runs.",
                    disk=disk.name,
                )
            if each.apart:
                raise errors.Unreachable(f"{OFF}, and the data of its image {path} lie in another file.")
        keeps = disk.format == "qcow2" and not info[0].old
        layers = tuple(
            images.image_file(Path(layer.path), layer.driver, active=number == 0)
            for number, layer in enumerate(disk.layers)
        )
        return replace(
            disk,
            size=info[0].size,
            layers=layers,
            persistent=keeps,
            unreadable="",
            untracked=disk.untracked or ("" if keeps else FORGETFUL),
        )

    def _chain(self, disk: Disk) -> Chain:
        layers = [Layer(layer.path, layer.driver, self._before[layer.path].device) for layer in disk.layers]
        sound = [each.name for each in self._info[disk.name][0].bitmaps if not each.inconsistent]
        return Chain(disk.name, layers, sound)

    def inventory(self) -> Inventory:
        return self._inventory

    def bitmaps(self) -> Mapping[str, tuple[Bitmap, ...]]:
        return {disk: tuple(self._bitmaps(info)) for disk, info in self._info.items()}

    def _bitmaps(self, info: Sequence[ImageInfo]) -> Iterator[Bitmap]:
        for number, layer in enumerate(info):
            for each in layer.bitmaps:
                sound = not each.inconsistent and each.granularity == self._block_size
                yield Bitmap(each.name, each.recording, believed=sound and number == 0, persistent=True)

    # -- reading

    def recorded(self, names: Mapping[str, Sequence[str]]) -> dict[str, dict[str, Blocks]]:
        return {disk: self._recorded(disk, each) if each else {} for disk, each in names.items()}

    def _recorded(self, disk: str, names: Sequence[str]) -> dict[str, Blocks]:
        contexts = {name: f"qemu:dirty-bitmap:{name}" for name in names}
        with self._client(disk, list(contexts.values())) as client:
            return {name: client.dirty(each, self._block_size) for name, each in contexts.items()}

    def _client(self, disk: str, contexts: Sequence[str] = (nbd.ALLOCATION,)) -> nbd.Client:
        return nbd.Client(self._server.exports[disk], contexts, failure=Disturbed)

    def take(self, request: PointRequest) -> PointInTime:
        return OfflinePoint(self, request)

    def require_undisturbed(self) -> None:
        """Raises ``Disturbed`` if the VM runs, or an image was written since the first look."""
        if self._runs():
            raise Disturbed("the VM was started while its images were read: what was read is thrown away")
        for path, before in self._before.items():
            try:
                now = witness.look(path)
            except errors.Unreachable as error:
                raise Disturbed(str(error)) from error
            if now != before:
                what = "is open for writing" if now.writer else "was changed"
                raise Disturbed(f"the image {path} {what} while it was read: what was read is thrown away")

    def close(self) -> None:
        self._server.close()

    def __enter__(self) -> OfflineMachine:
        return self

    def __exit__(self, *details: object) -> None:
        self.close()


class OfflinePoint:
    """``headstart.hypervisor.contract.PointInTime``: it holds as long as nobody writes, and ``check`` tells."""

    protects = Protects.ALL
    freeze_seconds = pause_seconds = 0.0

    def __init__(self, machine: OfflineMachine, request: PointRequest) -> None:
        self._machine = machine
        self._reads = request.reads
        self._stack = contextlib.ExitStack()
        self._clients: dict[str, nbd.Client] = {}
        self.consistency = machine._consistency
        self.notes: list[str] = []

    def recorded(self) -> Mapping[str, Mapping[str, Blocks]]:
        return self._machine.recorded(self._reads)

    def reader(self, disk: str) -> nbd.Client:
        if disk not in self._clients:
            self._clients[disk] = self._stack.enter_context(self._machine._client(disk))
        return self._clients[disk]

    def protected(self, disk: str) -> Blocks | None:
        return None

    def keep(self, disk: str, wanted: Blocks) -> None:
        """Nobody writes: there is nothing to let go of."""

    def uri(self, disk: str) -> str:
        return self._machine._server.exports[disk].uri

    def check(self) -> None:
        self._machine.require_undisturbed()

    def release(self) -> float:
        """No guest has waited for anything: there was no window."""
        self._stack.close()
        return 0.0

    def __enter__(self) -> OfflinePoint:
        return self

    def __exit__(self, *details: object) -> None:
        self._stack.close()


def _same(one: str, other: str) -> bool:
    """Two names of a backing file; empty is none."""
    return one == other or (bool(one and other) and os.path.realpath(one) == os.path.realpath(other))


def _layer(disk: Disk, path: str) -> str:
    if disk.overridden:
        raise errors.Unreachable(f"{OFF}, and disk {disk.name} cannot be read then: {disk.overridden}.", disk=disk.name)
    if not Path(path).is_absolute():
        raise errors.Unreachable(f"{OFF}, and disk {disk.name} is no file or device of this host: {path}.")
    if not Path(path).exists():
        raise errors.Unreachable(f"{OFF}, and its image {path} is not there: it is backed up when it runs.")
    return path


def _info(layer: ImageFile) -> ImageInfo:
    return imageinfo.look(layer.path, layer.driver)
