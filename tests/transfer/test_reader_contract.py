"""One suite over every reader: what ``headstart.reading`` promises."""

from __future__ import annotations

import contextlib
import queue
import random
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from headstart import blocks, errors, extents
from headstart.agentd import segments
from headstart.agentd.segments import Segment, Stripe
from headstart.appliance.device import DeviceReader
from headstart.extents import Extent
from headstart.guest.channel import Channel
from headstart.guest.reader import AgentReader
from headstart.hypervisor.contract import PointRequest
from headstart.hypervisor.memory import MemoryMachine, MemoryVm
from headstart.hypervisor.memory.image import ZERO
from headstart.reading import PIECE_SIZE, Piece, Reader
from headstart.units import KIB, MIB
from headstart.wire import nbd
from headstart.wire.files import FileReader
from tests.agentd import served as agents
from tests.kit import appliance, places
from tests.kit.nbd import SIZE, WRITTEN, qemu_nbd, sparse

BLOCK = 64 * KIB


@dataclass(frozen=True, slots=True)
class Subject:
    reader: Reader
    content: bytes


@contextlib.contextmanager
def served(folder: Path) -> Iterator[Subject]:
    content = sparse(folder / "image", SIZE, WRITTEN)
    with qemu_nbd(folder / "image") as export, nbd.Client(export) as client:
        yield Subject(client, content)


@contextlib.contextmanager
def served_without_a_map(folder: Path) -> Iterator[Subject]:
    content = sparse(folder / "image", SIZE, WRITTEN)
    with qemu_nbd(folder / "image") as export, nbd.Client(export, contexts=()) as client:
        yield Subject(client, content)


@contextlib.contextmanager
def relayed(folder: Path) -> Iterator[Subject]:
    """As an appliance has it: over TCP and TLS."""
    content = sparse(folder / "image", SIZE, WRITTEN)
    with (
        qemu_nbd(folder / "image") as export,
        appliance.relayed(folder / "keys", export.uri) as found,
        nbd.Client(nbd.Connected(found.near.detach(), "relayed")) as client,
    ):
        yield Subject(client, content)


@contextlib.contextmanager
def plugged(folder: Path) -> Iterator[Subject]:
    """As an appliance has it that is a guest: a read-only device, past the page cache."""
    content = sparse(folder / "image", SIZE, WRITTEN)
    with places.device(folder / "image") as path, DeviceReader(path, errors.Unreachable) as reader:
        yield Subject(reader, content)


@contextlib.contextmanager
def file(folder: Path) -> Iterator[Subject]:
    content = sparse(folder / "image", SIZE, WRITTEN)
    with FileReader(folder / "image") as reader:
        yield Subject(reader, content)


def simulated(*, iothread: bool = False) -> MemoryVm:
    vm = MemoryVm({"disk": SIZE}, BLOCK, iothreads=("disk",) if iothread else ())
    for block in range(0, vm.count("disk"), 3):
        vm.write("disk", block)
    for block in range(80, 160):
        vm.write("disk", block, ZERO)
    return vm


@contextlib.contextmanager
def memory_live(_: Path) -> Iterator[Subject]:
    vm = simulated()
    with MemoryMachine(vm, "0123abcd", BLOCK) as machine, machine.live(["disk"]) as readers:
        yield Subject(readers["disk"], vm.data("disk"))


def memory_point(_: Path) -> contextlib.AbstractContextManager[Subject]:
    return point_of(simulated())


def memory_pushed_point(_: Path) -> contextlib.AbstractContextManager[Subject]:
    return point_of(simulated(iothread=True))


@contextlib.contextmanager
def point_of(vm: MemoryVm) -> Iterator[Subject]:
    """The guest goes on writing: that must not show."""
    wanted = {"disk": blocks.everything(SIZE, BLOCK)}
    with MemoryMachine(vm, "0123abcd", BLOCK) as machine, machine.take(PointRequest((), (), wanted)) as point:
        content = vm.data("disk")
        for block in range(0, vm.count("disk"), 2):
            vm.write("disk", block)
        yield Subject(point.reader("disk"), content)


@contextlib.contextmanager
def agent(folder: Path) -> Iterator[Subject]:
    content = sparse(folder / "image", SIZE, WRITTEN)
    with agents.agent({"vda": folder / "image"}) as link, Channel(link) as channel:
        yield Subject(AgentReader(channel, {"disk": "vda"}, SIZE), content)


@contextlib.contextmanager
def agent_through_a_volume(folder: Path) -> Iterator[Subject]:
    """The whole disk belongs to a volume, in stripes that lie by turns in both halves of it, and a rest."""
    content = sparse(folder / "image", SIZE, WRITTEN)
    table = [
        Segment(0, 24 * MIB, (Stripe("vda", 12 * MIB), Stripe("vda", 0)), BLOCK),
        Segment(24 * MIB, 512, (Stripe("vda", 24 * MIB),)),
    ]
    with (folder / "volume").open("wb") as volume:
        for run in segments.runs(table, [(0, SIZE)]):
            volume.write(content[run.start : run.start + run.length])
    files = {"vda": folder / "image", "lv": folder / "volume"}
    with agents.agent(files, {"lv": table}) as link, Channel(link) as channel:
        yield Subject(AgentReader(channel, {"disk": "vda", "through": "lv"}, SIZE), content)


SUBJECTS = (
    *(served, served_without_a_map, relayed, plugged, file, memory_live, memory_point, memory_pushed_point),
    *(agent, agent_through_a_volume),
)


@pytest.fixture(params=SUBJECTS, ids=lambda make: make.__name__)
def subject(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Subject]:
    with request.param(tmp_path) as made:
        yield made


def whole(reader: Reader) -> list[Extent]:
    return [Extent(0, reader.size)]


def check_piece(piece: Piece, content: bytes) -> None:
    """Also after other pieces were read: the buffer is the consumer's until it lets go."""
    assert piece.extent.start // PIECE_SIZE == (piece.extent.end - 1) // PIECE_SIZE
    data = bytes(piece.extent.length) if piece.data is None else bytes(piece.data)
    assert data == content[piece.extent.start : piece.extent.end], piece.extent


def check_read(subject: Subject, wanted: list[Extent]) -> None:
    found: list[Extent] = []
    for piece in subject.reader.read(wanted):
        check_piece(piece, subject.content)
        found.append(piece.extent)
        piece.release()
    check_covered(found, wanted)


def check_covered(found: list[Extent], wanted: list[Extent]) -> None:
    """Every byte, and each once."""
    assert extents.merge(found) == extents.merge(wanted)
    assert sum(extent.length for extent in found) == sum(extent.length for extent in wanted)


def test_the_size_is_the_disks(subject: Subject) -> None:
    assert subject.reader.size == SIZE == len(subject.content)


def test_every_byte_comes_once(subject: Subject) -> None:
    check_read(subject, whole(subject.reader))


def test_of_any_extents_every_byte_comes_once(subject: Subject) -> None:
    source = random.Random(3)
    for _ in range(8):
        borders = sorted(source.sample(range(SIZE + 1), 2 * source.randrange(1, 20)))
        wanted = [Extent(start, end - start) for start, end in zip(borders[::2], borders[1::2], strict=True)]
        check_read(subject, wanted)


@pytest.mark.parametrize(
    "wanted",
    [
        [],
        [Extent(SIZE - 1, 1)],
        [Extent(PIECE_SIZE - 1, 2)],
        [Extent(0, PIECE_SIZE), Extent(PIECE_SIZE, PIECE_SIZE)],
        [Extent(block * BLOCK, BLOCK) for block in range(0, 60, 2)],
    ],
    ids=["nothing", "the last byte", "across a border", "neighbours", "scattered blocks"],
)
def test_extents_at_the_edges(subject: Subject, wanted: list[Extent]) -> None:
    check_read(subject, wanted)


def test_a_second_read_works(subject: Subject) -> None:
    for _ in range(3):
        check_read(subject, whole(subject.reader))


def test_a_consumer_that_stops_early_does_no_harm(subject: Subject) -> None:
    for taken in (0, 1, 3):
        pieces = subject.reader.read(whole(subject.reader))
        held = [next(pieces) for _ in range(taken)]
        pieces.close()  # type: ignore[attr-defined]  # readers are generators
        check_read(subject, whole(subject.reader))
        for piece in held:
            check_piece(piece, subject.content)
            piece.release()
    check_read(subject, whole(subject.reader))


def test_a_buffer_is_valid_until_another_thread_releases_it(subject: Subject) -> None:
    """That thread holds some pieces for as long as others are read, and lets go of the oldest."""
    handed: queue.Queue[Piece | None] = queue.Queue()
    found: list[Extent] = []
    wrong: list[BaseException] = []
    consumer = threading.Thread(target=consume, args=(handed, subject.content, found, wrong))
    consumer.start()
    try:
        for piece in subject.reader.read(whole(subject.reader)):
            handed.put(piece)
    finally:
        handed.put(None)
        consumer.join()
    assert not wrong
    check_covered(found, whole(subject.reader))


def consume(handed: queue.Queue[Piece | None], content: bytes, found: list[Extent], wrong: list[BaseException]) -> None:
    held: list[Piece] = []
    while (piece := handed.get()) is not None:
        held.append(piece)
        if len(held) == nbd.DEPTH - 1:
            let_go(held.pop(0), content, found, wrong)
    for piece in held:
        let_go(piece, content, found, wrong)


def let_go(piece: Piece, content: bytes, found: list[Extent], wrong: list[BaseException]) -> None:
    try:
        check_piece(piece, content)
    except AssertionError as error:
        wrong.append(error)
    found.append(piece.extent)
    piece.release()
