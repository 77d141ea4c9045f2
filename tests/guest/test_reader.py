"""A guest that answers a READ with something else: never a byte at the wrong place, never a byte too few."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from headstart.agentd import frames, messages
from headstart.agentd.messages import PIECE
from headstart.extents import Extent
from headstart.guest import channel as channels
from headstart.guest.channel import Channel, Lost, Refused
from headstart.guest.reader import AgentReader
from headstart.reading import PIECE_SIZE
from headstart.units import KIB, MIB
from tests.agentd import served
from tests.guest import hostile
from tests.guest.hostile import Guest

SIZE = 8 * MIB
CONTENT = random.Random(4).randbytes(SIZE)
WANTED = [Extent(0, 3 * PIECE), Extent(4 * MIB + 512, PIECE - 512), Extent(SIZE - 4096, 4096)]
Send = Callable[[Guest, int], None]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(channels, "PROBE_SECONDS", 0.1)
    monkeypatch.setattr(channels, "CANCEL_SECONDS", 0.5)
    monkeypatch.setattr(channels, "SILENCE_SECONDS", 1.0)
    monkeypatch.setattr(channels.Channel.frame, "__defaults__", (1.0,))


def piece(guest: Guest, request: int, start: int, length: int = PIECE) -> None:
    guest.data(request, start, CONTENT[start : start + length])


def whole(guest: Guest, request: int) -> None:
    for extent in WANTED:
        for start in range(extent.start, extent.end, PIECE):
            piece(guest, request, start, min(PIECE, extent.end - start))
    guest.tell(messages.ANSWER, request, bytes=0)


def read(script: Send, wanted: list[Extent] = WANTED) -> Iterator[tuple[int, bytes]]:
    """What reaches a consumer."""
    with (
        hostile.playing(lambda guest: script(guest, guest.next(messages.READ).request)) as link,
        Channel(link) as channel,
    ):
        for found in AgentReader(channel, {"disk": "vda"}, SIZE).read(wanted):
            yield found.extent.start, bytes(found.data or bytes(found.extent.length))
            found.release()


def test_an_agent_that_does_what_it_should() -> None:
    found = list(read(whole))
    assert sum(len(data) for _, data in found) == sum(extent.length for extent in WANTED)


def first(then: Send) -> Send:
    """The first piece is as it should be."""

    def send(guest: Guest, request: int) -> None:
        piece(guest, request, 0)
        then(guest, request)
        whole(guest, request)

    return send


def over_the_end(guest: Guest, request: int) -> None:
    piece(guest, request, PIECE)
    guest.data(request, 2 * PIECE, CONTENT[: PIECE + 8])


def garbage_and_silence(guest: Guest, request: int) -> None:
    guest.raw(bytes(1 << 20))
    time.sleep(1.5)


def half_a_frame(guest: Guest, request: int) -> None:
    guest.raw(frames.encode(messages.DATA, guest.session, request, b"x" * PIECE)[:-1])
    time.sleep(1.5)


def more_than_the_credit(guest: Guest, request: int) -> None:
    for _ in range(2 * channels.WINDOW // PIECE):
        guest.data(request + 9, 0, b"x" * PIECE)


HOSTILE: dict[str, Send] = {
    "the same again": lambda guest, request: piece(guest, request, 0),
    "the one after the next": lambda guest, request: piece(guest, request, 2 * PIECE),
    "an overlap": lambda guest, request: piece(guest, request, PIECE - 512),
    "too long": lambda guest, request: piece(guest, request, PIECE, 2 * PIECE + 1),
    "beyond the extent": over_the_end,
    "what nobody asked for": lambda guest, request: piece(guest, request, 6 * MIB),
    "a place that is none": lambda guest, request: guest.data(request, 2**64 - 1, b"x"),
    "an empty piece": lambda guest, request: guest.send(messages.DATA, request, messages.pack_position(PIECE)),
    "no position": lambda guest, request: guest.send(messages.DATA, request, b"x"),
    "no zeroes": lambda guest, request: guest.zeroes(request, PIECE, 0),
    "too many zeroes": lambda guest, request: guest.zeroes(request, PIECE, 2**63),
    "half an extent": lambda guest, request: guest.send(messages.ZEROES, request, bytes(8)),
    "zeroes over the gap": lambda guest, request: guest.zeroes(request, PIECE, 5 * MIB),
    "an early end": lambda guest, request: guest.tell(messages.ANSWER, request, bytes=3 * PIECE),
    "a note": lambda guest, request: guest.tell(messages.NOTE, request, frozen=1),
    "a welcome": lambda guest, request: guest.tell(messages.WELCOME, request, **hostile.WELCOME),
    "a stranger's frame": lambda guest, request: guest.tell(messages.REFUSAL, request, code=messages.STRANGE),
    "garbage and silence": garbage_and_silence,
    "half a frame": half_a_frame,
    "more than the credit": more_than_the_credit,
}


@pytest.mark.parametrize("name", HOSTILE)
def test_something_else_than_what_was_asked_for(name: str) -> None:
    begun = time.monotonic()
    position = 0
    with pytest.raises(Lost):
        for start, data in read(first(HOSTILE[name])):
            assert start == position, "not what comes next"
            assert data == CONTENT[start : start + len(data)]
            position = start + len(data)
    assert time.monotonic() - begun < 4
    assert position <= WANTED[0].end


def test_content_of_a_request_that_was_given_up_is_not_the_next_ones() -> None:
    def script(guest: Guest, request: int) -> None:
        guest.next(messages.CREDIT)
        guest.data(request, 0, b"old" + bytes(PIECE - 3))
        guest.next(messages.CANCEL)
        guest.data(request, PIECE, b"old" + bytes(PIECE - 3))
        guest.tell(messages.REFUSAL, request, code=messages.CANCELLED)
        guest.data(request, 0, b"old" + bytes(PIECE - 3))
        again = guest.next(messages.READ).request
        guest.data(request, 0, b"old" + bytes(PIECE - 3))
        whole(guest, again)

    with (
        hostile.playing(lambda guest: script(guest, guest.next(messages.READ).request)) as link,
        Channel(link) as channel,
    ):
        reader = AgentReader(channel, {"disk": "vda"}, SIZE)
        pieces = reader.read(WANTED)
        next(pieces).release()
        pieces.close()  # type: ignore[attr-defined]  # it is a generator
        for found in reader.read(WANTED):
            assert bytes(found.data or b"") == CONTENT[found.extent.start : found.extent.end]
            found.release()


def test_an_agent_that_does_not_let_go_is_closed() -> None:
    def script(guest: Guest) -> None:
        request = guest.next(messages.READ).request
        piece(guest, request, 0)

    with hostile.playing(script) as link, Channel(link) as channel:
        pieces = AgentReader(channel, {"disk": "vda"}, SIZE).read(WANTED)
        next(pieces).release()
        pieces.close()  # type: ignore[attr-defined]  # it is a generator
        assert link.fileno() < 0


@pytest.fixture
def honest(tmp_path: Path) -> Iterator[Channel]:
    (tmp_path / "vda").write_bytes(CONTENT)
    with served.agent({"vda": tmp_path / "vda"}) as link, Channel(link) as channel:
        yield channel


def test_a_refused_read_leaves_the_channel_as_it_was(honest: Channel) -> None:
    begun = time.monotonic()
    for target, extent in (({"disk": "vdz"}, Extent(0, 512)), ({"disk": "vda"}, Extent(SIZE, 512))):
        with pytest.raises(Refused):
            list(AgentReader(honest, target, SIZE).read([extent]))
    assert time.monotonic() - begun < 0.5
    assert (
        sum(found.extent.length for found in AgentReader(honest, {"disk": "vda"}, SIZE).read([Extent(0, MIB)])) == MIB
    )


def test_a_thousand_extents_and_more(honest: Channel) -> None:
    wanted = [Extent(start, 512) for start in range(0, SIZE, 2 * KIB)]
    found = []
    for piece in AgentReader(honest, {"disk": "vda"}, SIZE).read(wanted):
        assert bytes(piece.data or b"") == CONTENT[piece.extent.start : piece.extent.end]
        assert piece.extent.start // PIECE_SIZE == (piece.extent.end - 1) // PIECE_SIZE
        found.append(piece.extent)
        piece.release()
    assert found == wanted
    assert len(wanted) > 2 * messages.EXTENTS


def test_reads_that_end_at_once_when_the_consumer_fails(honest: Channel) -> None:
    reader = AgentReader(honest, {"disk": "vda"}, SIZE)
    for _ in range(6):
        with pytest.raises(ZeroDivisionError):
            for _ in reader.read([Extent(0, SIZE)]):
                raise ZeroDivisionError
    pieces = list(reader.read([Extent(0, 4 * MIB)]))
    assert b"".join(bytes(found.data or b"") for found in pieces) == CONTENT[: 4 * MIB]
