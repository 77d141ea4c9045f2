"""Translation of addresses against a model that knows the place of every single byte."""

from __future__ import annotations

from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from headstart.agentd import segments
from headstart.agentd.segments import Segment, Stripe
from headstart.extents import Extent
from headstart.guest.devices import Volume

DISKS = ("a", "b", "c")
#: A byte of a disk.
Place = tuple[str, int]
Model = dict[int, Place]


@st.composite
def tables(draw: st.DrawFn, names: tuple[str, ...] = DISKS, room: int = 400) -> list[Segment]:
    """Segments, with gaps, that lie on no byte of a disk twice."""
    free = dict.fromkeys(names, 0)
    found = []
    start = 0
    for _ in range(draw(st.integers(1, 4))):
        start += draw(st.sampled_from([0, 0, 1, 5]))
        width = draw(st.integers(1, 4))
        chunk = draw(st.sampled_from([1, 3, 4, 8])) if width > 1 else 0
        rows = draw(st.integers(1, 5))
        length = draw(st.integers(1, width * chunk * rows if chunk else 30))
        stripes = []
        for _ in range(width):
            disk = draw(st.sampled_from(names))
            begin = free[disk] + draw(st.sampled_from([0, 0, 2, 7]))
            free[disk] = begin + (rows * chunk if chunk else length)
            stripes.append(Stripe(disk, begin))
        if max(free.values()) > room:
            break
        found.append(Segment(start, length, tuple(stripes), chunk))
        start += length
    return found


spans = st.lists(st.tuples(st.integers(0, 200), st.integers(1, 60)), max_size=4)


def model(table: list[Segment]) -> Model:
    """Where each byte of the volume lies, counted one by one."""
    found: Model = {}
    for segment in table:
        filled: Counter[int] = Counter()
        for offset in range(segment.length):
            column = offset // segment.chunk % len(segment.stripes) if segment.chunk else 0
            disk, begin = segment.stripes[column]
            found[segment.start + offset] = (disk, begin + filled[column])
            filled[column] += 1
    return found


def bytes_of(found: list[segments.Run]) -> list[tuple[int, Place]]:
    return [(run.volume + each, (run.disk, run.start + each)) for run in found for each in range(run.length)]


def inside(span: segments.Span, size: int = 10**6) -> range:
    return range(span[0], min(span[0] + span[1], size))


@given(tables(), spans)
def test_runs_of_a_volume_are_where_its_bytes_lie(table: list[Segment], wanted: list[segments.Span]) -> None:
    places = model(table)
    expected = [(byte, places[byte]) for span in wanted for byte in inside(span) if byte in places]
    assert sorted(bytes_of(list(segments.runs(table, wanted)))) == sorted(expected)


@given(tables(), st.sampled_from(DISKS), spans)
def test_bytes_of_a_disk_are_found_back_in_the_volume(
    table: list[Segment], disk: str, wanted: list[segments.Span]
) -> None:
    volumes = {place: byte for byte, place in model(table).items()}
    expected = [
        (volumes[disk, byte], (disk, byte)) for span in wanted for byte in inside(span) if (disk, byte) in volumes
    ]
    assert sorted(bytes_of(list(segments.back(table, disk, wanted)))) == sorted(expected)


@given(tables())
def test_there_and_back(table: list[Segment]) -> None:
    whole = [(0, 1000)]
    there = bytes_of(list(segments.runs(table, whole)))
    again = [pair for disk in DISKS for pair in bytes_of(list(segments.back(table, disk, whole)))]
    assert sorted(there) == sorted(again)


@given(tables())
def test_shares_are_the_whole_of_a_segment(table: list[Segment]) -> None:
    for segment in table:
        if segment.chunk:
            shares = [segments.share(segment, column) for column in range(len(segment.stripes))]
            assert sum(shares) == segment.length


@given(tables())
def test_the_extents_of_a_volume(table: list[Segment]) -> None:
    expected: dict[str, set[int]] = {}
    for disk, byte in model(table).values():
        expected.setdefault(disk, set()).add(byte)
    found = Volume("lv", 1, "lvm", "", tuple(table)).extents()
    assert {
        disk: {byte for each in parts for byte in range(each.start, each.end)} for disk, parts in found.items()
    } == (expected)
    assert all(parts == sorted(parts) for parts in found.values())


@settings(max_examples=400)
@given(tables(("u", "v", "c"), room=120), tables(), tables())
def test_a_volume_on_volumes(upper: list[Segment], first: list[Segment], second: list[Segment]) -> None:
    """Both below may lie on the same disks: only where a byte is found counts here."""
    lower = {"u": first, "v": second}
    below = {name: model(table) for name, table in lower.items()}
    found = segments.compose(upper, lower)
    if found is None:
        assert any(segment.chunk for table in (upper, first, second) for segment in table)
        return
    expected = {}
    for byte, (name, at) in model(upper).items():
        if name not in below:
            expected[byte] = (name, at)
        elif at in below[name]:
            expected[byte] = below[name][at]
    assert model(found) == expected


def test_a_part_of_stripes_is_stripes() -> None:
    """However long it is: never one segment for each chunk."""
    chunk, size = 64 << 10, 1 << 40
    striped = [Segment(0, size, (Stripe("a", 1 << 20), Stripe("b", 0), Stripe("c", 5)), chunk)]
    for offset in (0, 1 << 20, 7 * chunk):
        upper = [Segment(0, size // 2, (Stripe("u", offset),))]
        found = segments.compose(upper, {"u": striped})
        assert found is not None and len(found) == 1
        for wanted in ((0, 1), (1 << 30, 3 * chunk), (size // 2 - 1, 1)):
            here = [(run.disk, run.start, run.length) for run in segments.runs(found, [wanted])]
            there = [
                (run.disk, run.start, run.length) for run in segments.runs(striped, [(wanted[0] + offset, wanted[1])])
            ]
            assert here == there
    assert segments.compose([Segment(0, 10, (Stripe("u", chunk + 1),))], {"u": striped}) is None


def test_stripes_on_stripes_or_on_pieces_cannot_be_told() -> None:
    striped = [Segment(0, 64, (Stripe("a", 0), Stripe("b", 0)), 8)]
    pieces = [Segment(0, 8, (Stripe("a", 0),)), Segment(8, 56, (Stripe("b", 0),))]
    upper = [Segment(0, 64, (Stripe("u", 0), Stripe("c", 0)), 4)]
    assert segments.compose(upper, {"u": striped}) is None
    assert segments.compose(upper, {"u": pieces}) is None
    assert segments.compose(upper, {"u": [Segment(0, 64, (Stripe("a", 9),))]}) == [
        Segment(0, 64, (Stripe("a", 9), Stripe("c", 0)), 4)
    ]


def test_a_stripe_without_a_share_takes_nothing() -> None:
    volume = Volume("lv", 4, "lvm", "", (Segment(0, 4, (Stripe("a", 0), Stripe("b", 0)), 4),))
    assert volume.extents() == {"a": [Extent(0, 4)]}
