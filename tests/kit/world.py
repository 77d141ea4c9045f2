"""Everything a run of the program meets, without a VM: a simulated machine, journals, stores, a spool, and faults.

The guest, the owner of the VM and the end of the program can come between any two steps (``Script``). After each run
what was published is held against what the disks held when the point in time stood, and the VM is searched for what
should not be there.
"""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar

from headstart import errors, repository
from headstart.backup import cycle
from headstart.backup.complete import Options
from headstart.backup.context import Context
from headstart.backup.report import BackupReport, PrecopyReport
from headstart.hypervisor import names
from headstart.hypervisor.memory import MemoryVm
from headstart.hypervisor.memory.image import Image
from headstart.repository import keys, layout, objects, snapshot, tree
from headstart.repository.config import Config
from headstart.repository.manifest import Disk
from headstart.repository.repo import Repository
from headstart.state.values import Vm
from tests.kit.watched import Killed, Place, WatchedJournal, WatchedMachine, WatchedStore

BLOCK = 4096
NAME = "web"
REPOSITORIES = 2

Report = TypeVar("Report")


@dataclass(frozen=True, slots=True)
class Death:
    """The program ends at the ``number``-th step, commit or creation of a run, before or after that is done."""

    place: Place
    number: int
    after: bool = False
    #: The guard process survives, and undoes a stop or a freeze.
    guarded: bool = True


@dataclass(frozen=True, slots=True)
class Outage:
    """The store fails from the ``number``-th creation of a run on; ``done``: it does that one all the same."""

    number: int
    done: bool = False


class Event(Protocol):
    """Something that the guest or the owner does. ``disturbs``: a run may fail because of it."""

    @property
    def disturbs(self) -> bool: ...

    def happen(self, world: World) -> None: ...


@dataclass(frozen=True, slots=True)
class Script:
    """What happens during one run: at which of its steps, and how the program or the store ends it."""

    between: tuple[tuple[int, Event], ...] = ()
    death: Death | None = None
    outage: Outage | None = None

    @property
    def disturbs(self) -> bool:
        return bool(self.death or self.outage) or any(event.disturbs for _, event in self.between)


CALM = Script()
USUAL = Options()


class World:
    """A VM with its owner and its guest, and an installation of the program that backs it up."""

    def __init__(self, vm: MemoryVm, scratch: Path) -> None:
        self.vm = vm
        self.scratch = scratch
        self.stores = [_new_store() for _ in range(REPOSITORIES)]
        self.chosen = 0
        #: Copies of all images, taken while the VM was off; and of the state.
        self.copies: list[dict[str, list[Image]]] = []
        self.journals: list[bytes] = []
        #: What each disk held, by the time of the point.
        self.truth: dict[float, dict[str, bytes]] = {}
        self.checked: set[tuple[int, str]] = set()
        self._now = 1000.0
        self._script = CALM
        self._reached: Counter[tuple[Place, bool]] = Counter()
        self._dead = False
        self._machine: WatchedMachine | None = None
        self.vm.meanwhile = lambda _step: self.reach("step", after=False)
        self.lose_journal()

    # -- a run of the program

    def precopy(self, script: Script = CALM) -> PrecopyReport | None:
        """None if it failed, and had a reason to."""
        return self._run(script, lambda context: cycle.precopy_round(context, NAME))

    def backup(self, script: Script = CALM, options: Options = USUAL) -> BackupReport | None:
        """None if it failed, and had a reason to."""
        return self._run(script, lambda context: cycle.backup(context, NAME, options))

    def _run(self, script: Script, verb: Callable[[Context], Report]) -> Report | None:
        disturbed = script.disturbs or bool(self.troubles)
        held_before = self._held()
        self._script, self._dead = script, False
        self._reached.clear()
        self._machine = None
        report = None
        with self.repository(watched=True) as repo:
            try:
                report = verb(self._context(repo))
            except Killed:
                assert script.death is not None
            except errors.HeadstartError as error:
                assert disturbed, f"failed without a reason: {type(error).__name__}: {error}"
            finally:
                self._script = CALM
        died, self._dead = self._dead, False
        self._check_published()
        self._check_vm(died, excused=held_before or (script.death is not None and not script.death.guarded))
        if report is not None and not disturbed:
            self._check_marks()
        return report

    def _context(self, repo: Repository) -> Context:
        return Context(
            journal=self.journal,
            repo=repo,
            scratch=self.scratch,
            connect=lambda _context, _vm: self._connect(),
            clock=self._clock,
            host="host",
        )

    def _connect(self) -> WatchedMachine:
        self.reach("step", after=False)
        self._machine = WatchedMachine(self.vm, self.journal.installation, self)
        return self._machine

    def _clock(self) -> float:
        self._now += 1.0
        return self._now

    def repository(self, chosen: int | None = None, *, watched: bool = False) -> Repository:
        """As a process sees it that has just begun."""
        store = self.stores[self.chosen if chosen is None else chosen]
        store.watcher = self if watched else None
        return repository.open(store, bytes)

    # -- being a watcher

    def reach(self, place: Place, *, after: bool) -> None:
        if self._dead:
            raise Killed
        self._reached[place, after] += 1
        number = self._reached[place, after]
        for due, event in self._script.between if place == "step" else ():
            if due == number:
                event.happen(self)
        death = self._script.death
        if death is not None and (death.place, death.number, death.after) == (place, number, after):
            self._dead = True
            if self._machine is not None:
                self._machine.die(guarded=death.guarded)
            raise Killed

    def store_fails(self) -> tuple[bool, bool]:
        outage = self._script.outage
        number = self._reached["create", False]
        if outage is None or number < outage.number:
            return False, False
        return True, outage.done and number == outage.number

    def point_stands(self) -> None:
        self.truth[self._now] = {disk: self.vm.data(disk, held) for disk, held in self.vm.at_point.items()}

    # -- what must hold

    def _check_published(self) -> None:
        for number, store in enumerate(self.stores):
            store.watcher = None
            new = [key for key in store.keys(layout.SNAPSHOTS) if (number, key) not in self.checked]
            if new:
                with self.repository(number) as repo:
                    for key in new:
                        self._check_snapshot(repo, key.removeprefix(layout.SNAPSHOTS))
                        self.checked.add((number, key))

    def check_everything(self) -> None:
        """Also what was published long ago is still what it was."""
        self.checked.clear()
        self._check_published()

    def _check_snapshot(self, repo: Repository, snapshot_id: str) -> None:
        if snapshot.is_revoked(repo, snapshot_id):
            return
        manifest = snapshot.load(repo, snapshot_id)
        truth = self.truth[manifest.created]
        assert {disk.name for disk in manifest.disks} <= truth.keys(), "other disks than the VM had"
        for disk in manifest.disks:
            held = truth[disk.name]
            assert disk.size == len(held), f"disk {disk.name} has {disk.size} bytes, not {len(held)}"
            found = restored(repo, disk)
            wrong = [start // BLOCK for start in range(0, disk.size, BLOCK)
                     if found[start : start + BLOCK] != held[start : start + BLOCK]]  # fmt: skip
            assert not wrong, f"snapshot {snapshot_id} of {manifest.created}: disk {disk.name} is false in {wrong}"

    def _check_vm(self, died: bool, excused: bool) -> None:
        """A run that ended by itself leaves nothing but bitmaps; one that was killed does not hold the guest up."""
        if not excused and not self._strangers():
            assert not self._held(), "the guest was left stopped or frozen"
        if not died and not self.foreign_server and not self._strangers():
            assert not self.vm.leftovers(), f"left behind in the VM: {self.vm.leftovers()}"

    def _held(self) -> bool:
        """The guest is stopped or frozen by a run."""
        process = self.vm.process
        return process is not None and bool(process.stopped_by or process.frozen_by)

    def _check_marks(self) -> None:
        """Of this installation's bitmaps exactly those are there that the next run expects."""
        tracked = self.journal.tracked(NAME)
        for drive in self.vm.drives.values():
            if not drive.plugged:
                continue
            ours = {
                name
                for image, name, _ in drive.records()
                # Nobody can remove a stored bitmap from an image that lies below another one.
                if not image.read_only and (track := names.parse(name)) and track.installation == self.installation
            }
            each = tracked[drive.name]
            kinds = () if drive.name in self.untracked else (("base", each.base), ("round", each.round))
            assert ours == {names.Track(self.installation, kind, each.nonce, mark).name for kind, mark in kinds}

    # -- the owner of the VM and of the program's files

    @property
    def installation(self) -> str:
        return self.journal.installation

    @property
    def untracked(self) -> list[str]:
        """Disks that nothing records."""
        return [drive.name for drive in self.vm.drives.values() if self.vm.checkpoints and not drive.top.persistent]

    @property
    def troubles(self) -> list[str]:
        """Why a run may fail now."""
        vm = self.vm
        found = {
            "the VM is off": vm.process is None,
            "it is paused": vm.paused,
            "it migrates": vm.migrating,
            vm.obstacle: bool(vm.obstacle),
            "no scratch space": vm.scratch_bytes is not None,
            "a foreign NBD server": self.foreign_server,
            "a dead run of another installation": self._strangers(),
        }
        return [name for name, is_so in found.items() if is_so]

    def _strangers(self) -> bool:
        """The state was lost, or an older one put back, after a run had been killed: nobody's leftovers stand."""
        process = self.vm.process
        if process is None:
            return False
        owners = {point.installation for point in process.points} | set(process.exports.values())
        owners |= {process.stopped_by, process.frozen_by} - {""}
        owners |= {process.server.installation} if isinstance(process.server, WatchedMachine) else set()
        return not owners <= {self.installation}

    @property
    def resizable(self) -> bool:
        """QEMU refuses to resize what a filter or a job is on."""
        return not self.taking and not (self.vm.process is not None and self.vm.process.points)

    @property
    def taking(self) -> bool:
        """A point in time is being made."""
        return self._machine is not None and self._machine.taking

    @property
    def foreign_server(self) -> bool:
        server = self.vm.process.server if self.vm.process else None
        return server is not None and not isinstance(server, WatchedMachine)

    def heal(self) -> None:
        """The owner puts right what only the owner can."""
        vm = self.vm
        vm.migrating = vm.paused = False
        vm.obstacle, vm.scratch_bytes = "", None
        if vm.process is None:
            vm.start()
        if vm.process is not None and (self.foreign_server or self._strangers()):
            vm.process.server, vm.process.stopped_by, vm.process.frozen_by = None, "", ""
            vm.process.points.clear()
            vm.process.exports.clear()

    def copy_images(self) -> None:
        """While the VM is off for a moment."""
        self.turn_off()
        self.copies.append({name: self.vm.copy(name) for name in self.vm.drives})
        self.vm.start()

    def roll_back(self, number: int, *, new_files: bool = False) -> None:
        self.turn_off()
        for name, files in self.copies[number].items():
            self.vm.rollback(name, files, new_files=new_files)
        self.vm.start()

    def turn_off(self) -> None:
        if self.vm.process is not None:
            self.vm.stop()

    def discard_overlay(self, disk: str) -> None:
        """Go back to before somebody's external snapshot."""
        self.turn_off()
        chain = self.vm.drives[disk].chain
        if len(chain) > 1:
            del chain[0]
        self.vm.start()

    def copy_journal(self) -> None:
        self.journals.append(self.journal.image())

    def put_back_journal(self, number: int) -> None:
        self._use(WatchedJournal.of_image(self.journals[number]))

    def lose_journal(self) -> None:
        """A new installation knows the VM, and nothing of what was."""
        self._use(WatchedJournal.empty())
        self.journal.watcher = None
        self.journal.add_vm(Vm(NAME, Path("/run/web.qmp")))
        self.journal.watcher = self

    def _use(self, journal: WatchedJournal) -> None:
        journal.watcher = self
        self.journal = journal

    def lose_spool(self) -> None:
        shutil.rmtree(self.scratch / "spool", ignore_errors=True)

    def snapshots(self) -> list[str]:
        """Keys in the repository at use, oldest first."""
        return list(self.stores[self.chosen].keys(layout.SNAPSHOTS))

    def forget(self, key: str) -> None:
        self.stores[self.chosen].delete(key)

    def revoke_draft(self) -> None:
        """A collector of garbage takes the draft for dead."""
        draft = self.journal.draft(NAME)
        if draft is not None:
            for number in range(REPOSITORIES):
                with self.repository(number) as repo:
                    if repo.id == draft.repository:
                        snapshot.revoke(repo, draft.id)


def _new_store() -> WatchedStore:
    """With a repository without encryption, of small blocks and high trees."""
    store = WatchedStore()
    secrets = keys.Secrets.generate()
    key, wrapped = keys.wrap(secrets, None, keys.DEFAULT_COST)
    objects.put(store, key, wrapped)
    settings = Config(secrets.repository_id, BLOCK, tree_leaf=4, tree_fanout=2)
    objects.put(store, layout.CONFIG_KEY, settings.encode(secrets))
    return store


def restored(repo: Repository, disk: Disk) -> bytes:
    """The way of a restore: walk and read."""
    image = bytearray(disk.size)
    for block, chunk in tree.walk(repo, disk.root, disk.size):
        data = repo.read_chunk(chunk)
        image[block * BLOCK : block * BLOCK + len(data)] = data
    return bytes(image)
