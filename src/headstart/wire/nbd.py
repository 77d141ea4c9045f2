"""An NBD client over libnbd (the distribution's Python bindings).

Reading keeps many requests in flight into buffers that are used again and again: a fresh buffer for
each request costs more than the request. Numbers of the protocol: NBD proto.md, "Metadata querying".
"""

from __future__ import annotations

import contextlib
import errno
import functools
import itertools
import os
import queue
import socket
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol
from urllib.parse import parse_qs, quote, unquote, urlsplit

from headstart import errors, extents, plain
from headstart.batches import batched
from headstart.blocks import Blocks
from headstart.extents import Extent
from headstart.reading import PIECE_SIZE, Piece
from headstart.units import GIB, MIB

try:
    import nbd
except ImportError as error:
    raise errors.Unsupported(
        "libnbd's bindings for Python cannot be found. They are not on PyPI: install the distribution's package"
        " python3-libnbd, and Headstart with the distribution's Python; in an environment (pipx, venv) with"
        " --system-site-packages."
    ) from error

ALLOCATION = "base:allocation"
#: ``base:allocation``, bit 1: reads as zeroes.
STATE_ZERO = 2
#: ``qemu:dirty-bitmap:NAME``, bit 0.
STATE_DIRTY = 1
#: ``qemu:allocation-depth``: 0 is nowhere, 1 in the layer that is exported, more in one below.
DEPTH_TOPMOST = 1
#: A block status request covers less than 4 GiB (32 bit length), and each costs a round trip.
STATUS_LENGTH = 4 * GIB - PIECE_SIZE
#: Buffers, and so requests in flight.
DEPTH = 12
#: Holes are asked for only in extents at least this long: for a few blocks a look costs as much as a read.
WORTH_A_LOOK = 4 * PIECE_SIZE
#: No reply for this long means that the server hangs.
SILENCE_SECONDS = 60.0
#: For what is stored. A flush writes what the server's kernel still has in memory, zeroes may be written one by one,
#: and storage that is away while a path or a NAS changes over comes back. Nobody but us waits for it.
STORE_SECONDS = 600.0
#: Trim and zero requests in flight; their length is a multiple of any block size.
CONTROL_DEPTH = 64
TRIM_LENGTH = 2 * GIB
#: So that a server which has to write them answers now and then.
ZERO_LENGTH = 64 * MIB


class Way(Protocol):
    """How a disk that a server offers is come by."""

    @property
    def uri(self) -> str:
        """For messages, and for others who may go the same way."""
        ...

    def open(self, handle: Any) -> None:
        """Begin to connect a handle of libnbd's; waits for nothing. Raises ``nbd.Error``."""
        ...


@dataclass(frozen=True, slots=True)
class Export:
    """Where a server offers a disk."""

    socket: Path
    name: str

    @classmethod
    def parse(cls, uri: str) -> Export:
        """What ``uri`` of another one told."""
        parts = urlsplit(uri)
        return cls(Path(parse_qs(parts.query)["socket"][0]), unquote(parts.path.removeprefix("/")))

    @property
    def uri(self) -> str:
        return f"nbd+unix:///{quote(self.name, safe='')}?socket={quote(str(self.socket))}"

    def open(self, handle: Any) -> None:
        handle.set_export_name(self.name)
        handle.aio_connect_unix(str(self.socket))


@dataclass(frozen=True, slots=True)
class Connected:
    """A connection that somebody made. The descriptor is libnbd's from ``open`` on. ``uri``: what to call it."""

    descriptor: int
    uri: str

    def open(self, handle: Any) -> None:
        handle.aio_connect_socket(self.descriptor)


def _unopened(uri: str, error: nbd.Error) -> str:
    said = f"The NBD export {uri} cannot be opened: {plain.joined(str(error))}"
    if error.errnum != errno.EACCES:
        return said
    return f"{said}. QEMU made its socket, as another user: run as root, or as the user that QEMU runs as."


class Client:
    """A connection to one export; a ``Reader`` (see headstart.reading). One thread at a time.

    A server that hangs is given up after ``SILENCE_SECONDS`` (``STORE_SECONDS`` where it was told to store), and for
    good: the connection is cut. libnbd's synchronous calls, ``shutdown`` among them, would wait as long as it hangs.
    """

    def __init__(
        self,
        export: Way,
        contexts: Sequence[str] = (ALLOCATION,),
        failure: Callable[[str], errors.HeadstartError] = errors.Unreachable,
    ) -> None:
        """Raises ``Unreachable`` when the export cannot be opened or lacks a context; every later
        failure raises what ``failure`` makes of it: what it means is known to whoever made the export."""
        self._export = export
        self._failure = failure
        self._buffers: queue.Queue[_Buffer] = queue.Queue()
        self._made = 0
        self._flying = 0
        #: Answered requests and their error numbers, put there by libnbd's callbacks.
        self._answered: deque[tuple[_Buffer, int]] = deque()
        #: What to say about a server that was given up.
        self._silence = ""
        self._handle = nbd.NBD()
        # Our buffers are overwritten by every reply: no need to clear them before each request.
        self._handle.set_pread_initialize(False)
        for context in contexts:
            self._handle.add_meta_context(context)
        try:
            export.open(self._handle)
            while not self._handle.aio_is_ready():
                if not self._wait(SILENCE_SECONDS):
                    raise errors.Unreachable(self._silence)
            missing = [context for context in contexts if not self._handle.can_meta_context(context)]
        except nbd.Error as error:
            self.close()
            raise errors.Unreachable(_unopened(export.uri, error)) from error
        if missing:
            self.close()
            raise errors.Unreachable(f"The NBD export {export.uri} does not offer {', '.join(missing)}.")
        self._has_allocation = ALLOCATION in contexts
        self._size: int = self._handle.get_size()

    @property
    def size(self) -> int:
        return self._size

    @property
    def uri(self) -> str:
        """Where others can read the same."""
        return self._export.uri

    def status(self, context: str, within: Iterable[Extent]) -> Iterator[tuple[Extent, int]]:
        """``(extent, state)`` for all of ``within``, ascending, neighbours not joined."""
        for wide in within:
            position = wide.start
            while position < wide.end:
                for start, length, state in self._ask_status(context, position, wide.end):
                    yield Extent(start, length), state
                    position = start + length

    def _ask_status(self, context: str, start: int, end: int) -> Iterator[tuple[int, int, int]]:
        """``(start, length, state)`` of the runs that one request tells, none beyond ``end``."""
        length = min(STATUS_LENGTH, end - start)
        told: list[int] = []

        def receive(name: str, offset: int, entries: list[int], error: Any) -> int:
            if name == context:
                told.extend(entries)
            return 0

        self._ask("block status", functools.partial(self._handle.aio_block_status, length, start, receive))
        runs, states = told[::2], told[1::2]
        if not runs or not all(runs):
            raise errors.Unreachable(f"The NBD export {self._export.uri} gave no block status.")
        starts = list(itertools.accumulate(runs, initial=start))
        # The last entry may reach beyond what was asked for.
        while starts[-2] >= start + length:
            starts.pop()
        runs[len(starts) - 2] = min(starts[-1], start + length) - starts[-2]
        return zip(starts[:-1], runs, states, strict=False)

    def dirty(self, context: str, block_size: int) -> Blocks:
        """The blocks that have a byte whose lowest bit is set in a ``qemu:dirty-bitmap`` context.

        No object for each run: that would be most of the time with a million of them (2.6 s against 0.5).
        """
        return self._blocks(context, block_size, lambda state: bool(state & STATE_DIRTY))

    def topmost(self, context: str, block_size: int) -> Blocks:
        """The blocks of which the export's own layer has something, in a ``qemu:allocation-depth`` context."""
        return self._blocks(context, block_size, lambda state: state == DEPTH_TOPMOST)

    def _blocks(self, context: str, block_size: int, chosen: Callable[[int], bool]) -> Blocks:
        found = Blocks()
        position = 0
        while position < self._size:
            for start, length, state in self._ask_status(context, position, self._size):
                position = start + length
                if chosen(state):
                    found.add_range(start // block_size, -(-position // block_size))
        return found

    def allocated(self) -> Iterator[Extent]:
        """The extents that may hold something else than zeroes."""
        whole = [Extent(0, self._size)] if self._size else []
        return (extent for extent, state in self.status(ALLOCATION, whole) if not state & STATE_ZERO)

    def read(self, wanted: Iterable[Extent]) -> Iterator[Piece]:
        try:
            for request in self._requests(wanted):
                if request.zero:
                    yield Piece(request.extent, None)
                    continue
                buffer = self._buffer()
                while buffer is None:
                    yield from self._landed()
                    buffer = self._buffer()
                self._launch(buffer, request.extent)
            while self._flying:
                yield from self._landed()
        finally:
            self._drain()

    def _requests(self, wanted: Iterable[Extent]) -> Iterator[_Request]:
        for extent in wanted:
            if not self._has_allocation or extent.length < WORTH_A_LOOK:
                yield from (_Request(piece) for piece in extents.split(extent, PIECE_SIZE))
                continue
            for part, state in _whole_pieces(self.status(ALLOCATION, [extent]), extent):
                zero = bool(state & STATE_ZERO)
                yield from (_Request(piece, zero=zero) for piece in extents.split(part, PIECE_SIZE))

    def _buffer(self) -> _Buffer | None:
        """A free buffer; None if all fly and one has to land first. Waits for consumers otherwise."""
        with contextlib.suppress(queue.Empty):
            return self._buffers.get_nowait()
        if self._made < DEPTH:
            self._made += 1
            return _spare()
        return None if self._flying else self._buffers.get()

    def _launch(self, buffer: _Buffer, extent: Extent) -> None:
        buffer.extent = extent
        window = buffer.window(extent.length)

        def answered(error: Any) -> int:
            """Called by libnbd while it is polled; 1 means that it may forget the request."""
            self._answered.append((buffer, error.value))
            return 1

        try:
            self._guarded(lambda: self._handle.aio_pread(window, extent.start, answered), "read")
        except errors.HeadstartError:
            self._buffers.put(buffer)
            raise
        self._flying += 1

    def _landed(self) -> Iterator[Piece]:
        """The pieces of requests that are answered, at least one; raises what the first failed one failed of."""
        while not self._answered:
            self._poll("read")
        while self._answered:
            buffer, error = self._answered.popleft()
            self._flying -= 1
            if error:
                self._buffers.put(buffer)
                what = f"NBD read at {buffer.extent.start} failed on {self._export.uri}"
                raise self._failure(f"{what}: {os.strerror(error)}")
            data = buffer.view[: buffer.extent.length]
            yield Piece(buffer.extent, data, functools.partial(self._buffers.put, buffer))

    def _ask(self, what: str, *requests: Callable[..., int], seconds: float | None = None) -> None:
        """Send requests, and wait until all of them are answered. Each takes a completion callback."""
        numbers: list[int] = []

        def answered(error: Any) -> int:
            numbers.append(error.value)
            return 1

        for request in requests:
            self._guarded(functools.partial(request, answered), what)
        while len(numbers) < len(requests):
            self._poll(what, seconds)
        if any(numbers):
            raise self._failure(f"NBD {what} failed on {self._export.uri}: {os.strerror(next(filter(None, numbers)))}")

    def _poll(self, what: str, seconds: float | None = None) -> None:
        """Until something moves."""
        if not self._guarded(lambda: self._wait(SILENCE_SECONDS if seconds is None else seconds), what):
            raise self._failure(self._silence)

    def _wait(self, seconds: float) -> bool:
        """Whether something moved; the server is given up otherwise. Raises ``nbd.Error``, also when the connection
        has ended."""
        if self._handle.poll(int(seconds * 1000)):
            return True
        self._silence = f"The NBD export {self._export.uri} has not answered for {seconds:g} s."
        self._cut()
        return False

    def _cut(self) -> None:
        """End the connection without a word. What is under way has failed then: its buffers are not libnbd's any
        longer. The socket is closed even if an exception's traceback keeps the handle."""
        with contextlib.suppress(nbd.Error, OSError):
            with socket.socket(fileno=os.dup(self._handle.aio_get_fd())) as connection:
                connection.shutdown(socket.SHUT_RDWR)
            # It sees the end at once, and raises when there is nothing more to see.
            while self._handle.poll(0):
                pass

    def _drain(self) -> None:
        """After a failure, or a consumer that stopped early: no reply may land in a buffer that is used
        again, and no buffer may be lost."""
        with contextlib.suppress(errors.HeadstartError):
            while self._flying > len(self._answered):
                self._poll("read")
        self._flying -= len(self._answered)
        while self._answered:
            self._buffers.put(self._answered.popleft()[0])

    def trim(self, ranges: Iterable[Extent]) -> None:
        self._control("trim", ranges, self._handle.aio_trim, TRIM_LENGTH, SILENCE_SECONDS)

    def zero(self, ranges: Iterable[Extent]) -> None:
        self._control("zero", ranges, self._handle.aio_zero, ZERO_LENGTH, STORE_SECONDS)

    def write(self, start: int, data: bytes) -> None:
        """Returns when the server has it."""
        parts = extents.split(Extent(start, len(data)), PIECE_SIZE) if data else ()
        for some in batched(parts, DEPTH):
            # From memory that is used again: libnbd keeps what it was once given.
            buffers = [_spare() for _ in some]
            requests = []
            for part, buffer in zip(some, buffers, strict=True):
                buffer.view[: part.length] = memoryview(data)[part.start - start : part.end - start]
                window = buffer.window(part.length)
                requests.append(functools.partial(self._handle.aio_pwrite, window, part.start))
            try:
                self._ask("write", *requests, seconds=STORE_SECONDS)
            finally:
                # What an end of the connection has not taken back is never used again.
                if not self._handle.aio_in_flight():
                    for buffer in buffers:
                        _SPARE.put(buffer)

    def flush(self) -> None:
        self._ask("flush", self._handle.aio_flush, seconds=STORE_SECONDS)

    def _control(self, what: str, ranges: Iterable[Extent], request: Any, length: int, seconds: float) -> None:
        flying = 0
        for extent in ranges:
            for part in extents.split(extent, length):
                self._guarded(lambda part=part: request(part.length, part.start), what)
                flying += 1
                while flying >= CONTROL_DEPTH:
                    flying -= self._control_landed(what, flying, seconds)
        while flying:
            flying -= self._control_landed(what, flying, seconds)

    def _control_landed(self, what: str, flying: int, seconds: float) -> int:
        """How many of so many requests are answered now. (Of a large disk there are thousands: none is asked for that
        is not.)"""
        self._poll(what, seconds)
        landed = 0
        while landed < flying and (cookie := self._guarded(self._handle.aio_peek_command_completed, what)):
            self._guarded(lambda cookie=cookie: self._handle.aio_command_completed(cookie), what)
            landed += 1
        return landed

    def _guarded(self, call: Any, what: str) -> Any:
        try:
            return call()
        except nbd.Error as error:
            said = f"NBD {what} failed on {self._export.uri}: {plain.joined(str(error.string))}"
            raise self._failure(self._silence or said) from error

    def close(self) -> None:
        """Ends the connection, with a word where the server still answers; libnbd frees the handle with the object."""
        with contextlib.suppress(nbd.Error):
            self._handle.aio_disconnect()
            while self._wait(SILENCE_SECONDS):
                pass
        with contextlib.suppress(queue.Empty):
            while True:
                _SPARE.put(self._buffers.get_nowait())

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


@dataclass(frozen=True, slots=True)
class _Request:
    extent: Extent
    zero: bool = False


class _Buffer:
    """Memory for one request. libnbd keeps a view on it while the request is under way."""

    __slots__ = ("_windows", "extent", "memory", "view")

    def __init__(self) -> None:
        self.memory = bytearray(PIECE_SIZE)
        self.view = memoryview(self.memory)
        self._windows: dict[int, Any] = {}
        self.extent = Extent(0, 1)

    def window(self, length: int) -> Any:
        """A libnbd buffer over the first ``length`` bytes, made once for each length."""
        if length not in self._windows:
            if len(self._windows) > 32:
                self._windows.clear()
            self._windows[length] = nbd.Buffer.from_buffer(self.view[:length])
        return self._windows[length]


#: Buffers of clients that are closed. libnbd 1.14 never lets go of the memory behind an ``nbd.Buffer``: whoever opens
#: clients again and again would grow by ``DEPTH`` pieces each time.
_SPARE: queue.SimpleQueue[_Buffer] = queue.SimpleQueue()


def _spare() -> _Buffer:
    try:
        return _SPARE.get_nowait()
    except queue.Empty:
        return _Buffer()


def _whole_pieces(states: Iterable[tuple[Extent, int]], wide: Extent) -> Iterator[tuple[Extent, int]]:
    """Join equal neighbours, and let only zero runs of whole pieces count as zeroes.

    The cut keeps every piece at a multiple of the block size::

        pieces  |-------|-------|-------|-------|
        zeroes       [.....................)
        told    |  data |     zero      |  data |
    """
    position = wide.start
    for extent, state in states:
        if not state & STATE_ZERO:
            continue
        start = -(-extent.start // PIECE_SIZE) * PIECE_SIZE
        end = extent.end if extent.end == wide.end else extent.end // PIECE_SIZE * PIECE_SIZE
        if start >= end:
            continue
        if start > position:
            yield Extent(position, start - position), 0
        yield Extent(start, end - start), STATE_ZERO
        position = end
    if position < wide.end:
        yield Extent(position, wide.end - position), 0
