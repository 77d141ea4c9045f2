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
from headstart.hypervisor import rawfile, space
from headstart.hypervisor.contract import Action, Bitmap, Counters, Inventory, LiveReader, PointInTime, PointRequest
from headstart.hypervisor.libvirt import counters, domains, freeze, inventory, live, obstacles, offline, recovery
from headstart.hypervisor.libvirt.checkpoints import Checkpoints
from headstart.hypervisor.libvirt.inventory import AGENT_PORT, Look
from headstart.hypervisor.libvirt.jobs import LEAST_RESERVE, USUAL_RESERVE, Jobs
from headstart.hypervisor.libvirt.place import Place, require_local
from headstart.hypervisor.libvirt.point import LibvirtPoint
from headstart.hypervisor.libvirt.watch import Watch
from headstart.units import BLOCK_SIZE
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
    ) -> None:
        """``name``: the domain's, or its UUID. ``label`` names this VM's files in ``scratch``. Raises
        ``Unreachable``, ``NotFound``, ``Usage``."""
        self._place = Place(scratch, label)
        self._excluded = excluded
        self._block_size = block_size
        self._watching: Watch | None = None
        #: The domain was off.
        self._was_off = False
        require_local(uri)
        self._domain = Domain(uri, name)
        try:
            self._jobs = Jobs(self._domain, self._place, self._watch)
            self._checkpoints = Checkpoints(self._domain, self._jobs, installation, block_size)
        except BaseException:
            self._domain.close()
            raise

    def _watch(self) -> Watch:
        """Started when it is first needed: it takes a moment."""
        if self._watching is None:
            self._watching = Watch(self._domain.uri, self._domain.uuid)
        return self._watching

    # -- looking

    def _look(self) -> Look:
        xml = self._domain.ask(lambda domain: domain.XMLDesc(0))
        return inventory.parse(xml, self._size_of, self._excluded)

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
        self._place.started.write_text(recovery.identity(self._domain))
        self._watch().started(self._domain.ask(lambda domain: domain.ID()))
        return ("the VM was off: it was started without its guest, and is shut off afterwards",)

    def _put_back(self) -> None:
        if not self._was_off:
            return
        self._was_off = False
        recovery.shut_off(self._domain)
        self._place.started.unlink(missing_ok=True)
        self._watch().started(None)

    # -- bitmaps

    def bitmaps(self) -> Mapping[str, tuple[Bitmap, ...]]:
        return self._checkpoints.all(self._look())

    def transact(self, actions: Sequence[Action]) -> None:
        if actions:
            self._checkpoints.transact(self._look(), actions)

    def changed(self, names: Mapping[str, Sequence[str]]) -> dict[str, Blocks]:
        return {disk: Blocks().union(*each.values()) for disk, each in self.recorded(names).items()}

    def recorded(self, names: Mapping[str, Sequence[str]]) -> dict[str, dict[str, Blocks]]:
        seen = self._ready()
        return self._checkpoints.recorded(seen, names)

    def settle(self, disks: Sequence[str]) -> None:
        """Checkpoints keep what they recorded."""

    def flush(self, disks: Sequence[str]) -> None:
        """No disk is recorded by overlays."""

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
        seen = self._ready()
        chosen = [each.disk for each in seen.attachments if each.disk.name in disks]
        readers: dict[str, LiveReader] = {}
        with contextlib.ExitStack() as stack:
            slices = stack.enter_context(live.Slices(self._jobs, seen.targets))
            for disk in chosen:
                raw = stack.enter_context(rawfile.raw_file(disk))
                readers[disk.name] = raw if raw is not None else live.SlicedReader(slices, disk)
            yield readers

    def let_move(self) -> bool:
        """libvirt itself lets migrations and our jobs wait for each other."""
        return False

    def let_stay(self) -> None:
        """Nothing was begun."""

    def counters(self) -> Counters:
        return counters.read(self._domain)

    def take(self, request: PointRequest) -> PointInTime:
        seen = self._ready()
        roomy = replace(request, reserve=self._reserve(seen, request))
        notes: list[str] = []
        freezer = freeze.agent(self._domain, seen, request, notes) if self._guest_runs() else None
        with contextlib.ExitStack() as stack:
            guarding = self._watch()
            if freezer is not None and freezer.order is not None:
                # It is told at its start on which connection to thaw.
                guarding = stack.enter_context(Watch(self._domain.uri, self._domain.uuid, freezer.order))
            point = LibvirtPoint(seen, roomy, self._checkpoints, self._jobs, guarding, freezer, self._block_size)
        point.notes[:0] = notes
        return point

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
        return recovery.recover(self._domain, self._place)
