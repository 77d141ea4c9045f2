"""One installation in a folder, and a domain of libvirt's that it backs up."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import libvirt

from headstart import repository
from headstart.hypervisor import names
from headstart.state.values import Domain as Address
from headstart.state.values import Vm as Entry
from headstart.store.local import LocalStore
from headstart.tracking.choice import Wish
from tests.e2e.rig import NAME, Rig
from tests.kit import stores
from tests.kit.domain import Domain, open_up


class VirtRig(Rig):
    """The verbs and the judgements of ``Rig``."""

    vm: Domain  # type: ignore[assignment]

    def __init__(self, folder: Path, vm: Domain, *, excluded: tuple[str, ...] = (), track: Wish = Wish.AUTO) -> None:
        self.folder = folder
        self.state = folder / "state"
        self.scratch = folder / "scratch"
        self.appliances = ()
        self.store = LocalStore(folder / "repository")
        self.vm = vm
        if not (folder / "repository").exists():
            repository.create(self.store, stores.PASSWORD, cost=stores.QUICK).close()
        with self.journal() as journal:
            if not journal.vms():
                journal.add_vm(Entry(NAME, excluded=excluded, domain=Address(vm.daemon.uri, vm.name), track=track))
        open_up(self.scratch)

    def called(self, name: str) -> str:
        return self.vm.target(name)

    def bitmaps(self) -> dict[str, list[str]]:
        return self.checkpoints()

    def lose_bitmaps(self, name: str) -> None:
        for each in self.vm.virt.listAllCheckpoints():
            if f"name='{self.vm.target(name)}' checkpoint='bitmap'" in each.getXMLDesc(0):
                each.delete()

    def checkpoints(self) -> dict[str, list[str]]:
        """Kinds of our checkpoints by disk, sorted."""
        found: dict[str, list[str]] = {self.vm.target(disk.name): [] for disk in self.vm.disks}
        for each in self.vm.virt.listAllCheckpoints():
            track = names.parse(each.getName())
            if track is not None and track.installation == self.installation:
                text = each.getXMLDesc(libvirt.VIR_DOMAIN_CHECKPOINT_XML_NO_DOMAIN)
                disk = next(line for line in text.splitlines() if "checkpoint='bitmap'" in line)
                found[disk.split("name='")[1].split("'")[0]].append(track.kind)
        return {disk: sorted(kinds) for disk, kinds in found.items()}

    def leftovers(self) -> list[str]:
        files = (*self.scratch.iterdir(), *self.scratch.glob("spool/*"))
        found = [str(path) for path in files if path.name != "spool"]
        if self.vm.running and self.vm.virt.jobStats()["type"]:
            found.append("a job")
        for disk, kinds in self.checkpoints().items():
            if kinds not in ([], ["base", "round"]):
                found.append(f"checkpoints {kinds} of {disk}")
        return found

    def assert_tidy(self, states: Sequence[int] = (libvirt.VIR_DOMAIN_RUNNING,)) -> None:
        assert self.vm.state in states
        assert not self.leftovers()
