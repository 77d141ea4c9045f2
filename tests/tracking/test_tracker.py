"""One suite over all that marks are recorded with: what ``Tracker`` promises, and whose bitmaps are left alone."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence

import pytest

from headstart import errors
from headstart.blocks import Blocks
from headstart.hypervisor.contract import Action, Bitmap, Machine, Migrating, Remove, Start
from headstart.hypervisor.memory import MemoryMachine, MemoryVm
from headstart.hypervisor.names import Track
from headstart.tracking.mark import Kind, Mark, Marks, Standing
from headstart.tracking.tracker import Tracker
from tests.hypervisor import subjects
from tests.hypervisor.subjects import INSTALLATION, MemorySubject, QemuSubject, Subject

BASE = Mark(Kind.BASE, "ba5e")
FIRST = Mark(Kind.ROUND, "f1")
SECOND = Mark(Kind.ROUND, "f2")

SUBJECTS = (
    "memory",
    "memory-overlays",
    pytest.param("qemu", marks=pytest.mark.vm),
    pytest.param("qemu-overlays", marks=pytest.mark.vm),
)


@pytest.fixture(scope="module", params=SUBJECTS)
def subject(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Subject]:
    kind, _, variant = request.param.partition("-")
    if kind == "memory":
        yield MemorySubject(overlays=variant == "overlays")
    else:
        folder, layered = tmp_path_factory.mktemp("qemu"), variant == "overlays"
        with QemuSubject.running(folder, iothread=False, layered=layered) as running:
            yield running


machine = subjects.machine


def nonces(subject: Subject) -> dict[str, str]:
    return {disk: f"{number:08x}" for number, disk in enumerate(subject.sizes, 1)}


@pytest.fixture
def tracker(subject: Subject, machine: Machine) -> Tracker:
    return Tracker(machine, INSTALLATION, nonces(subject))


def on_all(subject: Subject, *marks: Mark) -> Marks:
    return list(itertools.product(subject.sizes, marks))


def write(subject: Subject, *wanted: int) -> None:
    for disk, block in itertools.product(subject.sizes, wanted):
        subject.write(disk, block)


def changed(tracker: Tracker, subject: Subject, *marks: Mark) -> Blocks:
    """The same on every disk."""
    found = tracker.changed(dict.fromkeys(subject.sizes, marks))
    assert set(found) == set(subject.sizes)
    (same,) = {tuple(each) for each in found.values()}
    return Blocks(same)


# the contract


def test_without_marks_nothing_stands(subject: Subject, tracker: Tracker) -> None:
    assert {disk: dict(marks) for disk, marks in tracker.standing().items()} == {disk: {} for disk in subject.sizes}


def test_a_mark_records_and_is_frozen_by_its_successor(subject: Subject, tracker: Tracker) -> None:
    tracker.rotate(on_all(subject, BASE, FIRST), [])
    write(subject, 1, 2)
    tracker.rotate(on_all(subject, SECOND), on_all(subject, FIRST))
    write(subject, 2, 3)
    for marks in tracker.standing().values():
        assert marks == {BASE: Standing.RECORDING, FIRST: Standing.FROZEN, SECOND: Standing.RECORDING}
    assert changed(tracker, subject, FIRST) == Blocks([1, 2])
    assert changed(tracker, subject, SECOND) == Blocks([2, 3])
    assert changed(tracker, subject, BASE) == Blocks([1, 2, 3])
    assert changed(tracker, subject, FIRST, SECOND) == Blocks([1, 2, 3])


def test_the_last_block_is_reported_though_it_is_short(subject: Subject, tracker: Tracker) -> None:
    tracker.rotate(on_all(subject, FIRST), [])
    for disk, size in subject.sizes.items():
        subject.write(disk, (size - 1) // subject.block_size)
    found = tracker.changed({disk: [FIRST] for disk in subject.sizes})
    assert found == {disk: Blocks([(size - 1) // subject.block_size]) for disk, size in subject.sizes.items()}


def test_marks_differ_by_disk(subject: Subject, tracker: Tracker) -> None:
    one, other = subject.sizes
    tracker.rotate([(one, FIRST), (other, SECOND)], [])
    assert tracker.standing() == {one: {FIRST: Standing.RECORDING}, other: {SECOND: Standing.RECORDING}}
    write(subject, 4)
    assert tracker.changed({one: [FIRST]}) == {one: Blocks([4])}


def test_nothing_recorded_is_nothing_changed(subject: Subject, tracker: Tracker) -> None:
    tracker.rotate(on_all(subject, FIRST), [])
    assert changed(tracker, subject, FIRST) == Blocks()
    assert tracker.changed({}) == {}


@pytest.mark.parametrize("what", ["a mark that exists", "a mark that is not there"])
def test_rotating_is_all_or_nothing(subject: Subject, tracker: Tracker, what: str) -> None:
    """The last of the disks is in the way of the others."""
    *_, last = subject.sizes
    tracker.rotate(on_all(subject, FIRST), [])
    if what == "a mark that exists":
        tracker.rotate([(last, SECOND)], [])
    else:
        tracker.drop([(last, FIRST)])
    before = tracker.standing()
    with pytest.raises(errors.HeadstartError):
        tracker.rotate(on_all(subject, SECOND), on_all(subject, FIRST))
    assert tracker.standing() == before
    write(subject, 6)
    for disk, marks in before.items():
        for mark in marks:
            assert tracker.changed({disk: [mark]}) == {disk: Blocks([6])}


def test_the_same_as_actions(subject: Subject, tracker: Tracker, machine: Machine) -> None:
    """What a point in time does with them is what ``rotate`` would have done."""
    tracker.rotate(on_all(subject, FIRST), [])
    starts, ends = tracker.actions(on_all(subject, SECOND), on_all(subject, FIRST))
    machine.transact([*starts, *ends])
    for marks in tracker.standing().values():
        assert marks == {FIRST: Standing.FROZEN, SECOND: Standing.RECORDING}


def test_reading_a_mark_that_is_gone_fails(subject: Subject, tracker: Tracker) -> None:
    with pytest.raises(errors.HeadstartError):
        tracker.changed({disk: [FIRST] for disk in subject.sizes})


def test_marks_are_dropped_recording_or_not(subject: Subject, tracker: Tracker) -> None:
    tracker.rotate(on_all(subject, BASE, FIRST), [])
    tracker.rotate(on_all(subject, SECOND), on_all(subject, FIRST))
    tracker.drop(on_all(subject, FIRST, BASE))
    assert all(marks == {SECOND: Standing.RECORDING} for marks in tracker.standing().values())


def test_dropping_what_is_gone_is_fine(subject: Subject, tracker: Tracker) -> None:
    one, _ = subject.sizes
    tracker.drop([])
    tracker.drop(on_all(subject, FIRST))
    tracker.rotate(on_all(subject, FIRST), [])
    tracker.drop([(one, FIRST)])
    tracker.drop([*on_all(subject, FIRST, SECOND), *on_all(subject, FIRST)])
    assert not any(tracker.standing().values())


def test_a_dropped_mark_can_be_started_again(subject: Subject, tracker: Tracker) -> None:
    tracker.rotate(on_all(subject, FIRST), [])
    write(subject, 1)
    tracker.drop(on_all(subject, FIRST))
    tracker.rotate(on_all(subject, FIRST), [])
    write(subject, 2)
    assert changed(tracker, subject, FIRST) == Blocks([2])


def test_marks_are_named_in_their_order(subject: Subject, tracker: Tracker, machine: Machine) -> None:
    """By what the hypervisor shows when they have begun."""
    one, other = subject.sizes
    tracker.rotate([(one, SECOND), (one, BASE), (other, FIRST)], [])
    found = tracker.names(one, [SECOND, BASE])
    assert list(found.values()) == [SECOND, BASE]
    assert set(found) == {bitmap.name for bitmap in machine.bitmaps()[one]}
    assert list(tracker.names(other, [FIRST])) == [bitmap.name for bitmap in machine.bitmaps()[other]]


# whose bitmaps are whose

FOREIGN = Track("deadbeef", "base", "00000001", "ba5e").name
PEOPLES = "nightly"


def test_those_of_others_are_listed_and_left_alone(subject: Subject, machine: Machine, tracker: Tracker) -> None:
    one, _ = subject.sizes
    machine.transact([Start(one, FOREIGN), Start(one, PEOPLES)])
    assert tracker.foreign() == [f"{one}: {FOREIGN}"]
    assert not any(tracker.standing().values())
    tracker.drop_strays()
    tracker.drop(on_all(subject, BASE))
    assert {bitmap.name for bitmap in machine.bitmaps()[one]} == {FOREIGN, PEOPLES}


def test_two_installations_do_not_see_each_other(subject: Subject, machine: Machine, tracker: Tracker) -> None:
    other = Tracker(machine, "deadbeef", nonces(subject))
    for each in (tracker, other):
        each.rotate(on_all(subject, BASE), [])
    other.rotate([], on_all(subject, BASE))
    assert all(marks == {BASE: Standing.RECORDING} for marks in tracker.standing().values())
    tracker.drop(on_all(subject, BASE))
    assert all(marks == {BASE: Standing.FROZEN} for marks in other.standing().values())


def test_the_marks_of_a_copied_disk_are_strays(subject: Subject, machine: Machine, tracker: Tracker) -> None:
    """A copy of the image in another VM brings marks with it that have another disk's nonce."""
    one, other = subject.sizes
    original = Tracker(machine, INSTALLATION, {one: "0ddba11"})
    original.rotate([(one, BASE), (one, FIRST)], [])
    tracker.rotate(on_all(subject, BASE), [])
    machine.transact([Start(one, FOREIGN)])
    assert tracker.standing() == {one: {BASE: Standing.RECORDING}, other: {BASE: Standing.RECORDING}}
    tracker.drop_strays()
    assert original.standing()[one] == {}
    assert tracker.standing() == {one: {BASE: Standing.RECORDING}, other: {BASE: Standing.RECORDING}}
    assert tracker.foreign() == [f"{one}: {FOREIGN}"]


def test_all_marks_on_an_unknown_disk_are_strays(subject: Subject, machine: Machine, tracker: Tracker) -> None:
    tracker.rotate(on_all(subject, BASE), [])
    unknowing = Tracker(machine, INSTALLATION, {})
    assert not any(unknowing.standing().values())
    unknowing.drop_strays()
    assert not any(tracker.standing().values())


@pytest.mark.parametrize("name", [PEOPLES, f"headstart-{INSTALLATION}-push-00000001-ba5e", "headstart-", "headstart"])
def test_other_bitmaps_are_no_marks(subject: Subject, machine: Machine, tracker: Tracker, name: str) -> None:
    one, _ = subject.sizes
    machine.transact([Start(one, name)])
    assert tracker.standing()[one] == {}
    assert tracker.foreign() == []
    tracker.drop_strays()
    assert [bitmap.name for bitmap in machine.bitmaps()[one]] == [name]


# marks that are broken: what the owner of a VM does to its images


@pytest.fixture
def simulated() -> MemoryVm:
    return MemoryVm({"disk": 512 * 40}, 512)


def tracker_of(simulated: MemoryVm) -> Tracker:
    """After a connection of before has ended."""
    for client in list(simulated.process.clients.values()) if simulated.process else []:
        assert isinstance(client, MemoryMachine)
        client.close()
    return Tracker(MemoryMachine(simulated, INSTALLATION, 512), INSTALLATION, {"disk": "00000001"})


def test_a_mark_comes_back_after_a_clean_end(simulated: MemoryVm) -> None:
    tracker_of(simulated).rotate([("disk", BASE)], [])
    simulated.write("disk", 3)
    simulated.restart()
    tracker = tracker_of(simulated)
    assert tracker.standing() == {"disk": {BASE: Standing.RECORDING}}
    assert tracker.changed({"disk": [BASE]}) == {"disk": Blocks([3])}


def test_an_inconsistent_mark_is_broken_and_can_be_dropped(simulated: MemoryVm) -> None:
    tracker_of(simulated).rotate([("disk", BASE)], [])
    simulated.restart()
    simulated.kill()
    simulated.start()
    tracker = tracker_of(simulated)
    assert tracker.standing() == {"disk": {BASE: Standing.BROKEN}}
    with pytest.raises(errors.HeadstartError):
        tracker.changed({"disk": [BASE]})
    tracker.drop([("disk", BASE)])
    assert tracker.standing() == {"disk": {}}


def test_a_mark_below_another_layer_is_broken_and_stays(simulated: MemoryVm) -> None:
    """Nobody can remove it there now; it keeps no other mark from being dropped."""
    tracker_of(simulated).rotate([("disk", BASE)], [])
    simulated.overlay("disk")
    tracker = tracker_of(simulated)
    tracker.rotate([("disk", FIRST)], [])
    assert tracker.standing() == {"disk": {BASE: Standing.BROKEN, FIRST: Standing.RECORDING}}
    tracker.drop([("disk", BASE), ("disk", FIRST)])
    assert tracker.standing() == {"disk": {BASE: Standing.BROKEN}}


def test_of_a_mark_on_two_layers_the_believed_one_counts(simulated: MemoryVm) -> None:
    tracker_of(simulated).rotate([("disk", BASE)], [])
    simulated.overlay("disk")
    tracker = tracker_of(simulated)
    tracker.rotate([("disk", BASE)], [])
    assert tracker.standing() == {"disk": {BASE: Standing.RECORDING}}


def test_a_bitmap_of_another_granularity_is_broken(simulated: MemoryVm) -> None:
    simulated.add_bitmap("disk", Track(INSTALLATION, "base", "00000001", BASE.id).name, granularity=4096)
    assert tracker_of(simulated).standing() == {"disk": {BASE: Standing.BROKEN}}


def test_an_absent_vm_is_told_and_not_taken_for_absent_marks(simulated: MemoryVm) -> None:
    tracker = tracker_of(simulated)
    tracker.rotate([("disk", BASE), ("disk", FIRST)], [])
    simulated.restart()
    for act in (tracker.standing, lambda: tracker.drop([("disk", BASE), ("disk", FIRST)]), tracker.drop_strays):
        with pytest.raises(errors.Unreachable):
            act()


# what the hypervisor says


class Recorded:
    """Bitmaps that are what they are, with a hypervisor that says ``refusal`` to whatever is to be changed."""

    def __init__(self, tracked: Mapping[str, tuple[Bitmap, ...]], refusal: Exception | None = None) -> None:
        self._tracked, self._refusal = tracked, refusal
        self.asked: list[Sequence[Action]] = []
        self.settled: list[Sequence[str]] = []

    def bitmaps(self) -> Mapping[str, tuple[Bitmap, ...]]:
        return self._tracked

    def transact(self, actions: Sequence[Action]) -> None:
        self.asked.append(actions)
        if self._refusal:
            raise self._refusal

    def settle(self, disks: Sequence[str]) -> None:
        self.settled.append(disks)


def tracker_over(recorded: Recorded) -> Tracker:
    return Tracker(recorded, INSTALLATION, {"disk": "00000001"})  # type: ignore[arg-type]


NAMES = [Track(INSTALLATION, kind, "00000001", mark).name for kind, mark in (("base", "ba5e"), ("round", "f1"))]
STANDING = {"disk": tuple(Bitmap(name, True) for name in NAMES)}


@pytest.mark.parametrize("order", [1, -1])
def test_the_believed_one_counts_whichever_is_listed_first(order: int) -> None:
    layers = (Bitmap(NAMES[0], True), Bitmap(NAMES[0], True, believed=False))[::order]
    assert tracker_over(Recorded({"disk": layers})).standing() == {"disk": {BASE: Standing.RECORDING}}


@pytest.mark.parametrize("refusal", [errors.Unreachable("it is gone"), Migrating("it moves")])
def test_a_vm_that_is_gone_or_moves_is_asked_once(refusal: Exception) -> None:
    """Nothing is removed one by one that may stand elsewhere by now."""
    recorded = Recorded(STANDING, refusal)
    with pytest.raises(type(refusal)):
        tracker_over(recorded).drop([("disk", BASE), ("disk", FIRST)])
    assert len(recorded.asked) == 1


def test_what_cannot_be_removed_together_is_tried_one_by_one() -> None:
    recorded = Recorded(STANDING, errors.Busy("one of them cannot be removed"))
    tracker_over(recorded).drop([("disk", BASE), ("disk", FIRST)])
    each = [Remove("disk", name) for name in NAMES]
    assert [list(actions) for actions in recorded.asked] == [each, each[:1], each[1:]]


def test_the_hypervisor_is_told_what_is_settled_if_anything_is() -> None:
    recorded = Recorded({})
    tracker = tracker_over(recorded)
    tracker.settle([])
    assert recorded.settled == []
    tracker.settle(["disk", "other"])
    assert recorded.settled == [["disk", "other"]]
