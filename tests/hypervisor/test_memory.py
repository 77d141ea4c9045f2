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
def simulated() -> MemoryVm:
    return MemoryVm({"a": SIZE, "b": SIZE}, 512, raw=("b",))


def connect(simulated: MemoryVm, installation: str = OURS) -> MemoryMachine:
    return MemoryMachine(simulated, installation, 512)


def request(*names: str, freeze: bool = False) -> PointRequest:
    return PointRequest(tuple(Start(disk, name) for disk in "ab" for name in names), (), {}, freeze)


def recorded(simulated: MemoryVm, disk: str, name: str) -> set[int]:
    record = simulated.record(disk, name)
    assert record is not None
    return set(record.blocks)


def test_a_write_is_marked_when_it_completes(simulated: MemoryVm) -> None:
    machine = connect(simulated)
    machine.transact([Start("a", "old")])
    before = simulated.contents("a")
    seen = {}
    for block, visible in enumerate(("old", "torn", "new")):
        write = simulated.begin("a", block, visible=visible)  # type: ignore[arg-type]
        seen[visible] = (simulated.contents("a")[block], before[block], write.content)
    assert machine.changed({"a": ["old"]}) == {"a": Blocks()}
    now, was, _ = seen["old"]
    assert now == was
    now, was, will_be = seen["torn"]
    assert now not in (was, will_be)
    now, _, will_be = seen["new"]
    assert now == will_be
    # A transaction drains: what was under way ends in the bitmap that is about to freeze.
    machine.transact([Start("a", "new"), Stop("a", "old")])
    assert (recorded(simulated, "a", "old"), recorded(simulated, "a", "new")) == ({0, 1, 2}, set())
    assert simulated.contents("a")[1] == seen["torn"][2]


def test_a_kill_leaves_writes_half_done(simulated: MemoryVm) -> None:
    write = simulated.begin("a", 1, visible="torn")
    torn = simulated.contents("a")[1]
    simulated.kill()
    write.finish()
    simulated.start()
    assert simulated.contents("a")[1] == torn != write.content


@pytest.mark.parametrize("guarded", [True, False])
@pytest.mark.parametrize("place", ["prepared", "frozen", "starts stand", "stopped", "point stands", "read"])
def test_a_dead_run_leaves_behind_what_its_successor_removes(simulated: MemoryVm, place: str, guarded: bool) -> None:
    simulated.agent = "answers"
    machine = connect(simulated)

    def kill(step: str) -> None:
        if step == place:
            simulated.meanwhile = lambda _step: None
            machine.die(guarded=guarded)
            raise Killed

    simulated.meanwhile = kill
    with pytest.raises(Killed), machine.take(request("x", freeze=True)) as point:
        list(point.reader("a").read([Extent(0, SIZE)]))
    assert simulated.can_write is (guarded or place != "stopped")
    assert simulated.frozen is (not guarded and place in ("frozen", "starts stand", "stopped", "point stands"))
    with connect(simulated) as successor:
        assert bool(successor.recover()) is bool(
            place != "prepared" and (not guarded or place in ("point stands", "read"))
        )
        assert simulated.leftovers() == []
        assert successor.recover() == ()
        assert ("x" in [bitmap.name for bitmap in successor.bitmaps()["a"]]) is (place not in ("prepared", "frozen"))
        with successor.take(request("y")) as point:
            point.release()
    assert simulated.leftovers() == []


def test_a_vm_that_dies_in_the_middle(simulated: MemoryVm) -> None:
    machine = connect(simulated)
    simulated.meanwhile = lambda step: simulated.kill() if step == "starts stand" else None
    with pytest.raises(errors.Unreachable):
        machine.take(request("x"))
    simulated.meanwhile = lambda _step: None
    simulated.start()
    assert simulated.leftovers() == []
    with pytest.raises(errors.Unreachable):
        machine.inventory()
    assert connect(simulated).bitmaps() == {"a": (), "b": ()}


def test_a_full_scratch_breaks_one_disk(simulated: MemoryVm) -> None:
    simulated.scratch_bytes = 2 * 512
    with connect(simulated) as machine, machine.take(request()) as point:
        for block in (3, 3, 4):
            simulated.write("a", block)
        assert len(list(point.reader("a").read([Extent(0, SIZE)])))
        simulated.write("a", 5)
        with pytest.raises(errors.PointLost):
            list(point.reader("a").read([Extent(0, 512)]))
        assert len(list(point.reader("b").read([Extent(0, SIZE)])))
        simulated.write("b", 1)
        point.release()


def test_what_is_let_go_gives_its_room_back(simulated: MemoryVm) -> None:
    simulated.scratch_bytes = 2 * 512
    with connect(simulated) as machine, machine.take(request()) as point:
        for block in range(10):
            simulated.write("a", block)
            point.keep("a", Blocks(range(block + 1, 16)))
        assert simulated.scratch_used() == 0
        point.release()


def test_the_point_is_the_moment_when_the_filters_stand(simulated: MemoryVm) -> None:
    """What is written between the start of the bitmaps and the point is in both."""

    def meanwhile(step: str) -> None:
        if step == "starts stand":
            simulated.write("a", 7)

    simulated.meanwhile = meanwhile
    machine = connect(simulated)
    with machine.take(request("new")) as point:
        assert simulated.at_point["a"] == simulated.contents("a")
        assert simulated.at_point["a"][7] != ZERO
        point.release()
    assert recorded(simulated, "a", "new") == {7}


def test_readers_are_unkind(simulated: MemoryVm) -> None:
    for block in range(16):
        simulated.write("a", block)
    with connect(simulated) as machine, machine.live(["a"]) as readers:
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


def test_two_installations(simulated: MemoryVm) -> None:
    ours, theirs = connect(simulated), connect(simulated, OTHER)
    with pytest.raises(errors.Unreachable):
        connect(simulated)
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


def test_what_is_in_the_way(simulated: MemoryVm) -> None:
    machine = connect(simulated)
    machine.transact([Start("a", "x")])
    simulated.migrating = True
    for attempt in (lambda: machine.changed({"a": ["x"]}), lambda: machine.take(request())):
        with pytest.raises(errors.Busy, match="migrated"):
            attempt()
    simulated.migrating = False
    simulated.obstacle = "a mirror job"
    with pytest.raises(errors.Busy, match="a mirror job"):
        machine.take(request())
    assert machine.changed({"a": ["x"]}) == {"a": Blocks()}


def test_images_of_a_vm_that_is_off(simulated: MemoryVm) -> None:
    with connect(simulated) as machine:
        machine.transact([Start("a", "x")])
    simulated.write("a", 1)
    simulated.stop()
    simulated.resize("a", 512 * 20)
    simulated.overlay("a")
    simulated.start()
    simulated.write("a", 19)
    with connect(simulated) as machine:
        (bitmap,) = machine.bitmaps()["a"]
        assert not bitmap.believed
    simulated.stop()
    simulated.commit("a")
    simulated.start()
    assert recorded(simulated, "a", "x") == {1, 19}
    with connect(simulated) as machine:
        before = machine.inventory().disk("a")
    simulated.stop()
    simulated.rebase("a", {4: 1})
    simulated.start()
    with connect(simulated) as machine:
        after = machine.inventory().disk("a")
    assert before is not None
    assert after is not None
    assert (len(before.layers), len(after.layers)) == (1, 2)
    assert simulated.contents("a")[4] == 1
    assert recorded(simulated, "a", "x") == {1, 19}
