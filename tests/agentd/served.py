"""agentd's session and loop as they run in a guest, in a thread, over a pair of sockets; disks are regular files."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import pytest

from headstart.agentd import asks, frames, loop, messages, reading, release
from headstart.agentd.diskread import DiskReader
from headstart.agentd.frames import Buffer, Frame
from headstart.agentd.links import Gone, Link
from headstart.agentd.segments import Segment
from headstart.agentd.session import Handler, Session
from headstart.agentd.work import Refused, Work

#: Nothing that is expected takes longer.
SECONDS = 10.0
#: As ``Session`` has it.
Read = Callable[[Session, int, bytes], Work]


class FileDisk(DiskReader):
    """A regular file, read as a block device is."""

    def _measured(self, descriptor: int) -> tuple[int, int]:
        return os.fstat(descriptor).st_size, 512


class FileLayout:
    """What ``reading.plan`` asks a layout."""

    def __init__(self, files: Mapping[str, Path], tables: Mapping[str, Sequence[Segment]]) -> None:
        self._files = files
        self._tables = tables

    def require(self, name: object) -> str:
        if not isinstance(name, str) or name not in {*self._files, *self._tables}:
            raise Refused(messages.WRONG, f"there is no block device {name!r}")
        return name

    def table(self, name: str) -> list[Segment]:
        return list(self._tables[name])


class PairLink(Link):
    def __init__(self, end: socket.socket) -> None:
        end.setblocking(False)
        self._end = end

    def fileno(self) -> int:
        return self._end.fileno()

    def read(self, count: int) -> bytes | None:
        try:
            return self._end.recv(count)
        except BlockingIOError:
            return None
        except OSError as error:
            raise Gone(str(error)) from None

    def write(self, data: Buffer) -> int:
        try:
            return self._end.send(data)
        except BlockingIOError:
            return 0
        except OSError as error:
            raise Gone(str(error)) from None

    def close(self) -> None:
        self._end.close()


def session(
    files: Mapping[str, Path],
    tables: Mapping[str, Sequence[Segment]] | None = None,
    handlers: Mapping[str, Handler] | None = None,
    read: Read | None = None,
) -> Session:
    def plainly(session: Session, request: int, payload: bytes) -> Work:
        runs = reading.plan(messages.unpack_read(payload), FileLayout(files, tables or {}))
        return reading.Reading(
            runs, lambda name: FileDisk(str(files[name])), lambda kind, *parts: session.send(request, kind, *parts)
        )

    sound = {"map": asks.describe, "hash": asks.digest}
    told = {"protocols": list(release.PROTOCOLS), "release": release.RELEASE, "sources": release.SOURCES}
    return Session(
        {**sound, **(handlers or {})}, read or plainly, lambda position, data: None, lambda: told, lambda told: True
    )


@contextlib.contextmanager
def agent(
    files: Mapping[str, Path],
    tables: Mapping[str, Sequence[Segment]] | None = None,
    handlers: Mapping[str, Handler] | None = None,
    read: Read | None = None,
) -> Iterator[socket.socket]:
    """The host's end of the channel to an agent whose disks are ``files``, and whose volumes lie as in ``tables``."""
    ours, theirs = socket.socketpair()
    served = session(files, tables, handlers, read)
    ended: list[BaseException] = []

    def run() -> None:
        try:
            loop.serve(PairLink(theirs), served)
        except BaseException as error:
            ended.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        yield ours
    finally:
        ours.close()
        thread.join(SECONDS)
        theirs.close()
        assert [type(error) for error in ended] == [Gone], ended


@contextlib.contextmanager
def listening(path: Path, handlers: Mapping[str, Handler]) -> Iterator[None]:
    """An agent without disks, for one host after the other, at a socket."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen()
    served = session({}, handlers=handlers)

    def run() -> None:
        # Until the listener is shut down.
        with contextlib.suppress(OSError):
            while True:
                link, _ = listener.accept()
                with link, contextlib.suppress(Gone):
                    loop.serve(PairLink(link), served)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        yield
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        thread.join(SECONDS)
        listener.close()
        assert not thread.is_alive()


class Host:
    """Speaks frames, as a host does or as none would."""

    def __init__(self, link: socket.socket, number: int = 7) -> None:
        self._link = link
        self._decoder = frames.Decoder(frames.FROM_GUEST)
        self._frames: list[Frame] = []
        self.number = number
        link.settimeout(SECONDS)

    def send(self, kind: int, request: int = 0, payload: bytes = b"") -> None:
        self._link.sendall(frames.encode(kind, self.number, request, payload))

    def tell(self, kind: int, request: int, **told: object) -> None:
        self.send(kind, request, messages.pack_json(told))

    def raw(self, data: bytes) -> None:
        self._link.sendall(data)

    def hello(self) -> Frame:
        self.tell(messages.HELLO, 1)
        while True:
            frame = self.next()
            if (frame.kind, frame.session) == (messages.WELCOME, self.number):
                return frame

    def read(self, request: int, target: Mapping[str, object], *spans: messages.Span, credit: int = 0) -> None:
        self.send(messages.READ, request, messages.pack_read(messages.Read(dict(target), list(spans))))
        if credit:
            self.send(messages.CREDIT, 0, messages.pack_credit(credit))

    def next(self, seconds: float = SECONDS) -> Frame:
        """Raises ``TimeoutError``."""
        deadline = time.monotonic() + seconds
        while not self._frames:
            self._link.settimeout(max(0.001, deadline - time.monotonic()))
            data = self._link.recv(1 << 16)
            assert data, "closed"
            self._frames += self._decoder.feed(data)
        return self._frames.pop(0)

    def quiet(self, seconds: float = 0.15) -> bool:
        try:
            self._frames.insert(0, self.next(seconds))
        except TimeoutError:
            return True
        return False

    def refusal(self, request: int) -> str:
        """The code with which this request is refused, after whatever else."""
        while True:
            frame = self.next()
            if frame.request == request and frame.kind in (messages.REFUSAL, messages.ANSWER):
                assert frame.kind == messages.REFUSAL, frame
                return str(messages.unpack_json(frame.payload)["code"])

    def content(self, request: int) -> tuple[dict[int, bytes], dict[str, object]]:
        """What a READ was answered with, by position, and the answer."""
        found: dict[int, bytes] = {}
        while True:
            frame = self.next()
            if frame.request != request:
                continue
            if frame.kind == messages.DATA:
                position, data = messages.unpack_position(frame.payload)
                found[position] = data
            elif frame.kind == messages.ZEROES:
                position, length = messages.unpack_span(frame.payload)
                found[position] = bytes(length)
            else:
                assert frame.kind == messages.ANSWER, frame
                return found, messages.unpack_json(frame.payload)


@pytest.fixture
def host(link: socket.socket) -> Host:
    found = Host(link)
    found.hello()
    return found
