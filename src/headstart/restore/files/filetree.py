"""The files of a guest as one tree: one file system, with others where the guest mounts them."""

from __future__ import annotations

import collections
import re
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from headstart import errors, plain
from headstart.restore.files import guestpath
from headstart.volumes.confined import FileSystem
from headstart.volumes.filesystem import LONGEST_NAME, Details, Entry, Node

#: As Linux has it (MAXSYMLINKS).
_MOST_LINKS = 40
#: Names that are remembered, of directories that were looked into last.
_REMEMBERED = 500_000
#: Levels of directories; a guest's system could hardly use deeper ones (PATH_MAX is 4096).
DEEPEST = 2000
_FOLDING = ("ntfs", "vfat", "exfat")
_UNNAMED = "it is damaged, and has names that cannot be told"
_DRIVE = re.compile(r"[A-Za-z]:/")


@dataclass(frozen=True, slots=True)
class File:
    """A file of any kind, and where it was found. ``parts`` is its path in the tree, through no link."""

    system: FileSystem
    node: Node
    parts: tuple[str, ...]

    @property
    def name(self) -> str:
        return self.parts[-1] if self.parts else ""

    @property
    def path(self) -> str:
        return guestpath.joined(self.parts)

    @property
    def identity(self) -> tuple[str, int]:
        """The same for all names of it."""
        return self.system.volume.name, self.node.number

    def details(self) -> Details:
        return self.system.details(self.node.number)


@dataclass(frozen=True, slots=True)
class Step:
    """Of a walk. ``leaving``: a directory, after all that is in it."""

    file: File
    leaving: bool = False


@dataclass(frozen=True, slots=True)
class _Names:
    """Of a directory. ``repeated``: those that several files have."""

    nodes: dict[str, Node]
    repeated: list[str]

    @classmethod
    def of(cls, entries: Sequence[Entry]) -> _Names:
        nodes = {entry.name: entry.node for entry in entries}
        if len(nodes) == len(entries):
            return cls(nodes, [])
        counted = collections.Counter(entry.name for entry in entries)
        return cls(nodes, [name for name, count in counted.items() if count > 1])


#: Opens what is mounted somewhere; may raise what opening a file system raises.
Opener = Callable[[], FileSystem]


class FileTree:
    """Any thread may use it."""

    def __init__(self, root: FileSystem, number: int | None = None) -> None:
        """``number``: of the directory that is its root, else that of the file system."""
        self.root = File(root, root.node(root.root if number is None else number), ())
        self._mounts: dict[tuple[str, int], Opener] = {}
        self._lock = threading.Lock()
        self._known: collections.OrderedDict[tuple[str, int], _Names] = collections.OrderedDict()
        self._remembered = 0

    def mount(self, point: str, opener: Opener) -> None:
        """Raises ``NotFound`` where the tree has no such directory."""
        self._mounts[self.find(point).identity] = opener

    def below(self, top: File) -> FileTree:
        """The tree from one of its directories on."""
        tree = FileTree(top.system, top.node.number)
        tree._mounts = self._mounts
        return tree

    def find(self, path: str, *, follow: bool = True) -> File:
        """Links on the way are followed within the tree, as the guest does; one at the end if ``follow``.

        Raises ``NotFound``, and what reading raises."""
        folding = self.root.system.volume.content in _FOLDING
        left = collections.deque(guestpath.parts_of(path, backslashes=folding))
        follow = follow or path.endswith("/")
        trail = [self.root]
        links = 0
        while left:
            part = left.popleft()
            if part == "..":
                trail = trail[:-1] or [self.root]
                continue
            found = self._child(trail[-1], part, path)
            if found.node.kind == "symlink" and (left or follow):
                links += 1
                if links > _MOST_LINKS:
                    raise errors.NotFound(f"{path!r} is a loop of symbolic links.", path=path)
                target = found.details().target
                absolute = target.startswith("/") or (folding and _DRIVE.match(target))
                left.extendleft(reversed(guestpath.parts_of(_DRIVE.sub("", target) if folding else target)))
                trail = [self.root] if absolute else trail
            else:
                trail.append(found)
        return trail[-1]

    def _child(self, directory: File, name: str, path: str) -> File:
        if directory.node.kind != "directory":
            raise errors.NotFound(f"{directory.path!r} is no directory, so there is no {path!r}.", path=path)
        names = self._names(directory).nodes
        called = name
        if name not in names and directory.system.volume.content in _FOLDING:
            called = next((each for each in names if each.casefold() == name.casefold()), name)
        if called in names:
            return self._mounted(File(directory.system, names[called], (*directory.parts, called)))
        raise errors.NotFound(f"There is no {guestpath.joined((*directory.parts, name))!r} in the snapshot.", path=path)

    def files_in(self, directory: File) -> list[File]:
        """By name. What has no name that a file can have, or that of another, is left out: ``unlisted`` tells. A
        directory where something is mounted that cannot be read is listed as it is below; looking into it raises
        why."""
        found = (
            File(directory.system, node, (*directory.parts, name))
            for name, node in self._names(directory).nodes.items()
        )
        return sorted((self._seen(file) for file in found if is_name(file.name)), key=lambda file: file.name)

    def unlisted(self, directory: File) -> list[str]:
        """What ``files_in`` leaves out, in words."""
        names = self._names(directory)
        bad = [name[:LONGEST_NAME] for name in names.nodes if not is_name(name)]
        told = [f"it has a file of the name {name!r}, which cannot be one" if name else _UNNAMED for name in bad]
        return told + [
            f"it has several files of the name {name!r}, of which one is shown" for name in names.repeated if name
        ]

    def _names(self, directory: File) -> _Names:
        key = directory.identity
        if key in self._mounts:
            self._mounts[key]()
        with self._lock:
            if key in self._known:
                self._known.move_to_end(key)
                return self._known[key]
        found = _Names.of(directory.system.entries(directory.node.number))
        with self._lock:
            if key not in self._known:
                self._known[key] = found
                self._remembered += len(found.nodes)
            while self._remembered > _REMEMBERED and len(self._known) > 1:
                self._remembered -= len(self._known.popitem(last=False)[1].nodes)
        return found

    def _seen(self, file: File) -> File:
        try:
            return self._mounted(file)
        except errors.HeadstartError:
            return file

    def _mounted(self, file: File) -> File:
        opener = self._mounts.get(file.identity) if file.node.kind == "directory" else None
        if opener is None:
            return file
        system = opener()
        return File(system, system.node(system.root), file.parts)

    def walk(self, top: File, troubles: Troubles) -> Iterator[Step]:
        """``top`` and all below it, depth first, a directory before and after what is in it, files before directories.
        No directory is entered
        twice, whatever the file system says. What cannot be read is told to ``troubles`` and left out."""
        yield Step(top)
        if top.node.kind != "directory":
            return
        entered = {top.identity}
        stack = [(top, iter(self._listed(top, troubles)))]
        while stack:
            directory, left = stack[-1]
            file = next(left, None)
            if file is None:
                stack.pop()
                yield Step(directory, leaving=True)
            elif file.node.kind != "directory":
                yield Step(file)
            elif file.identity in entered:
                troubles.add(file.path, "the directory is a part of itself, or has two names")
            elif len(file.parts) > DEEPEST:
                troubles.add(file.path, f"it lies deeper than {DEEPEST} directories")
            else:
                entered.add(file.identity)
                yield Step(file)
                stack.append((file, iter(self._listed(file, troubles))))

    def _listed(self, directory: File, troubles: Troubles) -> list[File]:
        try:
            for told in self.unlisted(directory):
                troubles.add(directory.path, told)
            files = self.files_in(directory)
        except errors.HeadstartError as error:
            troubles.add(directory.path, str(error))
            return []
        # Files first: their details are fetched many at a time, and going down in between would spoil that.
        files.sort(key=lambda file: file.node.kind == "directory")
        directory.system.announce(file.node.number for file in files if file.node.kind != "directory")
        return files


def is_name(name: str) -> bool:
    """Whether a file may be called so: anything else leads elsewhere."""
    encoded = name.encode("utf-8", "surrogateescape")
    return 0 < len(encoded) <= LONGEST_NAME and name not in (".", "..") and not {"/", "\0"} & set(name)


class Troubles:
    """What was left out, and why."""

    #: Those that a message names, and that are kept for JSON.
    _NAMED, _KEPT = 10, 1000

    def __init__(self) -> None:
        self.count = 0
        self.kept: list[tuple[str, str]] = []

    def add(self, path: str, why: str) -> None:
        self.count += 1
        if len(self.kept) < self._KEPT:
            self.kept.append((path, why))

    def raise_any(self) -> None:
        """``Incomplete``."""
        if not self.count:
            return
        told = "; ".join(f"{plain.line(path)}: {plain.joined(why)}" for path, why in self.kept[: self._NAMED])
        more = f"; and {self.count - self._NAMED} more" if self.count > self._NAMED else ""
        values = [{"path": path, "why": why} for path, why in self.kept]
        raise errors.Incomplete(f"Left out: {told}{more}", left_out=values, count=self.count)


def relative(top: File, file: File) -> Sequence[str]:
    """Its path below the top of a walk."""
    return file.parts[len(top.parts) :]
