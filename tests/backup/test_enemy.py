"""A guest whose agent is an enemy: it spoils its own draft at most, and what is published is exact.

``World`` holds every snapshot against what the disks held at the point in time, restored byte by byte.
"""

from __future__ import annotations

import functools
import random
from collections.abc import Mapping
from pathlib import Path

import pytest

from headstart.backup import comparison, cycle, plan, transport
from headstart.backup.complete import Options
from headstart.backup.plan import Population, Sample
from headstart.backup.report import BackupReport, PrecopyReport
from headstart.backup.transport import Transport
from headstart.guest import channel, mapping, renewal
from headstart.hypervisor.memory import MemoryVm
from tests.guest import enemy as enemies
from tests.guest.enemy import Enemy, Held, Honest
from tests.kit.world import BLOCK, NAME, World

COUNT = 96
ALL = Options(audit=None)
NAMES = {"vda": "a", "vdb": "b"}


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody is waited for as long as in earnest."""
    monkeypatch.setattr(channel, "PROBE_SECONDS", 0.1)
    monkeypatch.setattr(channel, "CANCEL_SECONDS", 0.5)
    monkeypatch.setattr(channel, "SILENCE_SECONDS", 1.0)
    monkeypatch.setattr(channel.Channel.frame, "__defaults__", (1.0,))
    monkeypatch.setattr(renewal, "INSTALL_SECONDS", 0.5)


def new_world(folder: Path, **kinds: object) -> World:
    """Two disks of the same size, each block unlike all others; backed up once."""
    made = World(MemoryVm({"a": COUNT * BLOCK, "b": COUNT * BLOCK}, BLOCK, **kinds), folder)  # type: ignore[arg-type]
    for disk in ("a", "b"):
        for block in range(COUNT):
            made.vm.write(disk, block)
    backup(made)
    return made


@pytest.fixture
def world(tmp_path: Path) -> World:
    return new_world(tmp_path / "scratch")


def serving(world: World, folder: Path, vice: Honest) -> Enemy:
    """The VM is known with this agent from now on."""
    held = {device: Held(disk, functools.partial(world.vm.data, disk)) for device, disk in NAMES.items()}
    made = Enemy(folder / "agent", vice, held)
    world.journal.watcher, watcher = None, world.journal.watcher
    with world.journal.change() as database:
        database.execute("UPDATE vms SET agent = ?", (made.address,))
    world.journal.watcher = watcher
    return made


def scatter(world: World) -> None:
    """The guest writes blocks that are no neighbours, the same for every test."""
    chance = random.Random(5)
    for disk in ("a", "b"):
        for block in sorted(chance.sample(range(0, COUNT, 2), 24)):
            world.vm.write(disk, block)


def precopy(world: World) -> PrecopyReport:
    done = world.precopy()
    assert done is not None
    return done


def backup(world: World, options: Options = ALL) -> BackupReport:
    done = world.backup(options=options)
    assert done is not None
    return done


def notes_of(done: BackupReport | PrecopyReport, word: str) -> list[str]:
    return [note for note in done.notes if word in note]


def test_an_agent_that_is_none(world: World, tmp_path: Path) -> None:
    """The others are held against this one."""
    with serving(world, tmp_path, Honest()) as enemy:
        scatter(world)
        assert precopy(world).transport == "agent" and enemy.reads == 2
        done = backup(world)
    assert done.audit.mismatched_bytes == done.audit.agent_mismatched_bytes == 0
    assert sum(disk.residue_bytes for disk in done.disks) == 0 < sum(disk.precopied_bytes for disk in done.disks)
    assert world.journal.distrusted(NAME) is None


@pytest.mark.parametrize("vice", enemies.FALSE)
def test_false_content_is_found_and_read_from_outside(world: World, tmp_path: Path, vice: str) -> None:
    made = enemies.FALSE[vice]()
    if isinstance(made, enemies.OldGeneration):
        made.old = world.vm.data("a")
    with serving(world, tmp_path, made) as enemy:
        scatter(world)
        assert precopy(world).transport == "agent"
        done = backup(world)
        assert done.audit.agent_mismatched_bytes == done.audit.mismatched_bytes > 0
        [note] = notes_of(done, "delivered false blocks")
        assert "until 'headstart agent trust web'" in note
        assert sum(disk.precopied_bytes for disk in done.disks) == 0, "everything from it is read from outside"
        assert not done.failures
        # It reads nothing any longer.
        reads = enemy.reads
        scatter(world)
        again = precopy(world)
        assert again.transport == "host" and notes_of(again, "not trusted since"), again
        assert backup(world).audit.mismatched_bytes == 0
        assert enemy.reads == reads


@pytest.mark.parametrize("vice", enemies.LAYOUTS)
def test_a_false_layout_proves_nothing(world: World, tmp_path: Path, vice: str) -> None:
    """Nothing is read through it, or nothing comes of it; and no run fails because of it."""
    with serving(world, tmp_path, enemies.LAYOUTS[vice]()) as enemy:
        scatter(world)
        done = precopy(world)
        assert notes_of(done, "is not read by the agent") or notes_of(done, "remains to be copied"), done
        assert (done.transport == "host") == (enemy.reads == 0)
        made = backup(world)
    assert made.audit.mismatched_bytes == 0 and world.journal.distrusted(NAME) is None


@pytest.mark.parametrize("vice", enemies.ANSWERS)
def test_an_answer_that_is_none_costs_the_rest_of_the_round(world: World, tmp_path: Path, vice: str) -> None:
    with serving(world, tmp_path, enemies.ANSWERS[vice]()):
        scatter(world)
        done = precopy(world)
        assert done.notes, "the reason is told"
        made = backup(world)
    assert made.audit.mismatched_bytes == 0


def test_content_of_one_guest_disk_for_another_is_refused_where_names_are_swapped(world: World, tmp_path: Path) -> None:
    with serving(world, tmp_path, enemies.SwappedNames()):
        scatter(world)
        done = precopy(world)
    assert len(notes_of(done, "is not what it has")) == 2, done


def test_only_what_is_from_the_agent_is_read_again(world: World, tmp_path: Path) -> None:
    """What this host has read ahead stays."""
    for block in range(1, 60, 2):
        world.vm.write("a", block)
    assert precopy(world).transport == "host"
    with serving(world, tmp_path, enemies.FalseContent(4)):
        for block in range(0, 24, 4):
            world.vm.write("a", block)
        assert precopy(world).transport == "agent"
        made = backup(world)
    [disk] = [each for each in made.disks if each.name == "a"]
    assert (disk.precopied_bytes, disk.residue_bytes) == (30 * BLOCK, 6 * BLOCK)


def test_a_policy_that_only_wants_a_report(world: World, tmp_path: Path) -> None:
    """It is audited each time, and reads on."""
    with serving(world, tmp_path, enemies.FalseContent()) as enemy:
        for _ in range(2):
            scatter(world)
            reads = enemy.reads
            assert precopy(world).transport == "agent" and enemy.reads > reads
            made = backup(world, Options(audit=None, distrust=False))
            assert made.audit.agent_mismatched_bytes > 0
            assert notes_of(made, "delivered false blocks") and not notes_of(made, "agent trust")
        assert world.journal.distrusted(NAME) is None


def test_it_reads_again_once_it_is_trusted(world: World, tmp_path: Path) -> None:
    with serving(world, tmp_path, enemies.FalseContent()):
        scatter(world)
        precopy(world)
        backup(world)
        scatter(world)
        with world.repository() as repo, pytest.raises(transport.Distrusted, match="'headstart agent trust web'"):
            cycle.precopy_round(world._context(repo), NAME, Transport.AGENT)
        found = world.journal.trust(NAME)
        assert found is not None and "were not what the disks held" in found.reason
        assert precopy(world).transport == "agent"


@pytest.mark.parametrize("settle", [True, False])
def test_where_the_point_has_no_more_than_was_asked_for_a_second_one_has_it(
    tmp_path: Path, settle: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a disk in an iothread, which only the agent reads ahead: also the rounds before the second point in time are
    without it."""
    # A glimpse of a disk shows blocks, which are smaller here.
    monkeypatch.setattr(mapping, "BLOCK", BLOCK)
    monkeypatch.setattr(transport, "BLOCK_SIZE", BLOCK)
    world = new_world(tmp_path / "scratch", iothreads=("a", "b"))
    with serving(world, tmp_path, enemies.FalseContent(4)) as enemy:
        scatter(world)
        assert precopy(world).transport == "agent"
        reads = enemy.reads
        made = backup(world, Options(audit=None, settle=settle))
        assert len(notes_of(made, "the backup was begun again")) == 1, made
        assert made.audit.agent_mismatched_bytes > 0
        assert enemy.reads == reads, "not asked again after it was found"
    assert world.journal.distrusted(NAME) is not None


def test_a_bitmap_that_lies_is_not_held_against_the_agent(world: World, tmp_path: Path) -> None:
    with serving(world, tmp_path, Honest()):
        scatter(world)
        precopy(world)
        for record in world.vm.drives["a"].top.bitmaps.values():
            record.recording = False
        for block in range(COUNT):
            world.vm.write("a", block)
        for record in world.vm.drives["a"].top.bitmaps.values():
            record.recording = True
        made = backup(world)
    assert made.audit.mismatched_bytes > 0 and made.audit.agent_mismatched_bytes == 0
    assert notes_of(made, "does not report") and world.journal.distrusted(NAME) is None


def test_an_agent_that_is_never_renewed_serves_as_it_is(world: World, tmp_path: Path) -> None:
    """It takes what it is given, and stays what it was."""
    with serving(world, tmp_path, enemies.NeverRenewed()) as enemy:
        scatter(world)
        assert precopy(world).transport == "agent"
        assert len(enemy.conversations) == 2
        assert backup(world).audit.mismatched_bytes == 0


# -- the sample


def test_the_sample_is_drawn_when_the_agent_has_no_say_any_longer(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After its last block, by the system's generator, and of what it delivered as many as were asked for."""
    drawn: list[tuple[int, int]] = []
    right = plan.sample

    def sample(disks: Mapping[str, Population], wanted: int | None, source: random.Random) -> dict[str, Sample]:
        assert isinstance(source, random.SystemRandom)
        found = right(disks, wanted, source)
        drawn.append((enemy.reads, sum(len(each.draft & disks[disk].delivered) for disk, each in found.items())))
        return found

    monkeypatch.setattr(plan, "sample", sample)
    with serving(world, tmp_path, Honest()) as enemy:
        scatter(world)
        precopy(world)
        backup(world, Options(audit=20))
        [(reads, count)] = drawn
        assert reads == enemy.reads and 20 <= count <= 22


def test_what_is_written_again_is_replaced_in_the_sample(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The guest chooses what it writes: of what is used as much is compared all the same."""
    monkeypatch.setattr(comparison, "ENDS", 0)
    with serving(world, tmp_path, Honest()):
        scatter(world)
        precopy(world)
        copied = sorted(world.journal.copied_blocks(NAME, "a"))

        def write(step: str) -> None:
            if step == "prepared":
                for block in copied[:16]:
                    world.vm.write("a", block)

        world.vm.meanwhile = write
        made = backup(world, Options(audit=30))
        [disk] = [each for each in made.disks if each.name == "a"]
        assert disk.residue_bytes == 16 * BLOCK
        # Of the 32 that are left; and a third of 30 of what is unchanged.
        assert made.audit.sampled_bytes >= (30 + 10) * BLOCK
