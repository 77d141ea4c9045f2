"""Any order of backups, writes, faults and misfortunes: what is published is exact, and the next run succeeds.

``HYPOTHESIS_PROFILE=soak`` searches far longer than the usual profile (see ``tests/conftest.py``).
"""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from pathlib import Path

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from headstart.backup.complete import Options
from headstart.hypervisor.memory import MemoryVm
from tests.kit import events, inorder
from tests.kit.script import Death, Event, Outage, Script
from tests.kit.world import BLOCK, CALM, World

DISK = st.integers(0, 1)
BLOCKS = st.integers(0, 24)
#: Most runs have 30 to 70 steps, 8 to 12 commits, and 2 to 6 creations.
STEP = st.integers(1, 70)
COMMIT = st.integers(1, 13)
CREATION = st.integers(1, 7)
FEW = st.integers(0, 7)

GUEST: st.SearchStrategy[Event] = st.one_of(
    st.builds(events.GuestWrite, DISK, BLOCKS, st.sampled_from(("fresh", "zero", "common", "again"))),
    st.builds(events.GuestBegins, DISK, BLOCKS, st.sampled_from(("old", "torn", "new"))),
    st.builds(events.GuestDiscards, DISK, BLOCKS),
    st.just(events.GuestFinishes()),
    st.builds(events.SwapMoves, DISK, st.integers(0, 6), st.integers(0, 8)),
)
OWNER: st.SearchStrategy[Event] = st.one_of(
    st.builds(events.OwnerDoes, st.sampled_from(events.DEEDS), DISK),
    st.builds(events.Resize, DISK, st.integers(-6, 6), st.booleans()),
    st.builds(events.ShrinkAndGrow, DISK, st.integers(1, 12)),
)
DEATH = st.one_of(
    st.builds(Death, st.just("step"), STEP, guarded=st.booleans()),
    st.builds(Death, st.just("commit"), COMMIT, st.booleans()),
    st.builds(Death, st.just("create"), CREATION, st.booleans()),
)
WRITES = st.lists(st.tuples(STEP, GUEST), max_size=12).map(tuple)
OUTAGE = st.builds(Outage, CREATION, st.sampled_from(("fails", "answer lost", "twice")))
DISTURBED = st.builds(lambda writes, *event: (*writes, event), WRITES, STEP, OWNER)
SCRIPT = st.one_of(
    st.builds(Script, WRITES),
    st.builds(Script, WRITES, DEATH),
    st.builds(Script, WRITES, st.none(), OUTAGE),
    st.builds(Script, DISTURBED),
)
#: While a VM is off it is started, or its images are changed.
OFFLINE = st.one_of(
    st.just(Script()),
    st.builds(Script, st.none().map(lambda _: ()), DEATH),
    st.builds(lambda step, writes: Script(((step, events.OwnerStarts()), *writes)), STEP, WRITES),
    st.builds(lambda step, deed: Script(((step, deed),)), STEP, OWNER),
)
OPTIONS = st.builds(
    Options,
    plain=st.sampled_from((False, False, True)),
    audit=st.sampled_from((0, 4, 3000, None)),
    freeze=st.booleans(),
)
MISFORTUNES = (
    "copy images",
    "roll back",
    "roll back to new files",
    "copy journal",
    "put back journal",
    "lose journal",
    "lose spool",
    "forget snapshot",
    "revoke draft",
    "use another repository",
)


def machine(sizes: list[int], raw: tuple[str, ...], kind: str) -> MemoryVm:
    iothreads = ("a",) if kind == "iothread" else ()
    named = dict(zip(("a", "b"), sizes, strict=False))
    overlays = raw if kind == "overlays" else ()
    return MemoryVm(named, BLOCK, raw=raw, iothreads=iothreads, checkpoints=kind == "checkpoints", overlays=overlays)


#: Bytes; every second one of an odd number of sectors.
SIZE = st.integers(3, 22).map(lambda count: count * BLOCK - 512 * (count % 2))
#: One or two disks: qcow2 keeps its bitmaps, raw does not, one in an iothread makes the point a pushed one.
#: With libvirt's checkpoints nothing is frozen, and raw disks are compared; or these stand on overlays of ours.
VM = st.builds(
    machine,
    st.lists(SIZE, min_size=1, max_size=2),
    st.sampled_from(((), ("b",), ("a", "b"))),
    st.sampled_from(("plain", "plain", "iothread", "checkpoints", "checkpoints", "overlays", "overlays")),
)


class Backups(RuleBasedStateMachine):
    """The rules are what the program, the guest, the owner and bad luck do."""

    world: World

    @initialize(vm=VM, agent=st.sampled_from(("none", "answers", "silent")))
    def begin(self, vm: MemoryVm, agent: str) -> None:
        vm.agent = agent  # type: ignore[assignment]
        self.scratch = Path(tempfile.mkdtemp(prefix="headstart-", dir=self.fast_folder()))
        self.stack = contextlib.ExitStack()
        self.stack.enter_context(inorder.in_order(1, BLOCK))
        self.world = World(vm, self.scratch)

    @staticmethod
    def fast_folder() -> str | None:
        return "/dev/shm" if Path("/dev/shm").is_dir() else None

    # the program

    @rule(script=SCRIPT)
    def precopy(self, script: Script) -> None:
        self.world.precopy(script)

    @rule(script=SCRIPT, options=OPTIONS)
    def backup(self, script: Script, options: Options) -> None:
        self.world.backup(script, options)

    @rule(writes=WRITES, options=OPTIONS)
    def calm_backup(self, writes: tuple[tuple[int, Event], ...], options: Options) -> None:
        """Whatever has been: without further faults it succeeds, and needs nobody's help."""
        self.world.heal()
        assert self.world.backup(Script(writes), options) is not None

    @rule(script=OFFLINE, options=OPTIONS, killed=st.booleans(), between=OWNER | st.none(), start=st.booleans())
    def offline_backup(
        self, script: Script, options: Options, killed: bool, between: Event | None, start: bool
    ) -> None:
        """Without faults it succeeds; and so it does when the VM is started meanwhile."""
        self.world.heal()
        self.world.vm.kill() if killed else self.world.vm.stop()
        if between is not None:
            between.happen(self.world)
        made = self.world.backup(script, options)
        assert made is not None or script.disturbs
        if start and self.world.vm.process is None:
            self.world.vm.start()

    # what happens between runs

    @rule(deeds=st.lists(GUEST, min_size=1, max_size=6))
    def guest(self, deeds: list[Event]) -> None:
        for deed in deeds:
            deed.happen(self.world)

    @rule(deed=OWNER)
    def owner(self, deed: Event) -> None:
        deed.happen(self.world)

    @rule(excludes_swap=st.booleans())
    def policy(self, excludes_swap: bool) -> None:
        self.world.excludes_swap = excludes_swap

    @rule(what=st.sampled_from(MISFORTUNES), number=FEW)
    def misfortune(self, what: str, number: int) -> None:
        getattr(self, "_" + what.replace(" ", "_"))(number)

    def _copy_images(self, _: int) -> None:
        self.world.copy_images()

    def _roll_back(self, number: int) -> None:
        if self.world.copies:
            self.world.roll_back(number % len(self.world.copies))

    def _roll_back_to_new_files(self, number: int) -> None:
        if self.world.copies:
            self.world.roll_back(number % len(self.world.copies), new_files=True)

    def _copy_journal(self, _: int) -> None:
        self.world.copy_journal()

    def _put_back_journal(self, number: int) -> None:
        if self.world.journals:
            self.world.put_back_journal(number % len(self.world.journals))

    def _lose_journal(self, _: int) -> None:
        self.world.lose_journal()

    def _lose_spool(self, _: int) -> None:
        self.world.lose_spool()

    def _forget_snapshot(self, number: int) -> None:
        found = self.world.snapshots()
        if found:
            self.world.forget(found[number % len(found)])

    def _revoke_draft(self, _: int) -> None:
        self.world.revoke_draft()

    def _use_another_repository(self, _: int) -> None:
        self.world.chosen ^= 1

    def teardown(self) -> None:
        if not hasattr(self, "world"):
            return
        try:
            self.world.heal()
            assert self.world.backup() is not None
            again = self.world.backup(CALM)
            assert again is not None
            untracked = self.world.untracked
            compared = {disk.name: disk.reason for disk in again.disks if disk.reason and disk.name not in untracked}
            assert not compared, f"the head start is not back after a backup without faults: {compared}"
            self.world.check_everything()
        finally:
            self.stack.close()
            shutil.rmtree(self.scratch)


TestBackups = Backups.TestCase
