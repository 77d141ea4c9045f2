"""Everything a run of the program meets, without a VM: a simulated machine, journals, stores, a spool, and faults.

The guest, the owner of the VM and the end of the program can come between any two steps (``Script``). After each run
what was published is held against what the disks held when the point in time stood, and the VM is searched for what
should not be there.
"""

from __future__ import annotations

import contextlib
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from datetime import UTC
from pathlib import Path
from typing import TypeVar, cast

from headstart import errors, repository
from headstart.backup import cycle, looking
from headstart.backup.complete import Options
from headstart.backup.context import Context
from headstart.backup.report import BackupReport, PrecopyReport
from headstart.guest import agent as agents
from headstart.guest.agent import Agent
from headstart.hypervisor import names
from headstart.hypervisor.memory import MemoryVm
from headstart.hypervisor.memory.image import Image
from headstart.repository import collect, config, forget, keys, layout, lease, objects, snapshot
from headstart.repository.config import Config
from headstart.repository.repo import Repository
from headstart.state.values import Vm
from headstart.tracking.choice import Wish
from headstart.volumes import looker, volume
from headstart.volumes.looker import Looker, Read
from headstart.volumes.selection import Seen
from headstart.volumes.volume import Volume
from tests.kit.clock import Clock
from tests.kit.insider import Insider
from tests.kit.script import Misread, Place, Script, Trouble
from tests.kit.truth import Truth
from tests.kit.watched import Killed, WatchedImages, WatchedJournal, WatchedMachine, WatchedStore

BLOCK = 4096
NAME = "web"
REPOSITORIES = 2
#: A call that hangs is given up after so long.
HANG_SECONDS = 30.0
OFF = "the VM is off"

Report = TypeVar("Report")


class Told(Looker):
    """Sees what it is told. A real one would be a process for each backup, and find nothing on these disks."""

    def __init__(self, world: World, sizes: Mapping[str, int], seconds: float = looker.SECONDS) -> None:
        super().__init__(sizes, seconds)
        self._world = world
        #: By the patience: in the window it is the point in time that is looked at.
        self._at_point = seconds == looking.WINDOW_SECONDS

    def start(self) -> None:
        """Nothing is started."""

    def look(self, read: Read) -> Seen:
        swaps = self._world.swaps_at_point if self._at_point else self._world.swaps
        return Seen(tuple(map(swap, swaps.items())))


def swap(told: tuple[str, range]) -> Volume:
    """A partition of a disk, in blocks."""
    disk, blocks = told
    return replace(volume.partition(disk, "1", blocks.start * BLOCK, len(blocks) * BLOCK), content="swap")


CALM = Script()
USUAL = Options()


class World:
    """A VM with its owner and its guest, and an installation of the program that backs it up."""

    def __init__(self, vm: MemoryVm, scratch: Path) -> None:
        self.vm = vm
        self.scratch = scratch
        #: Of the stores, which is not set with the host's.
        self.store_clock = Clock(1_700_000_000.0)
        self.stores = [_new_store(self.store_clock) for _ in range(REPOSITORIES)]
        self.chosen = 0
        #: Copies of all images, taken while the VM was off; and of the state.
        self.copies: list[dict[str, list[Image]]] = []
        self.journals: list[bytes] = []
        self.truth = Truth()
        self.checked: set[tuple[int, str]] = set()
        #: Faults that came to pass, by kind.
        self.faults: Counter[str] = Counter()
        #: Since this was last set to False, something happened that marks do not survive; at first there are none.
        self.marks_lost = True
        #: Since the last backup a collector was hasty: it may have taken what a draft had and had told nobody.
        self.hastened = False
        self._now = 1_700_000_000.0
        self._script = CALM
        self._reached: Counter[tuple[Place, bool]] = Counter()
        self._reads = 0
        self._jump = 0.0
        self._dead = False
        self._machine: WatchedMachine | None = None
        self._insider: Insider | None = None
        #: What an agent that lies has told may be in the draft: only a comparison of every block finds all of it.
        self._lied_to = False
        self.vm.meanwhile = self._step
        #: Where the guest has its swap, in blocks by disk; and whether the policy excludes it.
        self.swaps: dict[str, range] = {}
        self.swaps_at_point: dict[str, range] = {}
        self.excludes_swap = False
        self.lose_journal()

    # -- a run of the program

    def precopy(self, script: Script = CALM) -> PrecopyReport | None:
        """None if it failed, and had a reason to."""
        return self._run(script, lambda context: cycle.precopy_round(context, NAME), self.troubles)

    def backup(self, script: Script = CALM, options: Options = USUAL) -> BackupReport | None:
        """None if it failed, and had a reason to."""
        if self._lied_to or (script.agent and script.agent.vice == "lies"):
            options = replace(options, audit=None)
        troubles = [each for each in self.troubles if each != OFF]
        report = self._run(script, lambda context: cycle.backup(context, NAME, options), troubles)
        # What is read from a spool is reported by who publishes it, and by nobody afterwards.
        self.journal.new_run()
        if report is not None:
            self._lied_to = self.hastened = False
        return report

    def _run(self, script: Script, verb: Callable[[Context], Report], troubles: list[str]) -> Report | None:
        disturbed = script.disturbs or bool(troubles) or self.hastened
        held_before = self._held()
        self._begin(script)
        report = None
        try:
            with self.repository(watched=True) as repo:
                report = verb(self._context(repo))
        except Killed:
            assert script.death is not None
        except errors.HeadstartError as error:
            assert disturbed, f"failed without a reason: {type(error).__name__}: {error}"
        finally:
            self._script = CALM
        died, self._dead = self._dead, False
        # Who did not come to meet the VM has not put right what a killed run left.
        cut = self._machine is None or self._machine.cut
        self._end()
        self._check_published()
        self._check_vm(died or cut, excused=held_before or (script.death is not None and not script.death.guarded))
        if report is not None and not disturbed and self.vm.process is not None:
            self._check_marks()
        return report

    def _begin(self, script: Script) -> None:
        self._script, self._dead = script, False
        self._reached.clear()
        self._reads, self._jump = 0, script.clock
        self._machine = self._insider = None
        self.journal.new_run()

    def _end(self) -> None:
        if self._machine is not None:
            self._machine.carry_out_belated()
        if self._insider is not None and self._insider.lied:
            self.faults["a lie of the agent"] += 1
            self._lied_to = True

    def _context(self, repo: Repository) -> Context:
        return Context(
            journal=self.journal,
            repo=repo,
            scratch=self.scratch,
            connect=lambda _context, _vm: self._connect(),
            agent=self._reach_agent,
            images=lambda _context, _vm: self._images(),
            clock=self._clock,
            host="host",
            volumes=("*", "!swap") if self.excludes_swap else ("*",),
            looker=lambda *given: Told(self, *given),
        )

    def _connect(self) -> WatchedMachine:
        self.reach("step", after=False)
        self._machine = WatchedMachine(self.vm, self.journal.installation, self, inside=self._script.agent is not None)
        return self._machine

    def _reach_agent(self, address: str) -> Agent:
        """That of the script, or a real one."""
        if self._script.agent is None:
            return agents.connect(address)
        if self._script.agent.vice is not None:
            self.faults[f"the agent {self._script.agent.vice}"] += 1
        self._insider = Insider(self.vm, self._script.agent)
        return cast(Agent, self._insider)

    def _images(self) -> WatchedImages | None:
        self.reach("step", after=False)
        return WatchedImages(self.vm, self) if self.vm.process is None else None

    def _clock(self) -> float:
        if self._jump:
            self.faults["the clock is set"] += 1
        self._now += 1.0 + self._jump
        self._jump = 0.0
        return self._now

    def repository(self, chosen: int | None = None, *, watched: bool = False) -> Repository:
        """As a process sees it that has just begun."""
        store = self.stores[self.chosen if chosen is None else chosen]
        store.watcher = self if watched else None
        return repository.open(store, bytes)

    # -- being a watcher

    def _step(self, name: str) -> None:
        self.reach("step", after=False)
        cut, number = self._script.cut, self._reached["step", False]
        machine = self._machine
        if cut is None or machine is None or machine.cut or number < cut.number:
            return
        # What is carried out late is an order: the connection ends at the next one.
        if cut.late and name != "transact":
            return
        self.faults["a call hangs" if cut.hangs else "the connection ends"] += 1
        self.faults["an order is carried out late"] += cut.late
        if cut.hangs:
            self._now += HANG_SECONDS
            self.vm.clock += HANG_SECONDS
        machine.end_connection(late=cut.late)
        raise errors.Unreachable("The connection to the VM ended.")

    def reach(self, place: Place, *, after: bool) -> None:
        if self._dead:
            raise Killed
        self._reached[place, after] += 1
        number = self._reached[place, after]
        if place == "step":
            self._let_happen(number)
        if place == "create" and not after:
            self._let_collect(number)
        death = self._script.death
        if death is not None and (death.place, death.number, death.after) == (place, number, after):
            self._dead = True
            self.faults[f"killed at a {place}"] += 1
            if self._machine is not None:
                self._machine.die(guarded=death.guarded)
            raise Killed

    def _let_happen(self, number: int) -> None:
        for due, event in self._script.between:
            if due == number:
                self.marks_lost = self.marks_lost or event.disturbs
                self.faults["the owner disturbs"] += event.disturbs
                event.happen(self)
        if number == self._script.repeated and self.journal.repeat():
            self.faults["an answer comes twice"] += 1

    def _let_collect(self, number: int) -> None:
        for each in self._script.collecting:
            if each.number == number:
                if each.forgets is not None and (found := self.snapshots()):
                    self.forget(found[each.forgets % len(found)])
                    # What is built on it is compared, unless a draft keeps it.
                    self.marks_lost = True
                self.collect(asleep=each.asleep, hasty=each.hasty)

    def store_trouble(self) -> Trouble | None:
        outage = self._script.outage
        number = self._reached["create", False]
        if outage is None or number < outage.number or (outage.passing and number > outage.number):
            return None
        self.faults[f"the store: {outage.trouble}"] += 1
        # It may have been a manifest: then there is no snapshot to go by.
        self.marks_lost = self.marks_lost or outage.trouble == "object lost"
        return outage.trouble if number == outage.number else "fails"

    def misread(self) -> Misread | None:
        self._reads += 1
        found = self._script.misread
        if found is None or self._reads != found.number:
            return None
        # A snapshot that cannot be decoded is none to go by.
        self.marks_lost = self.marks_lost or found.spoilt
        self.faults["the store: a spoilt read" if found.spoilt else "the store: a failed read"] += 1
        return found

    def point_stands(self) -> None:
        held = {disk: self.vm.data(disk, held) for disk, held in self.vm.at_point.items()}
        self.swaps_at_point = {disk: its for disk, its in self.swaps.items() if its.stop * BLOCK <= len(held[disk])}
        self.truth.note(self._now, held, self.swaps_at_point if self.excludes_swap else {})

    # -- what must hold

    def _check_published(self) -> None:
        for number, store in enumerate(self.stores):
            store.watcher = None
            new = [key for key in store.keys(layout.SNAPSHOTS) if (number, key) not in self.checked]
            if new:
                with self.repository(number) as repo:
                    for key in new:
                        self.truth.check(repo, key.removeprefix(layout.SNAPSHOTS))
                        self.checked.add((number, key))

    def check_everything(self) -> None:
        """Also what was published long ago is still what it was."""
        self.checked.clear()
        self._check_published()

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
                if not image.read_only
                and not drive.segments
                and (track := names.parse(name))
                and track.installation == self.installation
            }
            ours |= {
                mark
                for image in drive.segments
                for mark in image.marks or ()
                if (track := names.parse(mark)) and track.installation == self.installation
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
        asked = self.journal.vm(NAME).track is Wish.COMPARE
        drives = self.vm.drives.values()
        return [each.name for each in drives if asked or (self.vm.checkpoints and not each.top.persistent)]

    @property
    def troubles(self) -> list[str]:
        """Why a run may fail now."""
        vm = self.vm
        found = {
            OFF: vm.process is None,
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
        drive = self.vm.drives[disk]
        if drive.owners > 0:
            del drive.chain[0]
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
        with self._unwatched(self.chosen) as repo:
            forget.forget(repo, forget.Order(now=self._now, zone=UTC, ids=[key.removeprefix(layout.SNAPSHOTS)]))

    def collect(self, *, asleep: bool = False, hasty: bool = False) -> None:
        """A collector of garbage comes by, some time after the last one. ``asleep``: it finds every draft so.
        ``hasty``: no time has to pass between its phases."""
        self.store_clock.sleep(lease.DEAD_SECONDS + 1 if asleep else collect.QUARANTINE * 0.4)
        quarantine = 0 if hasty else collect.QUARANTINE
        self.hastened = self.hastened or hasty
        for number in range(REPOSITORIES):
            with self._unwatched(number) as repo:
                report = collect.collect(repo, collect.Order(quarantine))
                self.faults["packs were condemned"] += bool(report.condemned_packs)
                self.faults["packs were collected"] += bool(report.deleted_packs)
                self.faults["packs were repacked"] += bool(report.repacked_packs)
                self.faults["drafts were revoked"] += bool(report.revoked)

    @contextlib.contextmanager
    def _unwatched(self, number: int) -> Iterator[Repository]:
        """Somebody else's view of a repository, also in the middle of a run."""
        watcher = self.stores[number].watcher
        try:
            with self.repository(number) as repo:
                yield repo
        finally:
            self.stores[number].watcher = watcher

    def revoke_draft(self) -> None:
        """A collector of garbage takes the draft for dead."""
        draft = self.journal.draft(NAME)
        if draft is not None:
            for number in range(REPOSITORIES):
                with self.repository(number) as repo:
                    if repo.id == draft.repository:
                        snapshot.revoke(repo, draft.id)


def _new_store(clock: Clock) -> WatchedStore:
    """With a repository without encryption, of small blocks and high trees."""
    store = WatchedStore(clock)
    secrets = keys.Secrets.generate()
    key, wrapped = keys.wrap(secrets, None, keys.DEFAULT_COST)
    objects.put(store, key, wrapped)
    settings = Config(secrets.repository_id, BLOCK, tree_leaf=4, tree_fanout=2)
    config.put(store, settings, secrets)
    return store
