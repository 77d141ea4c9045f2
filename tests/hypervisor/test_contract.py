"""One suite over every hypervisor: what ``headstart.hypervisor.contract`` promises."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import fields, replace

import pytest

from headstart import blocks, errors
from headstart.blocks import Blocks
from headstart.extents import Extent
from headstart.hypervisor import space
from headstart.hypervisor.contract import (
    Action,
    Machine,
    Migrating,
    NotTaken,
    PointInTime,
    PointRequest,
    Protects,
    Remove,
    Start,
    Stop,
)
from headstart.hypervisor.counters import Counters, DiskCounters
from headstart.hypervisor.inventory import Recorder
from headstart.reading import PIECE_SIZE, Reader
from tests.hypervisor import subjects
from tests.hypervisor.subjects import GuestSubject, LibvirtSubject, MemorySubject, QemuSubject, Subject

#: How many short rounds it takes until a gap of some milliseconds shows.
POINTS = 6

SUBJECTS = (
    "memory",
    "memory-push",
    "memory-checkpoints",
    "memory-overlays",
    pytest.param("qemu-pull", marks=pytest.mark.vm),
    pytest.param("qemu-push", marks=pytest.mark.vm),
    pytest.param("qemu-overlays", marks=pytest.mark.vm),
    pytest.param("libvirt", marks=pytest.mark.vm),
    pytest.param("guest", marks=pytest.mark.vm),
    pytest.param("libvirt-overlays", marks=pytest.mark.vm),
)


@pytest.fixture(scope="module", params=SUBJECTS)
def subject(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Subject]:
    kind, _, variant = request.param.partition("-")
    if kind == "memory":
        yield MemorySubject(
            iothread=variant == "push", checkpoints=variant == "checkpoints", overlays=variant == "overlays"
        )
    elif kind == "guest":
        with GuestSubject.alone(tmp_path_factory.mktemp(kind)) as alone:
            yield alone
    elif kind == "libvirt":
        with LibvirtSubject.started(tmp_path_factory.mktemp(kind), layered=variant == "overlays") as running:
            yield running
    else:
        folder, layered = tmp_path_factory.mktemp(kind), variant == "overlays"
        with QemuSubject.running(folder, iothread=variant == "push", layered=layered) as running:
            yield running


machine = subjects.machine


def bitmap(disk: str, name: str) -> str:
    """Names are unique in a VM."""
    return f"{name}.{disk}"


def starts(subject: Subject, name: str) -> tuple[Start, ...]:
    return tuple(Start(disk, bitmap(disk, name)) for disk in subject.sizes)


def stops(subject: Subject, name: str) -> tuple[Stop, ...]:
    return tuple(Stop(disk, bitmap(disk, name)) for disk in subject.sizes)


def each(subject: Subject, *names: str) -> dict[str, list[str]]:
    return {disk: [bitmap(disk, name) for name in names] for disk in subject.sizes}


def together(found: Mapping[str, Mapping[str, Blocks]]) -> dict[str, Blocks]:
    """What all bitmaps of a disk hold."""
    return {disk: Blocks().union(*told.values()) for disk, told in found.items()}


def everything(subject: Subject) -> dict[str, Blocks]:
    return {disk: blocks.everything(size, subject.block_size) for disk, size in subject.sizes.items()}


def write(subject: Subject, wanted: Iterable[int]) -> dict[str, Blocks]:
    written = Blocks(wanted)
    for disk in subject.sizes:
        for block in written:
            subject.write(disk, block)
    return dict.fromkeys(subject.sizes, written)


def content_of(reader: Reader, extents: list[Extent]) -> dict[int, bytes]:
    """What a reader gives, by offset; checks that it is what was asked for and no more."""
    found: dict[int, bytes] = {}
    for piece in reader.read(extents):
        assert piece.extent.start // PIECE_SIZE == (piece.extent.end - 1) // PIECE_SIZE
        assert piece.data is None or len(piece.data) == piece.extent.length
        assert piece.extent.start not in found
        found[piece.extent.start] = bytes(piece.extent.length) if piece.data is None else bytes(piece.data)
        piece.release()
    assert sum(map(len, found.values())) == sum(extent.length for extent in extents)
    return found


def whole(reader: Reader) -> bytes:
    found = content_of(reader, [Extent(0, reader.size)])
    return b"".join(found[start] for start in sorted(found))


def block_of(subject: Subject, content: bytes, block: int) -> bytes:
    return content[block * subject.block_size : (block + 1) * subject.block_size]


def assert_holds(subject: Subject, point: PointInTime, expected: Mapping[str, bytes]) -> None:
    """Everything that the point protects reads as expected."""
    for disk, content in expected.items():
        reader, protected = point.reader(disk), point.protected(disk)
        assert reader.size == subject.sizes[disk]
        wanted = everything(subject)[disk] if protected is None else protected
        for extent in blocks.to_extents(wanted, subject.block_size, reader.size):
            for start, data in content_of(reader, [extent]).items():
                assert data == content[start : start + len(data)], f"{disk} at {start}"


# -- looking


def test_the_inventory_tells_every_disk(subject: Subject, machine: Machine) -> None:
    inventory = machine.inventory()
    assert {disk.name: disk.size for disk in inventory.disks} == subject.sizes
    assert {disk.name for disk in inventory.disks if disk.unreadable} == subject.unreadable
    formats = {disk.name: disk.format for disk in inventory.disks}
    assert formats == subject.formats
    assert {disk.name for disk in inventory.disks if disk.persistent} == subject.lasting
    assert not any(disk.untracked for disk in inventory.disks)
    assert all(disk.layers and disk.layers[0].size is None for disk in inventory.disks)
    assert all(disk.serial for disk in inventory.disks) is subject.traits.outside
    assert bool(inventory.definition) is subject.traits.outside


def test_a_vm_without_leftovers_needs_no_recovery(machine: Machine) -> None:
    assert machine.recover() == ()


# -- bitmaps


def test_a_bitmap_tells_what_was_written_since_its_start(subject: Subject, machine: Machine) -> None:
    last = blocks.count_of(subject.sizes[min(subject.sizes)], subject.block_size) - 1
    write(subject, [1])
    machine.transact(starts(subject, "a"))
    assert machine.changed(each(subject, "a")) == {disk: Blocks() for disk in subject.sizes}
    written = write(subject, [0, 7, 8, last])
    assert machine.changed(each(subject, "a")) == written
    assert machine.changed(each(subject, "a")) == written


def test_bitmaps_are_told_apart(subject: Subject, machine: Machine) -> None:
    machine.transact(starts(subject, "a"))
    write(subject, [3])
    machine.transact(starts(subject, "b"))
    write(subject, [4])
    found = machine.recorded(each(subject, "a", "b"))
    assert found == {disk: {bitmap(disk, "a"): Blocks([3, 4]), bitmap(disk, "b"): Blocks([4])} for disk in found}
    assert found.keys() == subject.sizes.keys()


def test_a_frozen_bitmap_keeps_what_it_has(subject: Subject, machine: Machine) -> None:
    machine.transact(starts(subject, "a"))
    written = write(subject, [3])
    machine.transact([*starts(subject, "b"), *stops(subject, "a")])
    later = write(subject, [4])
    stops_it = subject.traits.stops
    assert machine.changed(each(subject, "a")) == (written if stops_it else {d: written[d] | later[d] for d in written})
    assert machine.changed(each(subject, "b")) == later
    for disk, bitmaps in machine.bitmaps().items():
        found = {(each.name, each.recording, each.believed) for each in bitmaps}
        assert found == {(bitmap(disk, "a"), not stops_it, True), (bitmap(disk, "b"), True, True)}


def test_several_bitmaps_are_read_together(subject: Subject, machine: Machine) -> None:
    machine.transact(starts(subject, "a"))
    write(subject, [3])
    machine.transact([*starts(subject, "b"), *stops(subject, "a")])
    write(subject, [4])
    assert machine.changed(each(subject, "a", "b")) == {disk: Blocks([3, 4]) for disk in subject.sizes}
    first, *rest = subject.sizes
    assert machine.changed({first: [bitmap(first, "b")], rest[0]: []}) == {first: Blocks([4]), rest[0]: Blocks()}


def test_bitmaps_survive_as_long_as_their_format_lets_them(subject: Subject, machine: Machine) -> None:
    machine.transact(starts(subject, "a"))
    persistent = {disk.name: disk.persistent for disk in machine.inventory().disks}
    assert {disk: found[0].persistent for disk, found in machine.bitmaps().items()} == persistent


def test_a_failed_transaction_changes_nothing(subject: Subject, machine: Machine) -> None:
    machine.transact(starts(subject, "a"))
    before = machine.bitmaps()
    first, second = subject.sizes
    attempts: list[list[Action]] = [
        [Start(first, "b"), Stop(first, bitmap(first, "a")), Stop(second, "missing")],
        [Stop(first, bitmap(first, "a")), Start(first, "b"), Start(second, bitmap(second, "a"))],
        [Remove(first, bitmap(first, "a")), Remove(second, "missing")],
    ]
    for actions in attempts:
        with pytest.raises(errors.HeadstartError):
            machine.transact(actions)
        assert machine.bitmaps() == before
    written = write(subject, [5])
    assert machine.changed(each(subject, "a")) == written


def test_what_is_not_there_is_an_error(subject: Subject, machine: Machine) -> None:
    with pytest.raises(errors.NotFound):
        machine.transact([Start("nodisk", "a")])
    with pytest.raises(errors.HeadstartError):
        machine.changed(each(subject, "missing"))


def test_rotation_loses_no_write(subject: Subject, machine: Machine) -> None:
    machine.transact([*starts(subject, "base"), *starts(subject, "round0")])
    seen = {disk: Blocks() for disk in subject.sizes}
    with subject.writing() as proof:
        for number in range(6):
            proof.wait()
            machine.transact([*starts(subject, f"round{number + 1}"), *stops(subject, f"round{number}")])
            for disk, changed in machine.changed(each(subject, f"round{number}")).items():
                seen[disk] |= changed
            machine.transact([Remove(disk, bitmap(disk, f"round{number}")) for disk in subject.sizes])
    for disk, changed in machine.changed(each(subject, "round6")).items():
        seen[disk] |= changed
    assert seen == machine.changed(each(subject, "base"))
    assert all(proof.written[disk] and proof.written[disk] <= seen[disk] for disk in subject.sizes)


def test_what_is_settled_is_forgotten_by_overlays_alone(subject: Subject, machine: Machine) -> None:
    """All others keep it; and what comes later is told by all."""
    machine.transact(starts(subject, "base"))
    content = {disk: subject.contents(disk) for disk in subject.sizes}
    before = write(subject, [3])
    machine.transact(starts(subject, "round"))
    machine.settle(list(subject.sizes))
    after = write(subject, [5])
    layered = {disk.name for disk in machine.inventory().disks if disk.recorder is Recorder.OVERLAY}
    assert layered == {d for d in subject.lasting if subject.formats[d] == "raw" and subject.traits.outside}
    found = machine.changed(each(subject, "base"))
    assert found == {disk: after[disk] if disk in layered else before[disk] | after[disk] for disk in subject.sizes}
    assert machine.changed(each(subject, "round")) == after
    for disk, was in content.items():
        now = subject.contents(disk)
        same = everything(subject)[disk] - before[disk] - after[disk]
        assert all(block_of(subject, now, block) == block_of(subject, was, block) for block in same)
        assert block_of(subject, now, 3) != block_of(subject, was, 3)
    machine.flush(sorted(layered))


# -- the running disk


def test_a_vm_that_may_be_migrated_begins_nothing_where_overlays_record(subject: Subject, machine: Machine) -> None:
    starts = [Start(disk, bitmap(disk, "late")) for disk in subject.sizes]
    layered = [disk.name for disk in machine.inventory().disks if disk.recorder is Recorder.OVERLAY]
    before, anchored = machine.bitmaps(), bool(layered) and subject.traits.anchors
    assert machine.let_move() is anchored
    if anchored:
        for attempt in (lambda: machine.transact(starts), lambda: machine.take(PointRequest(tuple(starts), (), {}))):
            with pytest.raises(Migrating):
                attempt()
        assert machine.bitmaps() == before
    machine.let_stay()
    machine.transact(starts)
    assert all(len(found) == len(before[disk]) + 1 for disk, found in machine.bitmaps().items())


def test_a_running_disk_reads_as_the_guest_sees_it(subject: Subject, machine: Machine) -> None:
    with machine.live(list(subject.sizes)) as readers:
        assert set(readers) == set(subject.sizes) - subject.unreadable
        for disk, reader in readers.items():
            content = subject.contents(disk)
            assert whole(reader) == content
            odd = [Extent(0, 512), Extent(subject.block_size + 8, 16), Extent(len(content) - 24, 24)]
            for start, data in content_of(reader, odd).items():
                assert data == content[start : start + len(data)]
            holes = blocks.everything(len(content), 512) - blocks.of_extents(reader.allocated(), 512)
            assert all(not any(content[hole * 512 : (hole + 1) * 512]) for hole in holes)


def test_what_no_bitmap_reports_was_read_right(subject: Subject, machine: Machine) -> None:
    machine.transact(starts(subject, "a"))
    with subject.writing() as proof, machine.live(list(subject.sizes)) as readers:
        proof.wait()
        found = {disk: whole(reader) for disk, reader in readers.items()}
    doubtful = machine.changed(each(subject, "a"))
    for disk, content in found.items():
        now = subject.contents(disk)
        for block in everything(subject)[disk] - doubtful[disk]:
            assert block_of(subject, content, block) == block_of(subject, now, block)


# -- counters


@pytest.fixture
def counted(subject: Subject) -> None:
    if not subject.traits.outside:
        pytest.skip("nobody sees from outside what the guest does")


def grown(before: Counters, after: Counters) -> dict[str, DiskCounters]:
    """What was done between two looks."""

    def difference(old: DiskCounters, new: DiskCounters) -> DiskCounters:
        names = [field.name for field in fields(old) if field.name != "write_latency"]
        return DiskCounters(**{name: getattr(new, name) - getattr(old, name) for name in names})

    return {disk: difference(before.disks[disk], each) for disk, each in after.disks.items()}


def assert_written(subject: Subject, before: Counters, after: Counters, blocks: int) -> None:
    assert after.moment > before.moment
    assert after.vcpus == before.vcpus == 1
    assert before.cpu_seconds is not None and after.cpu_seconds is not None
    assert before.cpu_seconds <= after.cpu_seconds
    for disk, done in grown(before, after).items():
        assert done.written_bytes == blocks * subject.block_size, disk
        assert done.writes >= blocks
        assert done.write_seconds > 0
        assert done.read_bytes == done.reads == 0


@pytest.mark.usefixtures("counted")
def test_counters_tell_what_the_guest_did(subject: Subject, machine: Machine) -> None:
    before = machine.counters()
    assert set(before.disks) >= set(subject.sizes)
    write(subject, [2, 5])
    assert_written(subject, before, machine.counters(), 2)


@pytest.mark.usefixtures("counted")
def test_counters_at_a_look(subject: Subject) -> None:
    with contextlib.closing(subject.connect()) as machine:
        names = set(machine.counters().disks)
    before = subject.look()
    assert set(before.disks) == names
    write(subject, [7])
    assert_written(subject, before, subject.look(), 1)


@pytest.mark.usefixtures("counted")
def test_what_is_read_from_outside_is_not_the_guests(subject: Subject, machine: Machine) -> None:
    before = machine.counters()
    with machine.live(list(subject.sizes)) as readers:
        for reader in readers.values():
            whole(reader)
    with machine.take(request_for(subject, everything(subject))) as point:
        for disk in subject.sizes:
            whole(point.reader(disk))
        during = machine.counters()
        point.release()
    after = machine.counters()
    for done in (*grown(before, during).values(), *grown(before, after).values()):
        assert (done.read_bytes, done.reads, done.written_bytes, done.writes) == (0, 0, 0, 0)


@pytest.mark.usefixtures("counted")
def test_counters_wait_for_no_request_that_is_under_way(subject: Subject, machine: Machine) -> None:
    """Answers that nobody takes keep a request under way as long as it likes."""
    with machine.take(request_for(subject, everything(subject))) as point:
        pieces = [iter(point.reader(disk).read([Extent(0, size)])) for disk, size in subject.sizes.items()]
        for each_disk in pieces:
            next(each_disk)
        write(subject, [1])
        assert set(machine.counters().disks) >= set(subject.sizes)
        assert sum(1 for each_disk in pieces for _ in each_disk) > 0
        point.release()


# -- points in time


def request_for(subject: Subject, wanted: Mapping[str, Blocks], old: str = "", new: str = "") -> PointRequest:
    return PointRequest(
        starts(subject, new) if new else (),
        stops(subject, old) if old else (),
        wanted,
        reserve=dict.fromkeys(subject.sizes, 4096),
        reads=each(subject, old) if old else {},
    )


def test_a_point_in_time_holds_while_the_guest_overwrites_it(subject: Subject, machine: Machine) -> None:
    expected = {disk: subject.contents(disk) for disk in subject.sizes}
    with machine.take(request_for(subject, everything(subject))) as point:
        assert point.protects is subject.protects
        write(subject, range(0, 60, 8))
        assert_holds(subject, point, expected)
        write(subject, range(0, 60, 6))
        assert_holds(subject, point, expected)
        point.check()
        window = point.release()
    assert window > 0
    assert point.pause_seconds < 1


def test_a_guest_that_never_stops_writing(subject: Subject, machine: Machine) -> None:
    machine.transact(starts(subject, "old"))
    with subject.writing() as proof:
        for number in range(3):
            proof.wait()
            proof.before()
            with machine.take(request_for(subject, everything(subject), new=f"new{number}")) as point:
                if subject.protects is Protects.ALL:
                    proof.wait()
                proof.after({disk: whole(point.reader(disk)) for disk in subject.sizes})
                point.check()
                window = point.release()
            print(f"pause {point.pause_seconds * 1000:.1f} ms, window {window * 1000:.0f} ms")


def test_bitmaps_before_and_after_a_point(subject: Subject, machine: Machine) -> None:
    """What was written before is in ``old``, what is written after is in ``new``; with a quiet guest just that."""
    machine.transact(starts(subject, "old"))
    before = write(subject, [1, 2])
    wanted = {disk: Blocks([9]) for disk in subject.sizes}
    with machine.take(request_for(subject, wanted, "old", "new")) as point:
        after = write(subject, [2, 3])
        old = together(point.recorded())
        # What is written after the point may be told as well.
        assert all(before[disk] <= old[disk] <= before[disk] | after[disk] for disk in subject.sizes)
        if subject.protects is Protects.WANTED:
            assert old == before
            assert {disk: point.protected(disk) for disk in old} == {d: old[d] | wanted[d] for d in old}
        else:
            assert {point.protected(disk) for disk in old} == {None}
        point.release()
    assert machine.changed(each(subject, "new")) == after


def test_bitmaps_of_a_busy_guest_leave_no_gap(subject: Subject, machine: Machine) -> None:
    """Every block that differs between two points in time is in the bitmaps of the time between."""
    for attempt in range(5):
        # On a busy host a point may not come about: begin again, as a backup does.
        with contextlib.suppress(NotTaken):
            check_no_gap(subject, machine, f"try{attempt}-")
            return
    pytest.fail("no point in time came about")


def check_no_gap(subject: Subject, machine: Machine, prefix: str) -> None:
    machine.transact(starts(subject, f"{prefix}0"))
    contents = []
    with subject.writing():
        for number in range(POINTS):
            wanted = everything(subject)
            with machine.take(request_for(subject, wanted, f"{prefix}{number}", f"{prefix}{number + 1}")) as point:
                contents.append({disk: whole(point.reader(disk)) for disk in subject.sizes})
                point.release()
    for number in range(1, POINTS):
        recorded = machine.changed(each(subject, f"{prefix}{number}"))
        for disk, content in contents[number].items():
            differing = {
                block
                for block in everything(subject)[disk]
                if block_of(subject, content, block) != block_of(subject, contents[number - 1][disk], block)
            }
            assert differing <= set(recorded[disk])


def test_only_what_is_kept_can_be_read(subject: Subject, machine: Machine) -> None:
    expected = {disk: subject.contents(disk) for disk in subject.sizes}
    kept = Blocks([0, 5, 6, 40, *everything(subject)[list(subject.sizes)[-1]][-1:]])
    with machine.take(request_for(subject, dict.fromkeys(subject.sizes, kept))) as point:
        write(subject, [5])
        for disk, size in subject.sizes.items():
            point.keep(disk, kept & everything(subject)[disk])
            write(subject, [6, 7])
            reader = point.reader(disk)
            for extent in blocks.to_extents(kept & everything(subject)[disk], subject.block_size, size):
                for start, data in content_of(reader, [extent]).items():
                    assert data == expected[disk][start : start + len(data)]
            for lost in (Extent(7 * subject.block_size, subject.block_size), Extent(0, 7 * subject.block_size)):
                with pytest.raises(errors.PointLost) if subject.traits.narrows else contextlib.nullcontext():
                    content_of(reader, [lost])
            for start, data in content_of(reader, [Extent(0, subject.block_size)]).items():
                assert data == expected[disk][start : start + len(data)]
        point.check()
        point.release()


def test_many_failed_reads_cost_nothing(subject: Subject, machine: Machine) -> None:
    if not subject.traits.narrows:
        pytest.skip("nothing of such a point can be let go of")
    disk = next(iter(subject.sizes))
    kept = Blocks([2])
    with machine.take(request_for(subject, dict.fromkeys(subject.sizes, kept))) as point:
        point.keep(disk, kept)
        for block in range(3, 40):
            with pytest.raises(errors.PointLost):
                content_of(point.reader(disk), [Extent(block * subject.block_size, 512)])
        assert content_of(point.reader(disk), [Extent(2 * subject.block_size, 512)])


def test_a_point_is_gone_with_its_context(subject: Subject, machine: Machine) -> None:
    request = request_for(subject, everything(subject))
    with pytest.raises(ZeroDivisionError), machine.take(request):
        raise ZeroDivisionError
    assert subject.leftovers() == []
    with machine.take(request) as point:
        point.release()
        assert subject.leftovers() == [] or subject.protects is Protects.WANTED
    assert subject.leftovers() == []


def test_a_disk_that_is_unplugged_ends_its_point(subject: Subject, machine: Machine) -> None:
    if not subject.traits.unplugs:
        pytest.skip("libvirt lets no disk be unplugged during a job")
    machine.transact(starts(subject, "a"))
    with contextlib.ExitStack() as stack:
        point = stack.enter_context(machine.take(request_for(subject, everything(subject))))
        disk = subject.unplug()
        assert machine.inventory().disk(disk) is None
        with pytest.raises(errors.NotFound):
            machine.transact([Stop(disk, bitmap(disk, "a"))])
        with contextlib.nullcontext() if subject.protects is Protects.WANTED else pytest.raises(errors.PointLost):
            point.check()
    subject.plug()


def test_a_disk_that_was_unplugged_comes_back_with_its_bitmaps(subject: Subject, machine: Machine) -> None:
    if not subject.traits.outside:
        pytest.skip("a disk in use cannot be taken from under its filter")
    machine.transact(starts(subject, "a"))
    written = write(subject, [2])
    gone = subject.unplug()
    # What is known of it is in nobody's way.
    assert gone not in machine.bitmaps()
    subject.plug()
    assert machine.changed(each(subject, "a")) == written


def test_a_point_that_cannot_be_taken_leaves_nothing(subject: Subject, machine: Machine) -> None:
    machine.transact(starts(subject, "a"))
    before = machine.bitmaps()
    with pytest.raises(errors.HeadstartError):
        machine.take(request_for(subject, everything(subject), new="a"))
    assert subject.leftovers() == []
    assert machine.bitmaps() == before


def test_without_space_there_is_no_point(subject: Subject, machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    if not subject.traits.outside:
        pytest.skip("the guest has the space that its owner gave to the filter")
    if isinstance(subject, MemorySubject):
        monkeypatch.setattr(subject.vm, "scratch_bytes", 512)
    monkeypatch.setattr(space, "MARGIN", 1 << 60)
    with pytest.raises(errors.NoSpace):
        machine.take(request_for(subject, everything(subject), new="a"))
    assert subject.leftovers() == []


def test_a_point_tells_what_bitmaps_of_any_age_recorded(subject: Subject, machine: Machine) -> None:
    """A busy guest: at least what was written up to the point, of each bitmap apart."""
    machine.transact(starts(subject, "base"))
    first = write(subject, [3])
    machine.transact(starts(subject, "round"))
    request = replace(request_for(subject, everything(subject), new="next"), reads=each(subject, "base", "round"))
    with subject.writing() as proof:
        proof.wait()
        with machine.take(request) as point:
            found = point.recorded()
            point.release()
    for disk in subject.sizes:
        base, newest = found[disk][bitmap(disk, "base")], found[disk][bitmap(disk, "round")]
        assert list(found[disk]) == [bitmap(disk, "base"), bitmap(disk, "round")]
        assert first[disk] <= base
        assert newest <= base
        assert proof.written[disk] <= base | machine.changed(each(subject, "next"))[disk]
