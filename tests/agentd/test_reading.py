"""What a READ is answered with: every byte, in order, of a disk, of a volume, or of a disk through a volume."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from headstart.agentd import messages, segments
from headstart.agentd.messages import PIECE
from headstart.agentd.segments import Segment, Stripe
from headstart.units import KIB, MIB
from tests.agentd import served
from tests.agentd.served import FileDisk, Host

SIZE = 4 * MIB
#: Whole of both disks but for the first MiB of each: linear, stripes, and a piece at an odd place.
TABLE = [
    Segment(0, MIB, (Stripe("vda", 2 * MIB + 512),)),
    Segment(
        MIB, 2 * MIB + 64 * KIB, (Stripe("vdb", MIB), Stripe("vda", 3 * MIB + 512), Stripe("vdb", 3 * MIB)), 8 * KIB
    ),
    Segment(4 * MIB, 1536, (Stripe("vda", MIB),)),
]


def filled(path: Path, seed: int) -> bytes:
    """Random, with zeroes of whole pieces and of less."""
    content = bytearray(random.Random(seed).randbytes(SIZE))
    for start, length in ((PIECE, 2 * PIECE), (3 * MIB + 4096, 300 * KIB)):
        content[start : start + length] = bytes(length)
    path.write_bytes(content)
    return bytes(content)


@pytest.fixture
def contents(tmp_path: Path) -> dict[str, bytes]:
    return {name: filled(tmp_path / name, seed) for seed, name in enumerate(("vda", "vdb"))}


@pytest.fixture
def volume(tmp_path: Path, contents: dict[str, bytes]) -> bytes:
    """The content of ``lv``; what no segment covers is zero."""
    found = bytearray(4 * MIB + 1536)
    for run in segments.runs(TABLE, [(0, len(found))]):
        found[run.volume : run.volume + run.length] = contents[run.disk][run.start : run.start + run.length]
    (tmp_path / "lv").write_bytes(found)
    return bytes(found)


@pytest.fixture
def host(tmp_path: Path, volume: bytes) -> Iterator[Host]:
    files = {name: tmp_path / name for name in ("vda", "vdb", "lv")}
    with served.agent(files, {"lv": TABLE}) as link:
        found = Host(link)
        found.hello()
        yield found


def check(found: dict[int, bytes], wanted: list[messages.Span], content: bytes) -> None:
    """Every byte once, in order, in pieces that do not cross multiples of ``PIECE`` unless they are zeroes."""
    position = iter(found)
    for start, length in wanted:
        at = start
        while at < start + length:
            assert next(position) == at
            piece = found[at]
            assert piece == content[at : at + len(piece)]
            if any(piece):
                assert at // PIECE == (at + len(piece) - 1) // PIECE
            assert at // MIB == (at + len(piece) - 1) // MIB
            at += len(piece)
        assert at == start + length
    assert next(position, None) is None


def some_spans(source: random.Random, size: int, unit: int = 1) -> list[messages.Span]:
    borders = sorted(source.sample(range(size // unit + 1), 2 * source.randrange(1, 12)))
    return [(low * unit, (high - low) * unit) for low, high in zip(borders[::2], borders[1::2], strict=True)]


@pytest.mark.parametrize("form", ["disk", "device"])
def test_a_disk_is_read_byte_by_byte_and_in_order(host: Host, contents: dict[str, bytes], form: str) -> None:
    source = random.Random(1)
    for request, wanted in enumerate([[(0, SIZE)], [(SIZE - 1, 1)], *(some_spans(source, SIZE) for _ in range(8))], 2):
        host.read(request, {form: "vda"}, *wanted, credit=8 * MIB)
        found, answer = host.content(request)
        check(found, wanted, contents["vda"])
        assert answer == {"bytes": sum(length for _, length in wanted)}


def test_the_order_is_that_of_the_spans(host: Host, contents: dict[str, bytes]) -> None:
    wanted = [(2 * MIB, 4096), (0, 512), (MIB, 512)]
    host.read(2, {"disk": "vda"}, *wanted, credit=MIB)
    check(host.content(2)[0], wanted, contents["vda"])


@pytest.mark.parametrize("disk", ["vda", "vdb"])
def test_a_disk_through_a_volume(host: Host, contents: dict[str, bytes], disk: str) -> None:
    owned = sorted((run.start, run.length) for run in segments.back(TABLE, disk, [(0, SIZE)]))
    source = random.Random(2)
    for request in range(2, 10):
        wanted = (
            sorted(
                (start + cut, source.randrange(1, length - cut + 1))
                for start, length in source.sample(owned, 12)
                for cut in [source.randrange(length)]
            )
            if len(owned) >= 12
            else owned
        )
        host.read(request, {"disk": disk, "through": "lv"}, *wanted, credit=8 * MIB)
        check(host.content(request)[0], wanted, contents[disk])


def test_neighbours_that_lie_apart_in_the_volume_come_in_the_order_of_the_disk(
    host: Host, contents: dict[str, bytes]
) -> None:
    """A whole column of the stripes."""
    wanted = [(MIB, 700 * KIB)]
    host.read(2, {"disk": "vdb", "through": "lv"}, *wanted, credit=8 * MIB)
    check(host.content(2)[0], wanted, contents["vdb"])


@pytest.mark.parametrize(
    ("target", "span"),
    [
        ({"disk": "vda"}, (0, SIZE + 1)),
        ({"disk": "vda"}, (SIZE, 1)),
        ({"disk": "vda"}, (2**64 - 1, 2**64 - 1)),
        ({"disk": "vdc"}, (0, 1)),
        ({"device": "vdc"}, (0, 1)),
        ({"device": 5}, (0, 1)),
        ({}, (0, 1)),
        ({"disk": "vda", "through": "vdc"}, (0, 1)),
        ({"disk": "vda", "through": "lv"}, (0, MIB)),
        ({"disk": "vda", "through": "lv"}, (MIB, 1537)),
        ({"disk": "vda", "through": "lv"}, (0, SIZE * 2)),
        ({"device": "vda", "through": "lv"}, (MIB, 1)),
    ],
    ids=str,
)
def test_what_is_not_there(host: Host, target: dict[str, object], span: messages.Span) -> None:
    host.read(2, target, (MIB, 512), span, credit=MIB)
    assert host.refusal(2) == messages.WRONG
    assert host.quiet()


def test_zeroes_cost_no_credit(host: Host, contents: dict[str, bytes]) -> None:
    wanted = [(PIECE, 2 * PIECE)]
    host.read(2, {"disk": "vda"}, *wanted, credit=2 * PIECE)
    check(host.content(2)[0], wanted, contents["vda"])
    host.read(3, {"disk": "vda"}, (0, PIECE), (3 * PIECE, PIECE))
    check(host.content(3)[0], [(0, PIECE), (3 * PIECE, PIECE)], contents["vda"])


# -- the disk itself


def test_beyond_the_end_is_an_error_and_never_what_was_read_before(tmp_path: Path, contents: dict[str, bytes]) -> None:
    with FileDisk(str(tmp_path / "vda")) as disk:
        assert disk.read(5, 1000) == contents["vda"][5:1005]
        for start, length in ((SIZE - 1, 2), (SIZE, 1), (SIZE + MIB, 1), (2**70, 1), (-512, 512)):
            with pytest.raises(OSError):
                disk.read(start, length)


def test_a_disk_that_is_shorter_than_it_says(tmp_path: Path) -> None:
    (tmp_path / "short").write_bytes(bytes(4096))
    with FileDisk(str(tmp_path / "short")) as disk:
        disk.size = 8192
        with pytest.raises(OSError, match="ends at 4096"):
            disk.read(0, 8192)
