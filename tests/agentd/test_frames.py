"""Frames out of a stream that may be cut, damaged, hostile: what was sent, or nothing."""

from __future__ import annotations

import itertools
import random
import struct
import time
import zlib
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headstart.agentd import frames
from headstart.agentd.frames import Decoder, Frame

LONGEST = 600
#: Payloads that look like what surrounds them.
payloads = st.one_of(
    st.binary(max_size=LONGEST),
    st.sampled_from([b"", frames.MAGIC, frames.MAGIC[:3], frames.encode(1, 2, 3, b"inner"), bytes(LONGEST)]),
)
some_frames = st.lists(
    st.builds(Frame, st.integers(0, 255), st.integers(0, 2**64 - 1), st.integers(0, 2**32 - 1), payloads), max_size=8
)
#: Random bytes, and the beginnings of frames.
garbage = st.one_of(
    st.binary(max_size=100),
    st.builds(lambda payload, length: frames.encode(9, 9, 9, payload)[:length], payloads, st.integers(0, LONGEST + 31)),
)


def encoded(sent: list[Frame]) -> bytes:
    return b"".join(frames.encode(*frame) for frame in sent)


def decoded(stream: bytes, cuts: list[int] | None = None) -> list[Frame]:
    decoder = Decoder(LONGEST)
    found: list[Frame] = []
    borders = [0, *sorted(cut % (len(stream) + 1) for cut in cuts or []), len(stream)]
    for begin, end in itertools.pairwise(borders):
        found += decoder.feed(stream[begin:end])
        assert len(decoder._pending) < LONGEST + frames.HEADER_SIZE
    return found


def test_the_bytes_are_those_of_the_book() -> None:
    start = bytes.fromhex("ab485341 01 0b 0000 00000007 0123456789abcdef 00000003 024d0127")
    assert frames.encode(11, 0x0123456789ABCDEF, 7, b"abc") == start + struct.pack(">I", zlib.crc32(start)) + b"abc"


@given(some_frames, st.lists(st.integers(0, 10**6), max_size=20))
def test_frames_come_out_whole_wherever_the_stream_is_cut(sent: list[Frame], cuts: list[int]) -> None:
    assert decoded(encoded(sent), cuts) == sent


@given(some_frames)
def test_byte_by_byte(sent: list[Frame]) -> None:
    stream = encoded(sent)
    assert decoded(stream, list(range(len(stream)))) == sent


@given(st.lists(st.tuples(st.binary(max_size=100), some_frames), max_size=4), st.lists(st.integers(0, 10**6)))
def test_what_is_not_a_frame_is_passed_over(parts: list[tuple[bytes, list[Frame]]], cuts: list[int]) -> None:
    stream = b"".join(noise + encoded(sent) for noise, sent in parts)
    assert decoded(stream, cuts) == [frame for _, sent in parts for frame in sent]


@given(some_frames, garbage, some_frames, st.lists(st.integers(0, 10**6), max_size=10))
def test_after_a_preamble_nothing_sound_is_lost(
    before: list[Frame], cut_off: bytes, after: list[Frame], cuts: list[int]
) -> None:
    stream = encoded(before) + cut_off + frames.preamble(LONGEST) + encoded(after)
    found = decoded(stream, cuts)
    assert found[: len(before)] == before
    assert found[len(found) - len(after) :] == after


@given(some_frames, st.lists(st.tuples(st.integers(0, 10**6), st.integers(1, 255)), min_size=1, max_size=6))
def test_damaged_bytes_are_never_a_frame_that_was_not_sent(sent: list[Frame], flips: list[tuple[int, int]]) -> None:
    stream = bytearray(encoded(sent))
    for place, flip in flips if stream else []:
        stream[place % len(stream)] ^= flip
    inner = Frame(1, 2, 3, b"inner")
    assert all(frame in sent or frame == inner for frame in decoded(bytes(stream)))


@given(st.binary(max_size=2000), st.lists(st.integers(0, 10**6), max_size=10))
def test_bytes_of_anybody(stream: bytes, cuts: list[int]) -> None:
    assert decoded(stream, cuts) == []


def test_another_version_and_what_is_too_long_are_no_frames() -> None:
    too_long = frames.encode(1, 2, 3, bytes(LONGEST + 1))
    start = bytearray(frames.encode(1, 2, 3, b"")[:28])
    start[4] = 2
    other = bytes(start) + struct.pack(">I", zlib.crc32(start))
    sound = frames.encode(4, 5, 6, b"sound")
    assert decoded(too_long + other + sound) == [Frame(4, 5, 6, b"sound")]


def test_the_longest_payload_of_each_way() -> None:
    for longest in (frames.TO_GUEST, frames.FROM_GUEST):
        sent = Frame(1, 2, 3, random.Random(longest).randbytes(longest))
        assert list(Decoder(longest).feed(frames.encode(*sent))) == [sent]


# -- hostile streams


def false_headers(size: int) -> bytes:
    """Each is sound and promises as much as there may be, which is not what follows."""
    header = frames.encode(11, 1, 1, bytes(frames.FROM_GUEST))[: frames.HEADER_SIZE]
    return header * (size // len(header))


def false_beginnings(size: int) -> bytes:
    return frames.MAGIC * (size // len(frames.MAGIC))


def nested(size: int) -> bytes:
    """Headers that promise what follows with all the others in it, and a wrong checksum."""
    found = b""
    for _ in range(size // frames.HEADER_SIZE):
        start = struct.pack(">4sBBHIQII", frames.MAGIC, 1, 11, 0, 1, 1, min(len(found), frames.FROM_GUEST), 1)
        found = start + struct.pack(">I", zlib.crc32(start)) + found
    return found


def ends_of_magic(size: int) -> bytes:
    return frames.MAGIC[:3] * (size // 3)


@pytest.mark.parametrize("hostile", [false_headers, false_beginnings, nested, ends_of_magic])
def test_a_stream_that_keeps_us_busy_is_given_up(hostile: Callable[[int], bytes]) -> None:
    """Without patience's end the first of them costs 10 s per 256 KiB."""
    decoder = Decoder(frames.FROM_GUEST, 16)
    stream = hostile(1 << 18)
    begun = time.process_time()
    for _ in range(16):
        assert not list(decoder.feed(stream))
    assert time.process_time() - begun < 0.5
    assert len(decoder._pending) <= frames.FROM_GUEST + frames.HEADER_SIZE
    assert decoder.hopeless == (hostile is not ends_of_magic)


def test_garbage_without_beginnings_is_cheap() -> None:
    decoder = Decoder(frames.FROM_GUEST, 16)
    piece = random.Random(5).randbytes(1 << 20).replace(frames.MAGIC[:1], b"\0")
    begun = time.process_time()
    for _ in range(64):
        assert not list(decoder.feed(piece))
    assert time.process_time() - begun < 1.0
    assert not decoder.damaged


def test_nothing_is_kept_of_a_hopeless_stream() -> None:
    decoder = Decoder(LONGEST, 2)
    assert not list(decoder.feed(frames.MAGIC * 100))
    assert decoder.hopeless
    assert not list(decoder.feed(frames.encode(1, 2, 3, b"late")))
    assert not decoder._pending
