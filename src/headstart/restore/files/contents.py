"""What is in a snapshot: its volumes, and the tree of files that its guest saw."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Self

from headstart import errors, plain
from headstart.repository import Repository
from headstart.repository.manifest import Manifest
from headstart.restore.files import guestpath
from headstart.restore.files.filetree import File, FileTree
from headstart.restore.serving.view import DiskView
from headstart.volumes import confined, fstab, mounts, signatures
from headstart.volumes.confined import BrokenFileSystem, FileSystem
from headstart.volumes.volume import Volume

READABLE = (*signatures.EXT, *signatures.FAT, "ntfs", "xfs")
#: Why what is not readable is not, and what to do.
_ENCRYPTED = {"crypto_LUKS": "LUKS", "BitLocker": "BitLocker"}
_NOT_FILES = ("LVM2_member", "swap", "linux_raid_member", "bcache", "zfs_member")


@dataclass(frozen=True, slots=True)
class Seen:
    """A volume, and where the guest mounts it, if that is known."""

    volume: Volume
    mounted: str


@dataclass(frozen=True, slots=True)
class _Unseen:
    """Where the guest mounts something that is not shown, and why."""

    parts: tuple[str, ...]
    told: str


#: Of those that are told.
_MOST_UNSEEN = 50


class Contents:
    """A snapshot, opened. A context manager. Any thread may use it."""

    def __init__(self, repo: Repository, manifest: Manifest) -> None:
        self.manifest = manifest
        self.views = {disk.name: DiskView(repo, disk) for disk in manifest.disks}
        self.volumes = confined.survey(self.views)
        #: What the user should know.
        self.notes: list[str] = []
        self._stack = contextlib.ExitStack()
        self._lock = threading.Lock()
        self._building = threading.Lock()
        self._open: dict[str, FileSystem] = {}
        self._systems: dict[str, bool] = {}
        self._tree: FileTree | None = None
        self._points: dict[str, str] = {}
        self._unseen: list[_Unseen] = []

    def system(self, volume: Volume) -> FileSystem:
        """Raises ``Unsupported``, ``BrokenFileSystem``, ``Damaged``."""
        with self._lock:
            if volume.name not in self._open:
                if problem := _problem(volume):
                    raise errors.Unsupported(problem, volume=volume.name)
                opened = self._open[volume.name] = self._stack.enter_context(FileSystem(volume, self.views))
                self.notes += [f"{volume.name}: {volume.doubt}"] * bool(volume.doubt)
                self.notes += [f"{volume.name}: {note}" for note in opened.notes if self._matters(volume)]
            return self._open[volume.name]

    def _matters(self, volume: Volume) -> bool:
        """Whether a journal may have mattered, where the driver cannot tell. A VM that is off may have been killed."""
        return volume.content != "xfs" or self.manifest.consistency != "filesystem"

    def find(self, path: guestpath.GuestPath, *, follow: bool = True) -> tuple[FileTree, File]:
        """The tree that a path is of, and the file. Raises ``NotFound``, and as ``system``."""
        if path.volume and not path.path:
            with contextlib.suppress(errors.NotFound):
                tree = FileTree(self.system(self.volume(path.volume)))
                return tree, tree.root
            raise errors.NotFound(
                f"{path.volume!r} is neither a path, which begins with /, nor a volume. {self._told_volumes()}"
            )
        if not path.volume:
            return self._find(path.path, follow=follow)
        if guestpath.is_drive(path.volume) and not any(each.name == path.volume[0] for each in self.volumes):
            tree = self._drive(path.volume)
        else:
            tree = FileTree(self.system(self.volume(path.volume.removesuffix(":"))))
        return tree, tree.find(path.path, follow=follow)

    def _find(self, path: str, *, follow: bool) -> tuple[FileTree, File]:
        """In the guest's tree: what is not shown of it there is told."""
        tree = self.tree()
        try:
            found = tree.find(path, follow=follow)
        except errors.NotFound as error:
            above = tuple(guestpath.parts_of(path))
            for each in self._unseen:
                if above[: len(each.parts)] == each.parts:
                    error.add_note(each.told)
            raise
        for each in self._unseen:
            common = min(len(each.parts), len(found.parts))
            if each.parts[:common] == found.parts[:common] and each.told not in self.notes:
                self.notes.append(each.told)
        return tree, found

    def volume(self, name: str) -> Volume:
        """By its name, ``LABEL=`` or ``UUID=``. Raises ``NotFound``, and ``Usage`` where several are called so."""
        found = [each for each in self.volumes if each.name in (name, name.removeprefix("/dev/"))]
        found = found or fstab.volumes_of(name, self.volumes)
        if not found:
            raise errors.NotFound(f"There is no volume {name!r}. {self._told_volumes()}", volume=name)
        if len(found) > 1:
            raise errors.Usage(f"Several volumes are called {name!r}: {_named(found)}. Name one of them.")
        return found[0]

    def tree(self) -> FileTree:
        """As the guest sees its files. Raises ``NotFound`` where that cannot be told."""
        with self._building:
            if self._tree is None:
                root = self._root()
                tree = FileTree(root)
                lines = list(_fstab(tree))
                self._require_own_root(root.volume, lines)
                self._points, self._unseen = {root.volume.name: "/"}, []
                self._mount_others(tree, lines)
                self._tree = tree  # now that all is in its place
            return self._tree

    def seen(self) -> list[Seen]:
        """All volumes."""
        with contextlib.suppress(errors.HeadstartError):
            self.tree()
        return [Seen(each, self._points.get(each.name, "")) for each in self.volumes]

    def _root(self) -> FileSystem:
        readable = [each for each in self.volumes if each.content in READABLE and not each.problem]
        failures: list[errors.HeadstartError] = []
        opened: list[FileSystem] = []
        systems: list[FileSystem] = []
        idle: FileSystem | None = None
        for each in readable:
            is_known = each.name in self._systems
            try:
                opened.append(self.system(each))
            except (errors.Unsupported, BrokenFileSystem, errors.Damaged) as error:
                failures.append(error)
                continue
            if self._is_system(opened[-1]):
                systems.append(opened[-1])
                if len(systems) > 1:
                    break
            elif not is_known:  # else it is asked nothing, and whoever uses it goes on
                if idle:
                    idle.rest()  # a guest may have thousands of volumes, and each has a process
                idle = opened[-1]
        if not systems and len(opened) == 1 and not failures:
            systems = opened
        if len(systems) == 1:
            return systems[0]
        if len(failures) == 1 and not systems:
            failures[0].add_note(self._told_volumes())
            raise failures[0]
        why = "Several volumes may be the guest's system" if systems else "No volume is known to be the guest's system"
        raise errors.NotFound(f"{why}: name one, as SNAPSHOT:VOLUME:/PATH. {self._told_volumes()}")

    def _is_system(self, system: FileSystem) -> bool:
        """Found out once, unless it cannot be read now."""
        name = system.volume.name
        with contextlib.suppress(errors.HeadstartError):
            if name not in self._systems:
                self._systems[name] = _is_system(system)
        return self._systems.get(name, False)

    def _told_volumes(self) -> str:
        named = [f"{plain.line(each.name)} ({plain.line(each.content or 'unknown')})" for each in self.volumes]
        encrypted = [problem for each in self.volumes if each.content in _ENCRYPTED and (problem := _problem(each))]
        there = f"There are: {', '.join(named[:50])}." if named else "Nothing that is known was found on its disks."
        return " ".join((there, *encrypted[:3]))

    def _require_own_root(self, root: Volume, lines: Iterable[fstab.Line]) -> None:
        """Not an old system, or a copy of one, because the guest's own cannot be read."""
        for line in lines:
            if _point(line) == "/" and mounts.is_another(line, root, self.volumes):
                raise errors.NotFound(
                    f"The only system that can be read is on volume {plain.line(root.name)}, and its /etc/fstab has "
                    f"another volume at / ({plain.line(line.spec)}): it may be an old one, or a copy. Name a volume, "
                    f"as SNAPSHOT:VOLUME:/PATH. {self._told_volumes()}"
                )

    def _mount_others(self, tree: FileTree, lines: Iterable[fstab.Line]) -> None:
        for line in lines:
            point = _point(line)
            if point == "/" or not (why := self._mount(tree, line, point)) or len(self._unseen) >= _MOST_UNSEEN:
                continue
            spec = plain.line(line.spec)
            told = f"fstab mounts {spec} at {plain.line(point)}, and only the directory below it is shown: {why}"
            with contextlib.suppress(errors.HeadstartError):
                point = tree.find(point).path
            self._unseen.append(_Unseen(tuple(guestpath.parts_of(point)), told))

    def _mount(self, tree: FileTree, line: fstab.Line, point: str) -> str:
        """Why it is not shown; empty if it is, or if it is on no disk."""
        if why := self._left_out(point):
            return why
        if line.is_path:
            moved = guestpath.parts_of(line.spec) != guestpath.parts_of(point)
            return "it is shown only where it lies itself" if moved else ""
        if not line.is_on_disk:
            return ""
        found = fstab.volumes_of(line.spec, self.volumes)
        if not found:
            return "which volume that is, is not known ('headstart ls SNAPSHOT:' lists all)"
        if len(found) > 1:
            return f"several volumes are called so: {_named(found)}"
        volume = found[0]
        if known := self._points.get(volume.name):
            return f"volume {plain.line(volume.name)} is shown at {plain.line(known)}"
        try:
            tree.mount(point, lambda: self.system(volume))
        except errors.NotFound:
            return f"there is no such directory, for volume {plain.line(volume.name)}"
        except errors.HeadstartError as error:
            return f"that lies on another one, which cannot be read either: {error}"
        self._points[volume.name] = point
        return ""

    def _left_out(self, point: str) -> str:
        for each in (each for disk in self.manifest.disks for each in disk.excluded if each.extents):
            if any(guestpath.joined(guestpath.parts_of(its)) == point for its in each.mounted):
                how = f"by {plain.line(each.pattern)}" if each.pattern else "because only others were to be backed up"
                return f"volume {plain.line(each.volume)} was left out of the backup {how}"
        return ""

    def _drive(self, drive: str) -> FileTree:
        """Windows calls its own volume C:."""
        if drive.upper() == "C:":
            tree = self.tree()
            if tree.root.system.volume.content == "ntfs":
                return tree
        raise errors.NotFound(
            f"Which volume the guest calls {drive} is not known: name it, as SNAPSHOT:VOLUME:/PATH. "
            f"{self._told_volumes()}"
        )

    def close(self) -> None:
        self._stack.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *details: object) -> None:
        self.close()


def _fstab(tree: FileTree) -> Iterator[fstab.Line]:
    """Nearest to the root first, so that what is mounted on what is mounted is found."""
    try:
        file = tree.find("/etc/fstab")
        text = file.system.read(file.details(), 0, fstab.LONGEST) if file.node.kind == "file" else b""
    except errors.HeadstartError:
        return
    lines = fstab.parse(text.decode("utf-8", "surrogateescape"))
    yield from sorted(lines, key=lambda line: len(guestpath.parts_of(line.point)))


def _point(line: fstab.Line) -> str:
    return guestpath.joined(guestpath.parts_of(line.point))


def _named(volumes: Iterable[Volume]) -> str:
    return ", ".join(plain.line(each.name) for each in volumes)


def _is_system(system: FileSystem) -> bool:
    """A Unix system's root, or Windows' volume."""
    names = {entry.name for entry in system.entries(system.root)}
    if system.volume.content == "ntfs":
        return "windows" in {name.casefold() for name in names}
    return "etc" in names and bool({"usr", "bin"} & names)


def _problem(volume: Volume) -> str:
    """Why it has no files to read; empty if it may have."""
    name = plain.line(volume.name)
    if volume.problem:
        return (
            f"Volume {name} cannot be read here: {plain.line(volume.problem)}. Serve the disks ('headstart serve') or "
            "boot the snapshot ('headstart boot') to reach it."
        )
    if volume.content in _ENCRYPTED:
        how = (
            "cryptsetup open --readonly"
            if volume.content == "crypto_LUKS"
            else "cryptsetup open --type bitlk --readonly"
        )
        return (
            f"Volume {name} is encrypted ({_ENCRYPTED[volume.content]}), and only its key opens it: serve the disk "
            f"('headstart serve'), open the volume with '{how}', and mount that."
        )
    if volume.content in READABLE:
        return ""
    if volume.content in _NOT_FILES or not volume.content:
        what = f"is {plain.line(volume.content)}" if volume.content else "is empty, or holds something unknown"
        return f"Volume {name} {what}: it has no files."
    return (
        f"Volume {name} is {plain.line(volume.content)}, which cannot be read here. Serve the disk ('headstart serve') "
        "and mount it, or boot the snapshot ('headstart boot')."
    )
