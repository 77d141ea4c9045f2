"""One installation in a folder, the VM that it backs up, and what a test wants to know of both."""

from __future__ import annotations

import contextlib
import hashlib
import shutil
import subprocess
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from headstart import repository
from headstart.backup import cycle, inspection, leaving
from headstart.backup.complete import Options
from headstart.backup.context import Context, Progress, quiet
from headstart.backup.report import BackupReport, DiskReport, PrecopyReport
from headstart.backup.transport import Transport
from headstart.hypervisor import names
from headstart.hypervisor.recording import OVERLAYS
from headstart.repository import Repository, snapshot
from headstart.repository.manifest import Manifest
from headstart.restore import order, restoration
from headstart.state.journal import Journal
from headstart.state.values import Vm as Entry
from headstart.store.contract import Store
from headstart.store.local import LocalStore
from headstart.tracking.choice import Wish
from tests.e2e import steps
from tests.kit import compare, stores
from tests.kit.cli import Cli
from tests.kit.vm import Vm

NAME = "guest"


@dataclass(frozen=True, slots=True)
class Exact:
    """A backup, the images restored from it, and what another reader saw of its point in time; by disk."""

    report: BackupReport
    restored: Mapping[str, Path]
    seen: Mapping[str, Path]
    #: How the report calls a disk of the kit's.
    called: Callable[[str], str]

    def disk(self, name: str) -> DiskReport:
        return next(disk for disk in self.report.disks if disk.name == self.called(name))

    def image(self, name: str) -> Path:
        return self.restored[self.called(name)]


class Rig:
    """State, scratch and repository in one folder, made if they are not there.

    Every verb opens and closes them, as the command line does."""

    def __init__(
        self,
        folder: Path,
        vm: Vm,
        *,
        qga: bool = True,
        agent: bool = False,
        excluded: tuple[str, ...] = (),
        track: Wish = Wish.AUTO,
        guest_only: bool = False,
    ) -> None:
        self.folder = folder
        self.state = folder / "state"
        self.scratch = folder / "scratch"
        #: Addresses of those that may read.
        self.appliances: tuple[str, ...] = ()
        self.store: Store = LocalStore(folder / "repository")
        if not (folder / "repository").exists():
            repository.create(self.store, stores.PASSWORD, cost=stores.QUICK).close()
        self.follow(vm)
        spoken = str(folder / "agent") if agent else ""
        monitor = None if guest_only else folder / "qmp"
        entry = Entry(NAME, monitor, spoken, folder / "qga" if qga else None, excluded, track=track)
        with self.journal() as journal:
            if not journal.vms():
                journal.add_vm(entry)

    @property
    def cli(self) -> Cli:
        """The command line with the same places."""
        return Cli(self.folder)

    def follow(self, vm: Vm) -> None:
        """The VM is in another QEMU process from now on; its sockets are found at the same place."""
        self.vm = vm
        for name, socket in (("qmp", vm.qmp_socket), ("qga", vm.qga_socket), ("agent", vm.agent_socket)):
            (self.folder / name).unlink(missing_ok=True)
            (self.folder / name).symlink_to(socket)

    @contextlib.contextmanager
    def journal(self) -> Iterator[Journal]:
        with Journal.open(self.state) as journal:
            yield journal

    @contextlib.contextmanager
    def repo(self) -> Iterator[Repository]:
        with repository.open(self.store, lambda: stores.PASSWORD) as repo:
            yield repo

    @contextlib.contextmanager
    def context(self, progress: Progress = quiet) -> Iterator[Context]:
        with self.journal() as journal, self.repo() as repo:
            yield Context(journal, repo, self.scratch, progress, appliances=self.appliances)

    def called(self, name: str) -> str:
        """A disk of the kit's in reports."""
        return f"dev-{name}"

    def lose_bitmaps(self, name: str) -> None:
        """The owner removes ours from a disk."""
        for bitmap in self.bitmaps()[name]:
            self.vm.qmp("block-dirty-bitmap-remove", node=name, name=bitmap["name"])

    @property
    def installation(self) -> str:
        with self.journal() as journal:
            return journal.installation

    # -- the verbs

    def precopy(self, progress: Progress = quiet, transport: Transport = Transport.AUTO) -> PrecopyReport:
        with self.context(progress) as context:
            return cycle.precopy_round(context, NAME, transport)

    def backup(self, options: Options | None = None, **actions: steps.Action) -> BackupReport:
        """``actions`` are called at the steps of the completion (``before_freeze``, ...) with the hook's facts."""
        options = options or Options()
        with contextlib.ExitStack() as stack:
            calls = [
                stack.enter_context(steps.Step(event.replace("_", "-"), action, self.folder))
                for event, action in actions.items()
            ]
            context = stack.enter_context(self.context())
            made = cycle.backup(context, NAME, replace(options, hooks=tuple(call.hook for call in calls)))
        assert not made.failures, made.failures
        return made

    def exact_backup(self, options: Options | None = None, **actions: steps.Action) -> Exact:
        """A backup under ``audit all`` whose restored disks equal what another reader saw while its point stood."""
        seen: dict[str, Path] = {}

        def look(facts: Mapping[str, str]) -> None:
            seen.update(copy_point(facts, self._fresh("seen")))

        options = replace(options or Options(), audit=None)
        made = self.backup(options, before_release=look, **actions)
        assert made.audit.mismatched_bytes == 0, made
        assert len(seen) == len(made.disks), "the point in time was offered for some of the disks only"
        restored = self.restore(made.snapshot)
        twins = {disk.name: seen[steps.variable(disk.name)] for disk in made.disks}
        for name, path in restored.items():
            compare.assert_identical(path, twins[name])
        self.assert_tidy()
        return Exact(made, restored, twins, self.called)

    def inspect(self) -> inspection.Inspection:
        with self.context() as context:
            return inspection.inspect(context, context.journal.vm(NAME))

    def release(self, name: str = NAME) -> None:
        with self.context() as context:
            leaving.release(context, name)

    def restore(self, wanted: str, image_format: order.Format = "raw") -> dict[str, Path]:
        """The disks of a snapshot, restored into a folder that holds nothing else."""
        ordered = order.Order(self._fresh("restored"), format=image_format)
        with self.repo() as repo:
            done = restoration.restore(repo, snapshot.load(repo, wanted), ordered, quiet)
        return {disk.name: disk.path for disk in done.disks}

    def snapshots(self) -> list[str]:
        """Ids, oldest first."""
        return [manifest.id for manifest in self.manifests()]

    def manifests(self) -> list[Manifest]:
        with self.repo() as repo:
            found = snapshot.all_manifests(repo).manifests
        return sorted(found, key=lambda manifest: manifest.created)

    def _fresh(self, name: str) -> Path:
        folder = self.folder / name
        shutil.rmtree(folder, ignore_errors=True)
        return folder

    # -- what is ours in the VM and beside it

    def bitmaps(self) -> dict[str, list[Any]]:
        """Our bitmaps by node, with what QEMU tells of them."""
        return {
            node["node-name"]: [
                found
                for found in node.get("dirty-bitmaps", ())
                if (track := names.parse(found.get("name", ""))) and track.installation == self.installation
            ]
            for node in self.vm.qmp("query-named-block-nodes", flat=True)
        }

    def leftovers(self) -> list[str]:
        """Everything of ours that should have gone with the run that made it."""
        installation = self.installation
        nodes = [node["node-name"] for node in self.vm.qmp("query-named-block-nodes", flat=True)]
        exports = [export["id"] for export in self.vm.qmp("query-block-exports")]
        jobs = [job["id"] for job in self.vm.qmp("query-jobs")]
        found = [name for name in (*nodes, *exports, *jobs) if names.is_node_of(installation, name)]
        files = (*self.scratch.iterdir(), *self.scratch.glob("spool/*"))
        found += [str(path) for path in files if path.name not in ("spool", OVERLAYS)]
        for node, bitmaps in self.bitmaps().items():
            kinds = sorted(track.kind for each in bitmaps if (track := names.parse(each["name"])))
            if kinds not in ([], ["base", "round"]):
                found.append(f"bitmaps {kinds} on {node}")
        return found

    def assert_tidy(self) -> None:
        """The VM runs, and a run left nothing but one base and one round bitmap on each disk."""
        assert self.vm.qmp("query-status")["status"] in ("running", "prelaunch")
        assert not self.leftovers()


def disk_of(report: BackupReport, name: str) -> DiskReport:
    """``name`` as the kit names the disk."""
    return next(disk for disk in report.disks if disk.name == f"dev-{name}")


def copy_point(facts: Mapping[str, str], folder: Path) -> dict[str, Path]:
    """Raw copies of the point in time that a before-release hook is told of, by libnbd's own tool."""
    folder.mkdir()
    copies = {}
    for variable, uri in facts.items():
        if variable.startswith(steps.NBD):
            name = variable.removeprefix(steps.NBD)
            copies[name] = folder / f"{name}.raw"
            done = subprocess.run(["nbdcopy", uri, copies[name]], capture_output=True, text=True, timeout=60)
            assert done.returncode == 0, done.stderr
    return copies


def digest(image: Path) -> str:
    """The same as the guest's ``hash`` of a whole device with these bytes."""
    return hashlib.blake2b(image.read_bytes()).hexdigest()
