"""The process that parses what a guest wrote: partition tables, LVM, file systems.

A library in C that reads hostile data may crash, loop, or be taken over. Here it can do little: the process has neither
the keys of the repository nor its environment, opens no file, no socket and no process, has little memory, and, started
by root, is nobody. All that it reads comes from ``confined``, which also ends it when it says nothing for too long.

Runs as ``parserprocess.main(ROLE)``, with frames (``parserframes``) on stdin and stdout. ROLE is ``survey``, ``look``
(a survey, and where things are mounted) or what a volume holds, as ``signatures`` calls it.
"""

from __future__ import annotations

import codecs
import collections
import contextlib
import ctypes
import json
import os
import resource
import sys
from collections.abc import Callable, Iterator
from dataclasses import astuple
from typing import Any, BinaryIO

from headstart.volumes import filesystem, mounts, parserframes, survey, volume
from headstart.volumes.filesystem import Driver, Malformed, NotSupported
from headstart.volumes.filesystems import drivers
from headstart.volumes.volume import ReadOnlyBytes

SURVEY = "survey"
LOOK = "look"
#: Bytes of memory, and what it is when there are more files in a directory than that.
_MEMORY = 2 << 30
_NOBODY = 65534
#: Bytes of what is told of several files at once; of the others it is asked one by one.
_MOST_TOGETHER = 32 << 20
#: Of a processor, without a word.
_SECONDS = 120
_NO_NEW_PRIVILEGES = 38  # PR_SET_NO_NEW_PRIVS of prctl(2)
#: What is asked for at once, aligned, and how much of it is kept.
_PAGE = 64 * 1024
_PAGES = 2048
#: Those that drivers need: each is a file of Python's library.
_ENCODINGS = ("ascii", "utf-8", "utf-16-le", "cp437")
#: Entries of a directory in one frame.
_BATCH = 1000


class _Disk:
    """A disk, asked for page by page."""

    def __init__(self, name: str, size: int, ask: Callable[[str, int, int], bytes]) -> None:
        self.size = size
        self._name = name
        self._ask = ask
        self._pages: collections.OrderedDict[int, bytes] = collections.OrderedDict()

    def read(self, start: int, length: int) -> bytes:
        end = min(start + length, self.size)
        if start < 0 or start >= end:
            return b""
        first, last = start // _PAGE, -(-end // _PAGE)
        joined = b"".join(self._page(number) for number in range(first, last))
        return joined[start - first * _PAGE : end - first * _PAGE]

    def _page(self, number: int) -> bytes:
        if number in self._pages:
            self._pages.move_to_end(number)
            return self._pages[number]
        start = number * _PAGE
        page = self._pages[number] = self._ask(self._name, start, min(_PAGE, self.size - start))
        if len(self._pages) > _PAGES:
            self._pages.popitem(last=False)
        return page


class _Server:
    def __init__(self, requests: BinaryIO, replies: BinaryIO) -> None:
        self._requests = requests
        self._replies = replies
        self._disks: dict[str, _Disk] = {}
        self._driver: Driver | None = None

    def serve(self) -> None:
        """Until the other side goes."""
        while True:
            try:
                _, body = parserframes.get(self._requests)
            except EOFError:
                return
            told = json.loads(body)
            _go_on()
            try:
                self._answer(told.pop("call"), told)
            except Malformed as error:
                self._fail(parserframes.MALFORMED, str(error))
            except NotSupported as error:
                self._fail(parserframes.NOT_SUPPORTED, str(error))
            except BrokenPipeError:
                return
            except Exception as error:
                self._fail(parserframes.CONFUSED, f"{type(error).__name__}: {error}")

    def _answer(self, call: str, told: dict[str, Any]) -> None:
        match call:
            case "disks":
                self._disks = {name: _Disk(name, size, self._ask) for name, size in told["disks"].items()}
                self._put(parserframes.DONE, None)
            case "survey":
                found = survey.volumes(self._disks)
                self._put(parserframes.DONE, [astuple(each) for each in found])
            case "look":
                volumes = survey.volumes(self._disks)
                mounted = mounts.find(volumes, self._read_disk)
                points = [(name, list(each)) for name, each in mounted.points.items()]
                self._put(parserframes.DONE, [[astuple(each) for each in volumes], points, mounted.problem])
            case "open":
                its = volume.of_told(told["volume"], {name: disk.size for name, disk in self._disks.items()})
                self._driver = drivers.open_driver(its.content, ReadOnlyBytes(its, self._read_disk))
                self._put(parserframes.DONE, [self._driver.root, list(self._driver.notes())])
            case "read":
                content = self._opened().read(told["number"], told["start"], told["length"])
                parserframes.put(self._replies, parserframes.BYTES, content)
            case "node":
                self._put(parserframes.DONE, filesystem.flat(self._opened().node(told["number"])))
            case "details":
                self._put(parserframes.DONE, filesystem.told(self._opened().details(told["number"])))
            case "several":
                left = _MOST_TOGETHER
                for number in told["numbers"]:
                    left -= self._put(parserframes.PART, [self._told(number) if left > 0 else None])
                self._put(parserframes.DONE, None)
            case "entries":
                self._entries(told["number"])
            case _:
                raise ValueError(call)

    def _told(self, number: int) -> Any:
        """Details of one of several; None where it has to be asked for alone, to hear why it has none."""
        try:
            return filesystem.told(self._opened().details(number))
        except BrokenPipeError:
            raise
        except Exception:
            return None

    def _entries(self, number: int) -> None:
        for batch in _batches(self._opened().entries(number)):
            self._put(parserframes.PART, batch)
        self._put(parserframes.DONE, None)

    def _opened(self) -> Driver:
        if self._driver is None:
            raise ValueError("nothing is open")
        return self._driver

    def _read_disk(self, name: str, start: int, length: int) -> bytes:
        return self._disks[name].read(start, length)

    def _ask(self, name: str, start: int, length: int) -> bytes:
        self._put(parserframes.NEED, [name, start, length])
        try:
            kind, body = parserframes.get(self._requests)
        except EOFError:  # not of a library that has come to the end of something
            raise SystemExit from None
        if kind != parserframes.BYTES:
            raise OSError(f"bytes {start} to {start + length - 1} of the disk cannot be read")
        return body

    def _put(self, kind: bytes, told: Any) -> int:
        """How long it is."""
        _go_on()
        # As they are, letters of any script take a half or less of what they take escaped.
        body = json.dumps(told, ensure_ascii=False).encode("utf-8", "surrogatepass")
        parserframes.put(self._replies, kind, body)
        return len(body)

    def _fail(self, kind: str, text: str) -> None:
        self._put(parserframes.ERROR, [kind, text[:2000]])


def _batches(entries: Iterator[filesystem.Entry]) -> Iterator[list[Any]]:
    batch: list[Any] = []
    for entry in entries:
        batch.append((entry.name, filesystem.flat(entry.node)))
        if len(batch) == _BATCH:
            yield batch
            batch = []
    yield batch


def main(role: str) -> None:
    """Before anything is parsed, everything is loaded: then no file can be opened any longer."""
    for encoding in _ENCODINGS:
        codecs.lookup(encoding)
    if role in ("xfs", LOOK):
        try:
            import dissect.xfs.xfs  # noqa: F401
        except ImportError:
            # To look for it again would need files.
            sys.modules["dissect"] = None  # type: ignore[assignment]
    _confine()
    _Server(sys.stdin.buffer, sys.stdout.buffer).serve()


def _go_on() -> None:
    """From now on. What says nothing for longer is in a loop, and whoever would end it may have been killed."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    _, most = resource.getrlimit(resource.RLIMIT_CPU)
    wanted = int(used.ru_utime + used.ru_stime) + _SECONDS
    resource.setrlimit(resource.RLIMIT_CPU, (wanted if most == resource.RLIM_INFINITY else min(wanted, most), most))


def _confine() -> None:
    if os.geteuid() == 0:
        with contextlib.suppress(OSError):  # no such user in this namespace
            os.setgroups([])
            os.setresgid(_NOBODY, _NOBODY, _NOBODY)
            os.setresuid(_NOBODY, _NOBODY, _NOBODY)
    ctypes.CDLL(None).prctl(_NO_NEW_PRIVILEGES, 1, 0, 0, 0)
    for what, most in (
        (resource.RLIMIT_AS, _MEMORY),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_NPROC, 0),
        (resource.RLIMIT_NOFILE, 0),
    ):
        resource.setrlimit(what, (most, most))
