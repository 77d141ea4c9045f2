"""A file system inside a volume: values, and what a driver for one can do.

Drivers parse what a guest wrote, which may be damaged or made to deceive. They run in a process of their own
(``parserprocess``), and nothing that they say is believed further than it is checked here.

Names and targets of links are text in which bytes that are no UTF-8 stand as surrogates (PEP 383).
"""

from __future__ import annotations

import operator
import stat
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal, Protocol

Kind = Literal["file", "directory", "symlink", "fifo", "character", "block", "socket", "unknown"]
#: With the bits of ``st_mode``.
TYPES: dict[Kind, int] = {
    "file": stat.S_IFREG,
    "directory": stat.S_IFDIR,
    "symlink": stat.S_IFLNK,
    "fifo": stat.S_IFIFO,
    "character": stat.S_IFCHR,
    "block": stat.S_IFBLK,
    "socket": stat.S_IFSOCK,
    "unknown": 0,
}
KINDS = tuple(TYPES)

#: Bytes of a name (NAME_MAX of Linux; NTFS has 255 UTF-16 units, which may be more), and of a link's target.
LONGEST_NAME = 1024
LONGEST_TARGET = 65536
#: Extended attributes of one file, and bytes of a value (Linux: XATTR_SIZE_MAX).
MOST_XATTRS = 4096
LONGEST_XATTR = 65536
#: The largest file: ``off_t``.
LARGEST = (1 << 63) - 1
#: The highest number of an owner, and of a part of a device's.
_HIGHEST = (1 << 32) - 1
#: The farthest time in nanoseconds: ext4 knows years up to 2446.
_FARTHEST = 1 << 70


#: What a driver says of a journal that it has not replayed.
UNREPLAYED = (
    "it was in use, and its journal was not replayed: what was written in the last seconds may be missing or as it "
    "was before. To have it replayed, boot the snapshot ('headstart boot'), or mount what 'headstart serve --writable' "
    "serves"
)


class Malformed(Exception):
    """The file system says what cannot be."""


class NotSupported(Exception):
    """What the driver does not know how to read."""


@dataclass(frozen=True, slots=True)
class Node:
    """A file of any kind. ``number`` is the file system's own, and the same for all names of a file.

    ``mode``: its permissions and the bits above them (07777). Times in nanoseconds since 1970, 0 where the file system
    has none. ``major`` and ``minor`` are a device's, else 0."""

    number: int
    kind: Kind
    mode: int
    uid: int
    gid: int
    size: int
    links: int
    atime: int
    mtime: int
    ctime: int
    major: int = 0
    minor: int = 0


@dataclass(frozen=True, slots=True)
class Entry:
    """A name in a directory."""

    name: str
    node: Node


@dataclass(frozen=True, slots=True)
class Run:
    """``length`` bytes of a file from ``start``, which lie at ``place`` of the volume; None is a hole."""

    start: int
    length: int
    place: int | None


@dataclass(frozen=True, slots=True)
class Details:
    """All of a file but its content. ``runs`` None: the driver has to be asked for the content (it is within metadata,
    or compressed); else they are ascending, and what they leave out is a hole."""

    node: Node
    runs: tuple[Run, ...] | None
    target: str
    xattrs: Mapping[str, bytes]
    #: What of it cannot be told.
    notes: tuple[str, ...] = ()


class Source(Protocol):
    """The bytes that a driver reads."""

    @property
    def size(self) -> int: ...

    def read(self, start: int, length: int) -> bytes:
        """Less than asked for only at the end."""
        ...


class Driver(Protocol):
    """One file system. Any method may raise ``Malformed``, ``NotSupported``, ``OSError`` (what the library did not
    understand) or die. One thread uses it."""

    root: int

    def notes(self) -> Iterable[str]:
        """What whoever reads it should know, as that its journal was not replayed."""
        ...

    def node(self, number: int) -> Node: ...

    def entries(self, number: int) -> Iterator[Entry]:
        """Without ``.`` and ``..``. What cannot be described is of kind ``unknown``."""
        ...

    def details(self, number: int) -> Details: ...

    def read(self, number: int, start: int, length: int) -> bytes:
        """Less than asked for only at the end of the file."""
        ...


#: A node as JSON has it. (``dataclasses.astuple`` copies each value, and takes ten times as long.)
flat = operator.attrgetter(*(field.name for field in fields(Node)))


def node_of(told: Any) -> Node:
    """The other way than ``flat``. Raises ``Malformed``."""
    number, kind, mode, uid, gid, size, links, *rest = _list(told)
    if kind not in KINDS:
        raise Malformed(f"a file of no kind: {kind!r}")
    if len(rest) != 5:
        raise Malformed("a file that is not described")
    atime, mtime, ctime = (_integer(each, -_FARTHEST, _FARTHEST) for each in rest[:3])
    return Node(
        _integer(number),
        kind,
        _integer(mode, 0, 0o7777),
        _integer(uid, 0, _HIGHEST),
        _integer(gid, 0, _HIGHEST),
        _integer(size, 0, LARGEST),
        _integer(links),
        atime,
        mtime,
        ctime,
        _integer(rest[3], 0, _HIGHEST),
        _integer(rest[4], 0, _HIGHEST),
    )


def entry_of(told: Any) -> Entry:
    name, node = _list(told)
    return Entry(_text(name, LONGEST_NAME), node_of(node))


def details_of(told: Any, size: int) -> Details:
    """``size``: of the volume."""
    node, runs, target, xattrs, notes = _list(told)
    its = node_of(node)
    found = {
        _word(name, LONGEST_NAME): bytes.fromhex(_text(value, 2 * LONGEST_XATTR))
        for name, value in _list(xattrs)[:MOST_XATTRS]
    }
    return Details(
        its,
        None if runs is None else tuple(_checked(map(_run, _list(runs)), its.size, size)),
        _word(target, LONGEST_TARGET),
        found,
        tuple(_text(note, LONGEST_TARGET) for note in _list(notes)[:16]),
    )


def told(details: Details) -> list[Any]:
    """As ``details_of`` understands it."""
    runs = None if details.runs is None else [(run.start, run.length, run.place) for run in details.runs]
    xattrs = [(name, value.hex()) for name, value in details.xattrs.items()]
    return [flat(details.node), runs, details.target, xattrs, list(details.notes)]


def _run(told: Any) -> Run:
    start, length, place = _list(told)
    return Run(_integer(start), _integer(length), None if place is None else _integer(place))


def _checked(runs: Iterable[Run], file_size: int, volume_size: int) -> Iterator[Run]:
    """Those with data, cut at the end of the file. More data than the volume has bytes is a trap."""
    position = total = 0
    for run in runs:
        if run.start < position:
            raise Malformed("a file whose parts overlap")
        position = run.start + run.length
        length = min(position, file_size) - run.start
        if run.place is None or length <= 0:
            continue
        total += length
        if run.place + length > volume_size or total > volume_size:
            raise Malformed("a file that lies outside of its volume")
        yield Run(run.start, length, run.place)


def _list(value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise Malformed("no list")
    return value


def _text(value: Any, longest: int) -> str:
    if not isinstance(value, str) or len(value) > longest:
        raise Malformed("no text, or too long")
    try:
        value.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        raise Malformed("a text of what are no letters") from None
    return value


def _word(value: Any, longest: int) -> str:
    """That a system call takes."""
    if "\0" in (text := _text(value, longest)):
        raise Malformed("a link or an attribute with a zero in it")
    return text


def _integer(value: Any, low: int = 0, high: int = 1 << 64) -> int:
    if type(value) is not int or not low <= value <= high:
        raise Malformed("no number, or none that can be")
    return value
