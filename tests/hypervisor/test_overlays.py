"""Files of overlays: what a start would open, whose they are, and which marks are where."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from headstart import errors
from headstart.hypervisor import overlays, recording, segmentfile
from headstart.hypervisor.overlays import Place, Segment
from tests.hypervisor.covers import MINE, OTHERS, SIZE, cover


@pytest.fixture
def place(tmp_path: Path) -> Place:
    image = tmp_path / "my data[1].raw"
    image.write_bytes(bytes(SIZE))
    return overlays.place_of(image, tmp_path / "unused", MINE)


def test_the_head_leads_to_what_was_put_on_last(place: Place) -> None:
    assert place.stack() == ()
    first, second = cover(place, "base", "round"), cover(place, "base", "next")
    assert place.stack() == (first, second)
    assert place.head.resolve() == second.path
    assert (second.path.stat().st_mode, second.path.stat().st_uid) == (
        place.image.stat().st_mode,
        place.image.stat().st_uid,
    )


def test_what_a_start_opens(place: Place) -> None:
    assert overlays.files_of(place.head) == []
    first, second = cover(place), cover(place)
    assert overlays.files_of(place.head) == [second.path, first.path, place.image]


def test_a_chain_that_ends_elsewhere_is_not_ours(place: Place, tmp_path: Path) -> None:
    other = tmp_path / "other.raw"
    other.write_bytes(bytes(SIZE))
    path = place.new()
    place.create(path, other, "raw", SIZE)
    place.point(path)
    assert place.stack() == ()


@pytest.mark.parametrize("content", ["", "{", "[1]", '{"a": 1}', None])
def test_without_the_names_the_marks_are_gone(place: Place, content: str | None) -> None:
    segment = cover(place, "base")
    [marks] = place.folder.glob("*.marks")
    marks.write_text(content) if content is not None else marks.unlink()
    assert place.stack() == (Segment(segment.path),)


def test_strays_are_those_of_no_chain_and_of_this_installation(place: Place) -> None:
    kept, stray = cover(place), place.new()
    place.create(stray, place.image, "raw", SIZE)
    theirs = overlays.place_of(place.image, place.folder, OTHERS)
    theirs.create(theirs.new(), place.image, "raw", SIZE)
    assert place.strays([kept.path]) == [stray]
    aside = place.set_aside()
    assert aside.resolve() == kept.path
    assert place.strays([]) == [stray]


def test_blank_is_what_nobody_wrote_to(place: Place) -> None:
    assert recording.is_blank(place.stack())
    segment = cover(place)
    assert recording.is_blank(place.stack())
    assert segmentfile.size_of(segment.path) == SIZE
    cover(place)
    assert not recording.is_blank(place.stack())


def test_who_writes_to_the_image_is_noticed(place: Place) -> None:
    segments = (cover(place, "base"),)
    place.note(segments, recording.sealed(place, segments))
    assert not recording.doubt(place, [segments[0].path])
    os.utime(place.image, ns=(0, 0))
    assert recording.doubt(place, [segments[0].path]) == recording.CHANGED.format(path=place.image)


def test_whose_an_overlay_is(place: Place) -> None:
    segment = cover(place)
    assert overlays.is_ours(str(segment.path), MINE) and overlays.is_ours(str(place.head), MINE)
    assert not overlays.is_ours(str(segment.path), OTHERS)
    assert not overlays.is_ours(str(place.image), MINE)


def test_a_command_line_of_before_names_what_has_to_be_started_from(place: Place) -> None:
    """As with ``file=PATH,format=qcow2``, or in JSON."""
    plain = place.image.with_name("plain.raw")
    plain.write_bytes(bytes(SIZE))
    place = overlays.place_of(plain, place.folder, MINE)
    old, new = cover(place), cover(place)
    assert overlays.as_it_is_now(f"file={old.path},format=qcow2") == f"file={new.path},format=qcow2"
    assert overlays.as_it_is_now(f'{{"filename": "{old.path}"}}') == f'{{"filename": "{new.path}"}}'
    for other in (f"file={plain},format=raw", "/gone/x.raw.headstart-0123abcd-0123abcd", "-nodefaults"):
        assert overlays.as_it_is_now(other) == other


ONE, TWO = Segment(Path("/one"), ("base", "round")), Segment(Path("/two"), ("base",))


def test_marks_go_on_until_they_are_stopped() -> None:
    begun = recording.begun((ONE,), Path("/two"), ["next"], ["round"])
    assert begun == (ONE, Segment(Path("/two"), ("base", "next")))
    for start, stop in ((["base"], []), ([], ["missing"])):
        with pytest.raises(errors.HeadstartError):
            recording.begun((ONE,), Path("/two"), start, stop)


def test_the_lowest_segments_that_nobody_wants() -> None:
    assert recording.nameless((ONE, TWO)) == 0
    assert recording.nameless(recording.without((ONE, TWO), ["base", "round"])) == 1
    assert recording.nameless(recording.without((ONE, ONE, TWO), ["round"])) == 0
