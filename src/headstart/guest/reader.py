"""Reading a disk through the agent; a ``Reader`` (see headstart.reading)."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from headstart import extents, units
from headstart.agentd import messages
from headstart.agentd.frames import Frame
from headstart.extents import Extent
from headstart.guest import channel as channels
from headstart.guest.channel import Channel, Lost, Refused
from headstart.reading import PIECE_SIZE, Piece

#: Bytes that one request asks for, so that a lost agent loses little and cancelling is quick.
REQUEST_BYTES = 128 << 20
#: An agent that is slower than this is of no use, and might only want to keep us.
LEAST_RATE = 512 << 10
#: Pieces are larger than this on average, where the extents are: each costs us time.
CRUMB = 4096


class AgentReader:
    """Reads ``target`` (see docs/agent-protocol.md) of a guest, whose disk has ``size`` bytes.

    Raises ``Lost`` and ``Refused``. What the guest answers must be exactly what was asked for, in that
    order, not too slowly and not in crumbs; the content is the guest's word."""

    def __init__(self, channel: Channel, target: Mapping[str, Any], size: int) -> None:
        self._channel = channel
        self._target = target
        self._size = size

    @property
    def size(self) -> int:
        return self._size

    def read(self, wanted: Iterable[Extent]) -> Iterator[Piece]:
        for spans in _portions(wanted):
            yield from self._read(spans)

    def _read(self, spans: list[messages.Span]) -> Iterator[Piece]:
        request = self._channel.read(self._target, spans)
        expected = _Expected(spans)
        patience = channels.SILENCE_SECONDS + sum(length for _, length in spans) / LEAST_RATE
        finished = False
        try:
            while True:
                frame = self._channel.frame(request)
                if frame.kind == messages.ANSWER:
                    break
                if self._channel.waited(request) > patience:
                    raise Lost(f"The agent in the guest reads less than {units.format_bytes(LEAST_RATE)} a second.")
                yield from self._pieces(frame, expected)
            finished = True
        except (Lost, Refused):
            finished = True
            raise
        finally:
            if finished:
                self._channel.forget(request)
            else:
                self._abandon(request)
        if not expected.complete:
            raise Lost("The agent in the guest left out a part of what was asked for.")

    def _pieces(self, frame: Frame, expected: _Expected) -> Iterator[Piece]:
        try:
            if frame.kind == messages.DATA:
                start, content = messages.unpack_position(frame.payload)
                found = Extent(start, len(content))
                expected.take(found)
                yield Piece(found, memoryview(content), functools.partial(self._channel.consumed, len(content)))
            elif frame.kind == messages.ZEROES:
                found = Extent(*messages.unpack_span(frame.payload))
                expected.take(found)
                yield from (Piece(piece, None) for piece in extents.split(found, PIECE_SIZE))
            else:
                raise Lost(f"The agent in the guest answered with a frame of kind {frame.kind}.")
        except (messages.Malformed, ValueError) as error:
            raise Lost(f"The agent in the guest answered nonsense: {error}") from None

    def _abandon(self, request: int) -> None:
        """The consumer stopped: what is under way must not be taken for an answer."""
        try:
            self._channel.cancel(request)
        except Lost:
            self._channel.close()


class _Expected:
    """What is still to come of a request, in order."""

    def __init__(self, spans: list[messages.Span]) -> None:
        self._spans = iter(spans)
        self._position = self._end = 0
        #: So many more pieces may come.
        self._pieces = sum(_pieces(*span) for span in spans)
        self._advance()

    def _advance(self) -> None:
        while self._position == self._end:
            span = next(self._spans, None)
            if span is None:
                self._position = self._end = -1
                return
            self._position, self._end = span[0], span[0] + span[1]

    @property
    def complete(self) -> bool:
        return self._position < 0

    def take(self, found: Extent) -> None:
        """Raises ``Lost`` unless this is what comes next."""
        one_piece = found.start // PIECE_SIZE == (found.end - 1) // PIECE_SIZE
        if found.start != self._position or found.end > self._end or not one_piece:
            raise Lost("The agent in the guest sent something else than what was asked for.")
        self._pieces -= 1
        if self._pieces < 0:
            raise Lost("The agent in the guest sends what was asked for in crumbs.")
        self._position = found.end
        self._advance()


def _pieces(start: int, length: int) -> int:
    """In how many an extent may come: an agent cuts at multiples of ``messages.PIECE``, and where volumes have ends."""
    return (start + length - 1) // messages.PIECE - start // messages.PIECE + 1 + length // CRUMB


def _portions(wanted: Iterable[Extent]) -> Iterator[list[messages.Span]]:
    """Spans for one request each."""
    cut = (part for extent in wanted for part in extents.split(extent, REQUEST_BYTES))
    spans: list[messages.Span] = []
    total = 0
    for part in cut:
        if len(spans) == messages.EXTENTS or total + part.length > REQUEST_BYTES:
            yield spans
            spans, total = [], 0
        spans.append((part.start, part.length))
        total += part.length
    if spans:
        yield spans
