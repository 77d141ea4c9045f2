"""What only the simulated VM can do: stop the world between any two steps, and tell what was true."""

from __future__ import annotations

import pytest

from headstart import errors
from headstart.blocks import Blocks
from headstart.extents import Extent
from headstart.hypervisor.contract import PointRequest, Start, Stop
from headstart.hypervisor.memory import MemoryMachine, MemoryVm
from headstart.hypervisor.memory.image import ZERO

SIZE = 512 * 16
OURS, OTHER = "01234567", "89abcdef"


class Killed(BaseException):
    """What a test raises where a run is killed."""


@pytest.fixture
def vm() -> MemoryVm:
    return MemoryVm({"a": SIZE, "b": SIZE}, 512, raw=("b",))


def connect(vm: MemoryVm, installation: str = OURS) -> MemoryMachine:
    return MemoryMachine(vm, installation, 512)


def request(*names: str, freeze: bool = False) -> PointRequest:
    return PointRequest(tuple(Start(disk, name) for disk in "ab" for name in names), (), {}, freeze)


def recorded(vm: MemoryVm, disk: str, name: str) -> set[int]:
    record = vm.record(disk, name)
    assert record is not None
    return set(record.blocks)


def test_a_write_is_marked_when_it_completes(vm: MemoryVm) -> None:
    machine = connect(vm)
    machine.transact([Start("a", "old")])
    before = vm.contents("a")
    seen = {}
    for block, visible in enumerate(("old", "torn", "new")):
        write = vm.begin("a", block, visible=visible)  # type: ignore[arg-type]
        seen[visible] = (vm.contents("a")[block], before[block], write.content)
    assert machine.changed({"a": ["old"]}) == {"a": Blocks()}
    now, was, _ = seen["old"]
    assert now == was
    now, was, will_be = seen["torn"]
    assert now not in (was, will_be)
    now, _, will_be = seen["new"]
    assert now == will_be
    # A transaction drains: what was under way ends in the bitmap that is about to freeze.
    machine.transact([Start("a", "new"), Stop("a", "old")])
    assert (recorded(vm, "a", "old"), recorded(vm, "a", "new")) == ({0, 1, 2}, set())
    assert vm.contents("a")[1] == seen["torn"][2]


def test_a_kill_leaves_writes_half_done(vm: MemoryVm) -> None:
    write = vm.begin("a", 1, visible="torn")
    torn = vm.contents("a")[1]
    vm.kill()
    write.finish()
    vm.start()
    assert vm.contents("a")[1] == torn != write.content


@pytest.mark.parametrize("guarded", [True, False])
@pytest.mark.parametrize("place", ["prepared", "frozen", "starts stand", "stopped", "point stands", "read"])
def test_a_dead_run_leaves_behind_what_its_successor_removes(vm: MemoryVm, place: str, guarded: bool) -> None:
    vm.agent = "answers"
    machine = connect(vm)

    def kill(step: str) -> None:
        if step == place:
            vm.meanwhile = lambda _step: None
            machine.die(guarded=guarded)
            raise Killed

    vm.meanwhile = kill
    with pytest.raises(Killed), machine.take(request("x", freeze=True)) as point:
        list(point.reader("a").read([Extent(0, SIZE)]))
    assert vm.can_write is (guarded or place != "stopped")
    assert vm.frozen is (not guarded and place in ("frozen", "starts stand", "stopped", "point stands"))
    with connect(vm) as successor:
        assert bool(successor.recover()) is bool(
            place != "prepared" and (not guarded or place in ("point stands", "read"))
        )
        assert vm.leftovers() == []
        assert successor.recover() == ()
        assert ("x" in [bitmap.name for bitmap in successor.bitmaps()["a"]]) is (place not in ("prepared", "frozen"))
        with successor.take(request("y")) as point:
            point.release()
    assert vm.leftovers() == []


def test_a_vm_that_dies_in_the_middle(vm: MemoryVm) -> None:
    machine = connect(vm)
    vm.meanwhile = lambda step: vm.kill() if step == "starts stand" else None
    with pytest.raises(errors.Unreachable):
        machine.take(request("x"))
    vm.meanwhile = lambda _step: None
    vm.start()
    assert vm.leftovers() == []
    with pytest.raises(errors.Unreachable):
        machine.inventory()
    assert connect(vm).bitmaps() == {"a": (), "b": ()}


def test_a_full_scratch_breaks_one_disk(vm: MemoryVm) -> None:
    vm.scratch_bytes = 2 * 512
    with connect(vm) as machine, machine.take(request()) as point:
        for block in (3, 3, 4):
            vm.write("a", block)
        assert len(list(point.reader("a").read([Extent(0, SIZE)])))
        vm.write("a", 5)
        with pytest.raises(errors.PointLost):
            list(point.reader("a").read([Extent(0, 512)]))
        assert len(list(point.reader("b").read([Extent(0, SIZE)])))
        vm.write("b", 1)
        point.release()


def test_what_is_let_go_gives_its_room_back(vm: MemoryVm) -> None:
    vm.scratch_bytes = 2 * 512
    with connect(vm) as machine, machine.take(request()) as point:
        for block in range(10):
            vm.write("a", block)
            point.keep("a", Blocks(range(block + 1, 16)))
        assert vm.scratch_used() == 0
        point.release()


def test_the_point_is_the_moment_when_the_filters_stand(vm: MemoryVm) -> None:
    """What is written between the start of the bitmaps and the point is in both."""

    def meanwhile(step: str) -> None:
        if step == "starts stand":
            vm.write("a", 7)

    vm.meanwhile = meanwhile
    machine = connect(vm)
    with machine.take(request("new")) as point:
        assert vm.at_point["a"] == vm.contents("a")
        assert vm.at_point["a"][7] != ZERO
        point.release()
    assert recorded(vm, "a", "new") == {7}


def test_readers_are_unkind(vm: MemoryVm) -> None:
    for block in range(16):
        vm.write("a", block)
    with connect(vm) as machine, machine.live(["a"]) as readers:
        pieces = list(readers["a"].read([Extent(0, SIZE)]))
        assert [piece.extent for piece in pieces] != sorted(piece.extent for piece in pieces)
        (first, *_) = pieces
        assert first.data is not None
        before = bytes(first.data)
        first.release()
        assert bytes(first.data) != before
        with pytest.raises(RuntimeError, match="twice"):
            first.release()
        for wrong in ([Extent(512, 512), Extent(0, 512)], [Extent(0, SIZE + 1)]):
            with pytest.raises(ValueError, match="out of order"):
                list(readers["a"].read(wrong))


def test_two_installations(vm: MemoryVm) -> None:
    ours, theirs = connect(vm), connect(vm, OTHER)
    with pytest.raises(errors.Unreachable):
        connect(vm)
    with theirs.take(request()) as point:
        with pytest.raises(errors.Busy):
            ours.take(request())
        with pytest.raises(errors.Busy):
            ours.live(["a"]).__enter__()
        (told,) = ours.recover()
        assert OTHER in told
        point.check()
        point.release()
    with ours.take(request()) as point:
        point.release()


def test_what_is_in_the_way(vm: MemoryVm) -> None:
    machine = connect(vm)
    machine.transact([Start("a", "x")])
    vm.migrating = True
    for attempt in (lambda: machine.changed({"a": ["x"]}), lambda: machine.take(request())):
        with pytest.raises(errors.Busy, match="migrated"):
            attempt()
    vm.migrating = False
    vm.obstacle = "a mirror job"
    with pytest.raises(errors.Busy, match="a mirror job"):
        machine.take(request())
    assert machine.changed({"a": ["x"]}) == {"a": Blocks()}


def test_images_of_a_vm_that_is_off(vm: MemoryVm) -> None:
    with connect(vm) as machine:
        machine.transact([Start("a", "x")])
    vm.write("a", 1)
    vm.stop()
    vm.resize("a", 512 * 20)
    vm.overlay("a")
    vm.start()
    vm.write("a", 19)
    with connect(vm) as machine:
        (bitmap,) = machine.bitmaps()["a"]
        assert not bitmap.believed
    vm.stop()
    vm.commit("a")
    vm.start()
    assert recorded(vm, "a", "x") == {1, 19}
    with connect(vm) as machine:
        before = machine.inventory().disk("a")
    vm.stop()
    vm.rebase("a", {4: 1})
    vm.start()
    with connect(vm) as machine:
        after = machine.inventory().disk("a")
    assert before is not None
    assert after is not None
    assert (len(before.layers), len(after.layers)) == (1, 2)
    assert vm.contents("a")[4] == 1
    assert recorded(vm, "a", "x") == {1, 19}
