"""Our side of the process that parses: it gets the bytes that it asks for, and what it says is checked."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import json
import math
import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, BinaryIO, Self, cast

from headstart import errors, plain
from headstart.volumes import filesystem, parserframes, volume
from headstart.volumes.filesystem import Details, Entry, Malformed, Node, Run, Source
from headstart.volumes.mounts import Mounts
from headstart.volumes.parserprocess import LOOK, SURVEY
from headstart.volumes.volume import ReadOnlyBytes, Volume
from headstart.wire import children

#: Seconds in which it may say nothing, and bytes that it may ask for, for one answer.
SILENT_SECONDS = 60.0
MOST_NEEDED = 64 << 30
#: Bytes of one answer in parts, which take many times as much here, and of one with the names of a directory; and what
#: each part counts beside its length.
MOST_TOLD, MOST_NAMES = 256 << 20, 512 << 20
_A_PART = 1000
#: What is read at once of a file whose content only the driver can tell, and how large it may be, in volumes.
_PIECE = 1 << 20
_LARGEST = 1024
#: Files of which details are fetched at once.
_TOGETHER = 100
#: Pieces that are read at once.
_AHEAD = 8

_START = (
    "import sys; sys.path[:] = sys.argv[2:]; "
    "from headstart.volumes import parserprocess; parserprocess.main(sys.argv[1])"
)


class BrokenFileSystem(errors.HeadstartError):
    """What is in a volume cannot be understood. The snapshot is as it should be: the guest left it so."""


class Parser:
    """One process, started when it is needed, and again if it died. Any thread may use it. A context manager."""

    def __init__(
        self, role: str, views: Mapping[str, Source], opened: Volume | None = None, seconds: float | None = None
    ) -> None:
        """``seconds``: so long each answer may take in all (None: as long as it says something)."""
        self._role = role
        self._views = views
        self._volume = opened
        self._seconds = seconds
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._opened: Any = None

    def opened(self) -> Any:
        """What it said when it opened its volume."""
        with self._lock:
            self._ready()
            return self._opened

    def rest(self) -> None:
        """Without its process, until it is needed again."""
        with self._lock:
            self.close()

    def call(self, name: str, **told: Any) -> Any:
        """The answer: what JSON tells, a list of parts, or bytes. Raises ``Damaged`` (what it needs cannot be read),
        ``BrokenFileSystem``, ``Unsupported``."""
        with self._lock:
            self._ready()
            return self._call(name, told)

    def start(self) -> None:
        """Now, and not when it is first asked."""
        with self._lock:
            self._ready()

    def _ready(self) -> None:
        if self._process is not None and self._process.poll() is None:
            return
        self.close()
        with children.ours_to_end():
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-c", _START, self._role, *sys.path],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env={},
                bufsize=0,  # poll has to see all that came
                start_new_session=True,  # Ctrl-C is for us to hear
            )
        os.set_blocking(cast(BinaryIO, self._process.stdin).fileno(), False)  # it may not read what it asked for
        self._call("disks", {"disks": {name: view.size for name, view in self._views.items()}})
        if self._volume is not None:
            self._opened = self._call("open", {"volume": dataclasses.astuple(self._volume)})

    def _call(self, name: str, told: Mapping[str, Any]) -> Any:
        process = self._process
        assert process is not None and process.stdin is not None and process.stdout is not None
        deadline = math.inf if self._seconds is None else time.monotonic() + self._seconds
        try:
            self._put(process, parserframes.CALL, json.dumps({"call": name, **told}).encode(), deadline)
            return self._answer(process, deadline, MOST_NAMES if name == "entries" else MOST_TOLD)
        except (EOFError, BrokenPipeError):
            raise self._died(process) from None
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            self.close()
            raise self._broken(f"what reads it made no sense: {error}") from None
        except (errors.HeadstartError, Malformed):
            raise
        except BaseException:
            self.close()  # in the middle of an answer
            raise

    def _answer(self, process: subprocess.Popen[bytes], deadline: float, most: int) -> Any:
        replies = cast(BinaryIO, process.stdout)
        parts: list[Any] = []
        needed = told_bytes = 0
        failure: errors.HeadstartError | None = None
        while True:
            kind, body = parserframes.get(replies, self._patience(replies, deadline))
            if kind == parserframes.NEED:
                disk, start, length = json.loads(body)
                needed += length
                if not 0 < length <= parserframes.MOST_NEEDED or needed > MOST_NEEDED:
                    raise ValueError("it never had enough")
                try:
                    read = self._views[disk].read(start, length)
                except errors.HeadstartError as error:
                    failure = failure or error
                    self._put(process, parserframes.FAULT, b"", deadline)
                else:
                    self._put(process, parserframes.BYTES, read, deadline)
            elif kind == parserframes.PART:
                told_bytes += len(body) + _A_PART
                if told_bytes > most:
                    raise ValueError(f"more than {most >> 20} MiB of names or pieces at once")
                parts += json.loads(body)
            elif failure is not None:
                raise failure  # whatever was made of it
            elif kind == parserframes.BYTES:
                return body
            elif kind == parserframes.DONE:
                told = json.loads(body)
                return parts if told is None else told
            else:
                raise self._error(*json.loads(body))

    def _put(self, process: subprocess.Popen[bytes], kind: bytes, body: bytes, deadline: float) -> None:
        requests = cast(BinaryIO, process.stdin)
        parserframes.put(requests, kind, body, self._patience(requests, deadline, write=True))

    def _patience(self, stream: BinaryIO, deadline: float, *, write: bool = False) -> parserframes.Ready:
        """For one frame: also one of which only a part comes, or that it does not take."""
        until = min(deadline, time.monotonic() + SILENT_SECONDS)
        waiting = select.poll()  # select() knows no descriptor beyond 1023
        waiting.register(stream, select.POLLOUT if write else select.POLLIN)

        def ready() -> None:
            left = until - time.monotonic()
            if left <= 0 or not waiting.poll(math.ceil(left * 1000)):
                self.close()
                raise self._broken(f"it took more than {self._seconds or SILENT_SECONDS:.0f} s to understand it")

        return ready

    def _error(self, kind: str, text: str) -> errors.HeadstartError:
        text = plain.joined(str(text))
        if kind == parserframes.NOT_SUPPORTED:
            return errors.Unsupported(f"{self._named()}cannot be read: {text}.")
        return self._broken(text)

    def _died(self, process: subprocess.Popen[bytes]) -> errors.HeadstartError:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(1)
        self.close()
        status = process.returncode or 0
        how = f"was ended by {signal.Signals(-status).name}" if status < 0 else f"ended with status {status}"
        return self._broken(f"the process that reads it {how}")

    def _broken(self, why: str) -> BrokenFileSystem:
        return BrokenFileSystem(
            f"{self._named()}cannot be read: {why}. The guest may have left its file system damaged: try another "
            "snapshot, or restore the disk and repair it.",
            reason=why,
        )

    def _named(self) -> str:
        return f"Volume {plain.line(self._volume.name)} " if self._volume else "What is on the disks "

    def close(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            for stream in (process.stdin, process.stdout):
                if stream is not None:
                    with contextlib.suppress(OSError):
                        stream.close()
            process.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *details: object) -> None:
        self.close()


def survey(views: Mapping[str, Source]) -> list[Volume]:
    """All volumes of the disks."""
    sizes = {name: view.size for name, view in views.items()}
    with Parser(SURVEY, views) as parser:
        return list(_volumes(parser.call("survey"), sizes))


#: Mount points of one volume, and characters of one.
_MOST_POINTS = 256
_LONGEST_POINT = 4096


class Looking:
    """A process that is ready to look what lies on some disks. A context manager."""

    def __init__(self, views: Mapping[str, Source], seconds: float) -> None:
        self._sizes = {name: view.size for name, view in views.items()}
        self._parser = Parser(LOOK, views, seconds=seconds)

    def start(self) -> None:
        self._parser.start()

    def look(self) -> tuple[list[Volume], Mounts]:
        """Raises ``BrokenFileSystem``, and what a view raises."""
        self._parser.call("disks", disks=self._sizes)  # what it has read before may have changed
        told = self._parser.call("look")
        try:
            volumes, points, problem = told
            found = list(_volumes(volumes, self._sizes))
            mounted = {str(name): tuple(_points(each)) for name, each in points}
            return found, Mounts(mounted, str(problem)[:1000])
        except (TypeError, ValueError):
            raise BrokenFileSystem(
                "What is on the disks cannot be told.", reason="what reads them made no sense"
            ) from None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *details: object) -> None:
        self._parser.close()


def _points(told: Any) -> Iterator[str]:
    for each in told[:_MOST_POINTS]:
        if not isinstance(each, str) or not each.startswith("/") or len(each) > _LONGEST_POINT:
            raise ValueError(each)
        yield _utf8(each)


def _utf8(text: str) -> str:
    """Without what stands for bytes that are no UTF-8: it may get into a manifest."""
    return text.encode("utf-8", "replace").decode()


def _volumes(told: Any, disks: Mapping[str, int]) -> Iterator[Volume]:
    """One that makes no sense does not keep the others from being read."""
    for each in told if isinstance(told, list) else ():
        try:
            each = [_utf8(word) if isinstance(word, str) else word for word in each]
            yield volume.of_told(each, disks)
        except (Malformed, TypeError):
            with contextlib.suppress(Malformed, TypeError, IndexError):
                yield volume.of_told([*each[:7], None, "where it lies makes no sense", ""], disks)


class FileSystem:
    """A file system of a snapshot, to be read. Any thread may use it. A context manager.

    Every method may raise ``Damaged``, ``BrokenFileSystem`` and ``Unsupported``, and can be called again."""

    def __init__(self, opened: Volume, views: Mapping[str, Source]) -> None:
        self.volume = opened
        self._bytes = ReadOnlyBytes(opened, lambda disk, start, length: views[disk].read(start, length))
        self._parser = Parser(opened.content, views, opened)
        self._lock = threading.Lock()
        self._announced: dict[int, int] = {}
        self._fetched: dict[int, Details] = {}
        self._readers = ThreadPoolExecutor(_AHEAD, thread_name_prefix="file reader")
        try:
            with self._checked():
                root, notes = self._parser.opened()
                self.root = int(root)
                self.notes = tuple(str(note)[:1000] for note in notes)
        except BaseException:
            self.close()
            raise

    def rest(self) -> None:
        """It will not be needed for a while, or ever: what it holds is given back."""
        self._parser.rest()

    def node(self, number: int) -> Node:
        with self._checked():
            return filesystem.node_of(self._parser.call("node", number=number))

    def entries(self, number: int) -> list[Entry]:
        """As they stand in the directory; what has no proper name is left out."""
        with self._checked():
            return [filesystem.entry_of(each) for each in self._parser.call("entries", number=number)]

    def announce(self, numbers: Iterable[int]) -> None:
        """Details of these will be asked for in this order. They are then fetched many at a time."""
        with self._lock:
            self._announced = {number: place for place, number in enumerate(numbers)}
            self._fetched.clear()

    def details(self, number: int) -> Details:
        with self._lock:
            if number not in self._fetched and number in self._announced:
                self._fetch(number)
            if number in self._fetched:
                return self._fetched.pop(number)
        with self._checked():
            return filesystem.details_of(self._parser.call("details", number=number), self.volume.size)

    def _fetch(self, number: int) -> None:
        """What goes wrong is told to whoever asks for that one."""
        first = self._announced[number]
        wanted = [each for each, place in self._announced.items() if first <= place < first + _TOGETHER]
        self._announced = {each: place for each, place in self._announced.items() if place >= first + _TOGETHER}
        with contextlib.suppress(errors.HeadstartError, Malformed, TypeError, ValueError):
            for each, told in zip(wanted, self._parser.call("several", numbers=wanted), strict=True):
                if told is not None:
                    self._fetched[each] = filesystem.details_of(told, self.volume.size)

    def read(self, details: Details, start: int, length: int) -> bytes:
        """A part of a file's content; less than asked for only at its end."""
        end = min(start + length, details.node.size)
        parts: list[bytes] = []
        position = start
        for at, content in self.content(details, start, end):
            parts += [bytes(at - position), content]
            position = at + len(content)
        return b"".join((*parts, bytes(max(0, end - position))))

    def content(self, details: Details, start: int = 0, end: int | None = None) -> Iterator[tuple[int, bytes]]:
        """Where data is, and what, in pieces of a MiB at most; what is left out are holes."""
        end = details.node.size if end is None else min(end, details.node.size)
        if details.runs is None:
            yield from self._told_content(details.node, start, end)
            return
        for wanted in _batches(_pieces(details.runs, start, end)):
            # A store takes its time for each: several are under way at once, in order.
            reading = map if len(wanted) == 1 else self._readers.map
            contents = reading(self._bytes.read, [place for _, place, _ in wanted], [length for _, _, length in wanted])
            for (at, _, _), content in zip(wanted, contents, strict=True):
                yield at, content

    def _told_content(self, node: Node, start: int, end: int) -> Iterator[tuple[int, bytes]]:
        if node.size > self.volume.size * _LARGEST:
            raise BrokenFileSystem("A file cannot be read: it says that it is larger than can be.")
        while start < end:
            length = min(_PIECE, end - start)
            with self._checked():
                found = self._parser.call("read", number=node.number, start=start, length=length)
                if not isinstance(found, bytes) or len(found) != length:
                    raise Malformed("a file that ends before its end")
            yield start, found
            start += length

    @contextlib.contextmanager
    def _checked(self) -> Iterator[None]:
        try:
            yield
        except (Malformed, TypeError, ValueError, IndexError) as error:
            raise BrokenFileSystem(
                f"Volume {plain.line(self.volume.name)} cannot be read: {plain.joined(str(error))}."
            ) from None

    def close(self) -> None:
        self._readers.shutdown(cancel_futures=True)
        self._parser.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *details: object) -> None:
        self.close()


def _pieces(runs: Iterable[Run], start: int, end: int) -> Iterator[tuple[int, int, int]]:
    """Of a file's part: where in the file, where on the volume, and how long; of a MiB at most."""
    for run in runs:
        low, high = max(start, run.start), min(end, run.start + run.length)
        while low < high:
            length = min(_PIECE, high - low)
            yield low, (run.place or 0) + low - run.start, length
            low += length


def _batches(pieces: Iterable[tuple[int, int, int]]) -> Iterator[list[tuple[int, int, int]]]:
    left = iter(pieces)
    while batch := list(itertools.islice(left, _AHEAD)):
        yield batch
