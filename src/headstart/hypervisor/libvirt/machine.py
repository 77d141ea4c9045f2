"""A domain of libvirt's: what the contract asks, through libvirt's API alone."""

from __future__ import annotations

import contextlib
from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType

import libvirt

from headstart import errors
from headstart.blocks import Blocks
from headstart.hypervisor import rawfile, recording, space
from headstart.hypervisor.contract import Action, Bitmap, LiveReader, PointInTime, PointRequest, Remove
from headstart.hypervisor.counters import Counters
from headstart.hypervisor.freeze import Freezer, frozen
from headstart.hypervisor.inventory import Inventory
from headstart.hypervisor.libvirt import (
    counters,
    domains,
    freeze,
    inventory,
    layers,
    live,
    obstacles,
    offline,
    recovery,
)
from headstart.hypervisor.libvirt.checkpoints import Checkpoints
from headstart.hypervisor.libvirt.frozen import FrozenPoint, Standing
from headstart.hypervisor.libvirt.inventory import AGENT_PORT, Look
from headstart.hypervisor.libvirt.jobs import LEAST_RESERVE, USUAL_RESERVE, Jobs
from headstart.hypervisor.libvirt.layers import Conditions
from headstart.hypervisor.libvirt.overlaying import Overlaying
from headstart.hypervisor.libvirt.place import Place, require_local
from headstart.hypervisor.libvirt.point import LibvirtPoint
from headstart.hypervisor.libvirt.watch import Watch
from headstart.hypervisor.recording import OVERLAYS, Recording
from headstart.units import BLOCK_SIZE
from headstart.wire import imageserver
from headstart.wire.libvirt import Domain, Failed

#: Of what is free beside what is asked for, so much is reserved as well.
SPARE_SHARE = 4


class LibvirtMachine:
    """``headstart.hypervisor.contract.Machine``. A context manager."""

    def __init__(
        self,
        uri: str,
        name: str,
        *,
        installation: str,
        scratch: Path,
        label: str,
        excluded: Container[str] = (),
        block_size: int = BLOCK_SIZE,
        layered: bool = False,
        prepared: bool = False,
    ) -> None:
        """``name``: the domain's, or its UUID. ``label`` names this VM's files in ``scratch``. ``layered``: disks that
        stand on overlays of ours are recorded by them; ``prepared``: they are put on with the first mark. Raises
        ``Unreachable``, ``NotFound``, ``Usage``."""
        self._place = Place(scratch, label)
        self._recording = Recording(installation, scratch / OVERLAYS, layered, prepared)
        self._excluded = excluded
        self._block_size = block_size
        self._watching: Watch | None = None
        #: The domain was off.
        self._was_off = False
        self._point: FrozenPoint | None = None
        #: Disks of which readers show what stands below the topmost overlay.
        self._shown_below: frozenset[str] = frozenset()
        require_local(uri)
        self._domain = Domain(uri, name)
        try:
            self._jobs = Jobs(self._domain, self._place, self._watch)
            self._checkpoints = Checkpoints(self._domain, self._jobs, installation, block_size)
            self._overlays = Overlaying(self._domain, block_size)
        except BaseException:
            self._domain.close()
            raise

    def _watch(self) -> Watch:
        """Started when it is first needed: it takes a moment."""
        if self._watching is None:
            self._watching = Watch(self._domain.uri, self._domain.uuid, note=self._place.frozen)
        return self._watching

    # -- looking

    def _look(self) -> Look:
        xml = self._domain.ask(lambda domain: domain.XMLDesc(0))
        return self._layered(inventory.parse(xml, self._size_of, self._excluded))

    def _layered(self, seen: Look) -> Look:
        return layers.find(seen, self._recording, lambda: Conditions(self._obstacle(), self._overlays.defined(seen)))

    def _obstacle(self) -> str:
        """Why overlays may not record any disk of this domain."""
        if not self._domain.ask(lambda domain: domain.isPersistent()):
            return layers.TRANSIENT
        if self._domain.ask(lambda domain: domain.snapshotNum()):
            return layers.SNAPSHOTS
        return layers.CHECKPOINTS if self._checkpoints.foreign() else ""

    def _size_of(self, target: str) -> int:
        """The guest's size; 0 where libvirt cannot tell, as of a volume in a pool that is not active."""
        try:
            return int(self._domain.ask(lambda domain: domain.blockInfo(target, 0))[0])
        except Failed:
            return 0

    def inventory(self) -> Inventory:
        seen = self._look()
        definition = self._domain.ask(lambda domain: domain.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE))
        return Inventory(tuple(each.disk for each in seen.attachments), seen.left_out, definition, seen.files)

    @property
    def agent(self) -> str:
        """Only while the guest has opened it: until then nobody would answer."""
        channel = self._look().channels.get(AGENT_PORT)
        return channel.path if channel is not None and channel.connected and self._guest_runs() else ""

    def _guest_runs(self) -> bool:
        return bool(self._domain.ask(lambda domain: domain.state())[0] == libvirt.VIR_DOMAIN_RUNNING)

    # -- a VM that is off

    @property
    def off(self) -> bool:
        return offline.is_off(self._domain)

    def awaken(self) -> tuple[str, ...]:
        """Start a domain that is off without its guest, as libvirt removes checkpoints only of one that runs."""
        if not self.off:
            return ()
        if self._domain.ask(lambda domain: domain.hasManagedSaveImage()):
            raise errors.Busy(
                "The VM is off with its memory saved (virsh managedsave). Start it, or give the saved memory up with"
                " 'virsh managedsave-remove', and try again."
            )
        self._domain.order(lambda domain: domain.createWithFlags(libvirt.VIR_DOMAIN_START_PAUSED))
        self._was_off = True
        recovery.note(self._place.started, self._domain)
        self._watch().started(self._domain.ask(lambda domain: domain.ID()))
        return (
            "the VM was off: it was started without its guest, and is shut off afterwards",
            *self._overlays_put_right(),
        )

    def _put_back(self) -> None:
        if not self._was_off:
            return
        self._was_off = False
        recovery.shut_off(self._domain)
        self._place.started.unlink(missing_ok=True)
        self._watch().started(None)

    # -- bitmaps

    def bitmaps(self) -> Mapping[str, tuple[Bitmap, ...]]:
        seen = self._look()
        found = self._checkpoints.all(seen)
        for each in seen.attachments:
            if each.stack is not None:
                # Below an overlay a bitmap records nothing.
                sunk = (replace(bitmap, believed=False) for bitmap in found[each.disk.name])
                found[each.disk.name] = (*each.stack.marks(), *sunk)
        return found

    def transact(self, actions: Sequence[Action]) -> None:
        """Our checkpoints on disks that overlays record go before: below an overlay they are of no use. With the last
        marks the overlays go."""
        if not actions:
            return
        seen = self._look()
        layered = [each for each in actions if _is_layered(seen, each)]
        others = [each for each in actions if each not in layered]
        begun = [each for each in layered if not isinstance(each, Remove)]
        if begun:
            self._checkpoints.clear({each.disk for each in begun})
            self._overlays.rotate(seen, recording.by_disk(begun))
        if others:
            self._checkpoints.transact(seen, others)
        ended = [each for each in layered if isinstance(each, Remove)]
        if ended:
            self._overlays.remove(seen, ended)

    def changed(self, names: Mapping[str, Sequence[str]]) -> dict[str, Blocks]:
        return {disk: Blocks().union(*each.values()) for disk, each in self.recorded(names).items()}

    def recorded(self, names: Mapping[str, Sequence[str]]) -> dict[str, dict[str, Blocks]]:
        seen = self._look()
        if not _is_recorded(seen):
            return self._checkpoints.recorded(self._ready(), names)
        obstacles.wait_until_clear(self._domain, seen.targets)
        live = [disk for disk, each in names.items() if set(each) & set(seen.stack(disk).recording)]
        if live:
            self._overlays.rotate(seen, dict.fromkeys(live, ((), ())))
            seen = self._look()
        return {disk: self._overlays.recorded(seen.stack(disk), each) if each else {} for disk, each in names.items()}

    def settle(self, disks: Sequence[str]) -> None:
        """Checkpoints keep what they recorded."""
        self._overlays.settle(self._look(), disks)

    def flush(self, disks: Sequence[str]) -> None:
        """A snapshot leaves all that was written before it on the disk. What a point in time holds is there, and what
        stands below the topmost overlay."""
        rest = [disk for disk in disks if disk not in self._shown_below]
        if rest and (self._point is None or not self._point.stands):
            self._overlays.rotate(self._look(), dict.fromkeys(rest, ((), ())))

    def keepsakes(self) -> Mapping[str, str]:
        return {domains.UUID: self._domain.uuid, **self._checkpoints.keepsakes()}

    def reclaim(self, kept: Mapping[str, str]) -> tuple[str, ...]:
        again = self._checkpoints.reclaim(kept)
        return ("checkpoints that libvirt had forgotten were defined again",) if again else ()

    # -- content

    def _ready(self) -> Look:
        """Nothing is in the way of a job, and it has a place."""
        seen = self._look()
        unsafe = [each.disk.name for each in seen.attachments if each.unsafe]
        if unsafe:
            raise errors.Unsupported(f"Disk {', '.join(unsafe)} cannot be backed up: {inventory.IOTHREAD}.")
        obstacles.wait_until_clear(self._domain, seen.targets)
        space.require_local(self._place.scratch)
        self._place.open(seen.owner or self._default_owner())
        return seen

    def _default_owner(self) -> tuple[int, int] | None:
        return inventory.default_owner(self._domain.capabilities(), "kvm")

    @contextlib.contextmanager
    def live(self, disks: Sequence[str]) -> Iterator[Mapping[str, LiveReader]]:
        seen = self._look()
        if all(each.stack is not None and each.stack.segments for each in seen.attachments):
            with self._below(seen, disks) as found:
                yield found
            return
        seen = self._ready()
        chosen = [each.disk for each in seen.attachments if each.disk.name in disks]
        readers: dict[str, LiveReader] = {}
        with contextlib.ExitStack() as stack:
            slices = stack.enter_context(live.Slices(self._jobs, seen.targets))
            for disk in chosen:
                raw = stack.enter_context(rawfile.raw_file(disk))
                readers[disk.name] = raw if raw is not None else live.SlicedReader(slices, disk)
            yield readers

    @contextlib.contextmanager
    def _below(self, seen: Look, disks: Sequence[str]) -> Iterator[Mapping[str, LiveReader]]:
        """What stands below the topmost overlays: all that was written since is recorded by these."""
        chosen = [each for each in seen.attachments if each.disk.name in disks]
        with contextlib.ExitStack() as stack:
            standing = stack.enter_context(Standing(self._place.images, chosen))
            self._shown_below = frozenset(each.disk.name for each in chosen)
            stack.callback(self._show_all)
            yield {each.disk.name: stack.enter_context(standing.client(each.disk.name)) for each in chosen}

    def _show_all(self) -> None:
        self._shown_below = frozenset()

    def let_move(self) -> bool:
        """libvirt itself lets migrations and our jobs wait for each other."""
        return False

    def let_stay(self) -> None:
        """Nothing was begun."""

    def counters(self) -> Counters:
        return counters.read(self._domain)

    def take(self, request: PointRequest) -> PointInTime:
        seen = self._look()
        layered = _is_recorded(seen)
        if not layered:
            seen = self._ready()
        notes: list[str] = []
        freezer = None
        if self._guest_runs():
            freezer = freeze.agent(self._domain, seen, request, notes, self._place.frozen)
        with contextlib.ExitStack() as stack:
            guarding = self._watch()
            if freezer is not None and freezer.order is not None:
                # It is told at its start on which connection to thaw.
                guarding = stack.enter_context(Watch(self._domain.uri, self._domain.uuid, freezer.order))
            if layered:
                self._point = self._frozen(seen, request, guarding, freezer, notes)
                return self._point
            roomy = replace(request, reserve=self._reserve(seen, request))
            point = LibvirtPoint(seen, roomy, self._checkpoints, self._jobs, guarding, freezer, self._block_size)
        point.notes[:0] = notes
        return point

    def _frozen(
        self, seen: Look, request: PointRequest, guarding: Watch, freezer: Freezer | None, notes: list[str]
    ) -> FrozenPoint:
        disks = [each.disk.name for each in seen.attachments]
        # A segment more for each, also for one where nothing begins; what is to end goes on recording.
        begun = recording.by_disk(request.starts)
        changes = {disk: begun.get(disk, ([], [])) for disk in disks}
        with self._overlays.prepared(seen, changes) as begin, frozen(guarding, freezer, notes) as outcome:
            begin()
        after = self._look()
        if not _is_recorded(after):
            raise errors.PointLost("Somebody changed the images of the VM just now (a snapshot?). Try again.")
        told = {disk: self._overlays.recorded(after.stack(disk), each) for disk, each in request.reads.items()}
        return FrozenPoint(Standing(self._place.images, after.attachments), disks, told, outcome, notes)

    def _reserve(self, seen: Look, request: PointRequest) -> dict[str, int]:
        """More than is asked for, where there is room: a job that runs out of it is lost. Raises ``NoSpace``."""
        asked = {
            each.disk.name: min(each.disk.size, max(LEAST_RESERVE, request.reserve.get(each.disk.name, 0)))
            for each in seen.attachments
        }
        space.require(self._place.scratch, sum(asked.values()), "The point in time")
        spare = space.free(self._place.scratch) // SPARE_SHARE // len(asked)
        return {disk: max(least, min(USUAL_RESERVE, spare)) for disk, least in asked.items()}

    def close(self) -> None:
        with contextlib.suppress(errors.HeadstartError):
            self._put_back()
        if self._watching is not None:
            self._watching.close()
        with contextlib.suppress(OSError):
            self._place.close()
        self._domain.close()

    def __enter__(self) -> LibvirtMachine:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def recover(self) -> tuple[str, ...]:
        imageserver.clear(self._place.images)
        done = recovery.recover(self._domain, self._place)
        return done if self.off else (*done, *self._overlays_put_right())

    def _overlays_put_right(self) -> Iterator[str]:
        seen, kept = self._look(), self._recording
        yield from self._overlays.recover(seen, kept.installation, kept.folder)


def _is_recorded(seen: Look) -> bool:
    """By overlays: all disks, or none."""
    return any(each.stack is not None for each in seen.attachments)


def _is_layered(seen: Look, action: Action) -> bool:
    stack = seen.attachment(action.disk).stack
    return stack is not None and (not isinstance(action, Remove) or action.name in stack.names)
