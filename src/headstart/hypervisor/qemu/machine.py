"""A running QEMU: what the contract asks, over one QMP monitor."""

from __future__ import annotations

import contextlib
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType

from headstart import errors
from headstart.blocks import Blocks
from headstart.extents import Extent
from headstart.hypervisor import names as tracks
from headstart.hypervisor import rawfile
from headstart.hypervisor.contract import Action, Bitmap, LiveReader, PointInTime, PointRequest, Remove
from headstart.hypervisor.counters import Counters
from headstart.hypervisor.inventory import Inventory
from headstart.hypervisor.qemu import counters, inventory, migration, obstacles, offline, overlaying, recovery, versions
from headstart.hypervisor.qemu.anchor import Anchor
from headstart.hypervisor.qemu.bitmaps import QemuBitmaps
from headstart.hypervisor.qemu.exports import Exports
from headstart.hypervisor.qemu.graph import Devices
from headstart.hypervisor.qemu.inventory import Look
from headstart.hypervisor.qemu.pull import PullPoint
from headstart.hypervisor.qemu.push import PushPoint
from headstart.hypervisor.qemu.site import Site
from headstart.hypervisor.rawfile import RawReader
from headstart.hypervisor.recording import OVERLAYS, Recording
from headstart.reading import Piece
from headstart.units import BLOCK_SIZE
from headstart.wire import nbd
from headstart.wire.qmp import Qmp


class _Still:
    """A raw image of a VM that is not being migrated: after that, others write to it. A ``LiveReader``."""

    uri = ""

    def __init__(self, raw: RawReader, watch: migration.Watch) -> None:
        self._raw = raw
        self._watch = watch

    @property
    def size(self) -> int:
        return self._raw.size

    def allocated(self) -> Iterator[Extent]:
        return self._raw.allocated()

    def read(self, wanted: Iterable[Extent]) -> Iterator[Piece]:
        for piece in self._raw.read(wanted):
            self._watch.require_still()
            yield piece


class QemuMachine:
    """``headstart.hypervisor.contract.Machine`` for plain QEMU. A context manager."""

    agent = ""
    #: Whoever answers on a monitor runs.
    off = False

    def __init__(
        self,
        monitor: Path,
        *,
        installation: str,
        scratch: Path,
        label: str,
        qga: Path | None = None,
        excluded: Container[str] = (),
        block_size: int = BLOCK_SIZE,
        layered: bool = False,
        prepared: bool = False,
    ) -> None:
        """``label`` names this VM's files in ``scratch``. ``layered``: disks that were started from overlays of ours
        are recorded by them; ``prepared``: there are to be some to start from. Raises ``Unreachable``, and
        ``Unsupported`` for a QEMU that is too old."""
        self._qmp = Qmp(monitor)
        try:
            self._release = versions.ask(self._qmp)
            versions.require(self._release)
            exports = Exports(self._qmp, installation, scratch / f"{label}.nbd")
        except BaseException:
            self._qmp.close()
            raise
        self._anchor = Anchor(self._qmp, installation, scratch / f"{label}.anchor")
        bitmaps = QemuBitmaps(self._qmp, installation, exports, self._anchor, block_size)
        self._site = Site(self._qmp, installation, scratch, label, qga, exports, bitmaps, block_size)
        self._excluded = excluded
        self._recording = Recording(installation, scratch / OVERLAYS, layered, prepared)
        self._devices = Devices(self._qmp)
        self._timed = False

    def _look(self) -> Look:
        return inventory.look(self._qmp, self._devices, self._excluded, self._recording)

    def awaken(self) -> tuple[str, ...]:
        """It runs."""
        return ()

    def reclaim(self, kept: Mapping[str, str]) -> tuple[str, ...]:
        """QEMU forgets no bitmap that it still has."""
        return ()

    def keepsakes(self) -> Mapping[str, str]:
        """Where its images are, for when it is off."""
        return {offline.KEY: offline.keep(self.inventory())}

    def inventory(self) -> Inventory:
        return inventory.inventory(self._qmp, self._look())

    def bitmaps(self) -> Mapping[str, tuple[Bitmap, ...]]:
        migration.require_here(self._qmp)
        return self._site.bitmaps.list(self._look())

    def transact(self, actions: Sequence[Action]) -> None:
        if actions:
            migration.require_still(self._qmp)
        self._site.bitmaps.transact(self._look(), actions)
        if actions and all(isinstance(action, Remove) for action in actions) and not self._marked():
            # With the last of our marks goes whatever else is ours.
            counters.drop_histograms(self._qmp)
            self._timed = False
            if not self._anchor.is_free:
                self._anchor.lift()

    def _marked(self) -> bool:
        found = (tracks.parse(each.name) for disk in self.bitmaps().values() for each in disk)
        return any(track is not None and track.installation == self._site.installation for track in found)

    def recorded(self, names: Mapping[str, Sequence[str]]) -> dict[str, dict[str, Blocks]]:
        return self._site.bitmaps.recorded(self._look(), names)

    def changed(self, names: Mapping[str, Sequence[str]]) -> dict[str, Blocks]:
        return self._site.bitmaps.changed(self._look(), names)

    def settle(self, disks: Sequence[str]) -> None:
        seen = self._look()
        migration.require_still(self._qmp)
        self._site.bitmaps.overlays.settle(seen, disks)

    def flush(self, disks: Sequence[str]) -> None:
        """There is no QMP command for it; a monitor for people has one."""
        for device in [self._look().attachment(disk).device for disk in disks]:
            told = self._qmp.call("human-monitor-command", {"command-line": f"qemu-io -d {device} flush"})
            if told.strip():
                raise errors.Unreachable(f"QEMU could not flush a disk: {told.strip()}")

    def counters(self) -> Counters:
        if not self._timed:
            counters.keep_histograms(self._qmp)
            self._timed = True
        return counters.read(self._qmp, self._devices)

    @contextlib.contextmanager
    def live(self, disks: Sequence[str]) -> Iterator[Mapping[str, LiveReader]]:
        migration.require_still(self._site.qmp)
        seen = self._look()
        chosen = [each for each in seen.attachments if each.disk.name in disks and not each.disk.unreadable]
        readers: dict[str, LiveReader] = {}
        with contextlib.ExitStack() as stack:
            watch = stack.enter_context(self._watch(migration.EASY_POLL_SECONDS))
            with watch.explaining():
                exported = [each for each in chosen if not each.iothread]
                for each in chosen:
                    # This QEMU aborts when an NBD client leaves a node of an iothread.
                    raw = stack.enter_context(rawfile.raw_file(each.disk)) if each.iothread else None
                    if raw is not None:
                        readers[each.disk.name] = _Still(raw, watch)
                if exported:
                    stack.enter_context(self._site.exports.served())
                for number, each in enumerate(exported):
                    export = stack.enter_context(self._site.exports.offered(each.root, f"live{number}"))
                    client = nbd.Client(export, failure=watch.failure(errors.Unreachable))
                    readers[each.disk.name] = stack.enter_context(client)
            yield readers

    def take(self, request: PointRequest) -> PointInTime:
        migration.require_still(self._site.qmp)
        seen = obstacles.wait_until_clear(self._look, self._qmp)
        versions.require_sound(self._release, seen.traits())
        # The filters are to stand on the overlays that begin with the point.
        early = tuple(each for each in request.starts if seen.attachment(each.disk).stack is not None)
        if early:
            self._site.bitmaps.transact(seen, early)
            request = replace(request, starts=tuple(each for each in request.starts if each not in early))
            seen = self._look()
        # One disk in an iothread decides for all: both variants cannot share one point in time.
        pushed = any(each.iothread for each in seen.attachments)
        point = PushPoint if pushed else PullPoint
        watch = self._watch(migration.POLL_SECONDS)
        with watch.explaining():
            return point(self._site, seen, request, watch)

    def _watch(self, seconds: float) -> migration.Watch:
        return migration.Watch(self._qmp, lambda: recovery.let_go(self._site), seconds)

    def recover(self) -> tuple[str, ...]:
        migration.require_here(self._qmp)
        return (*recovery.recover(self._site), *self._overlays_put_right())

    def _overlays_put_right(self) -> Iterator[str]:
        seen = self._look()
        if self._qmp.execute("query-migrate").get("status", "") not in migration.STILL or self._anchor.is_free:
            return
        nodes = [node["node-name"] for node in self._qmp.execute("query-named-block-nodes", flat=True)]
        yield from self._site.bitmaps.overlays.recover(seen, nodes)
        for each in seen.attachments:
            if each.place is not None and each.disk.unlayered and self._recording.prepared:
                yield from overlaying.prepare(each, each.place)

    def let_move(self) -> bool:
        migration.require_still(self._qmp)
        if all(each.stack is None for each in self._look().attachments):
            return False
        self._anchor.free()
        return True

    def let_stay(self) -> None:
        migration.require_still(self._qmp)
        self._anchor.lift()

    def close(self) -> None:
        self._qmp.close()

    def __enter__(self) -> QemuMachine:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
