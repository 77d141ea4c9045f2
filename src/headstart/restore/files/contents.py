"""What is in a snapshot: its volumes, and the tree of files that its guest saw."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Self

from headstart import errors, plain
from headstart.repository import Repository
from headstart.repository.manifest import Manifest
from headstart.restore.files import guestpath
from headstart.restore.files.filetree import File, FileTree
from headstart.restore.serving.view import DiskView
from headstart.volumes import confined, fstab, signatures
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
        self._open: dict[str, FileSystem] = {}
        self._tree: FileTree | None = None
        self._points: dict[str, str] = {}

    def system(self, volume: Volume) -> FileSystem:
        """Raises ``Unsupported``, ``BrokenFileSystem``, ``Damaged``."""
        with self._lock:
            if volume.name not in self._open:
                if problem := _problem(volume):
                    raise errors.Unsupported(problem, volume=volume.name)
                opened = self._open[volume.name] = self._stack.enter_context(FileSystem(volume, self.views))
                self.notes += [f"{volume.name}: {note}" for note in opened.notes if self._matters(volume)]
            return self._open[volume.name]

    def _matters(self, volume: Volume) -> bool:
        """Whether a journal may have mattered, where the driver cannot tell."""
        return volume.content != "xfs" or self.manifest.consistency == "crash"

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
            tree = self.tree()
        elif guestpath.is_drive(path.volume) and not any(each.name == path.volume[0] for each in self.volumes):
            tree = self._drive(path.volume)
        else:
            tree = FileTree(self.system(self.volume(path.volume.removesuffix(":"))))
        return tree, tree.find(path.path, follow=follow)

    def volume(self, name: str) -> Volume:
        """By its name, ``LABEL=`` or ``UUID=``."""
        for each in self.volumes:
            if name == each.name or name.removeprefix("/dev/") == each.name:
                return each
        found = fstab.volume_of(name, self.volumes)
        if found is None:
            raise errors.NotFound(f"There is no volume {name!r}. {self._told_volumes()}", volume=name)
        return found

    def tree(self) -> FileTree:
        """As the guest sees its files. Raises ``NotFound`` where that cannot be told."""
        if self._tree is None:
            root = self._root()
            self._tree = FileTree(root)
            self._points[root.volume.name] = "/"
            self._mount_others(self._tree)
        return self._tree

    def seen(self) -> list[Seen]:
        """All volumes."""
        with contextlib.suppress(errors.HeadstartError):
            self.tree()
        return [Seen(each, self._points.get(each.name, "")) for each in self.volumes]

    def _root(self) -> FileSystem:
        readable = [each for each in self.volumes if each.content in READABLE and not each.problem]
        failures: list[errors.HeadstartError] = []
        opened = []
        for each in readable:
            try:
                opened.append(self.system(each))
            except (errors.Unsupported, BrokenFileSystem, errors.Damaged) as error:
                failures.append(error)
        systems = [each for each in opened if _is_system(each)]
        if not systems and len(opened) == 1 and not failures:
            systems = opened
        if len(systems) == 1:
            return systems[0]
        if len(failures) == 1 and not systems:
            failures[0].add_note(self._told_volumes())
            raise failures[0]
        why = "Several volumes may be the guest's system" if systems else "No volume is known to be the guest's system"
        raise errors.NotFound(f"{why}: name one, as SNAPSHOT:VOLUME:/PATH. {self._told_volumes()}")

    def _told_volumes(self) -> str:
        named = [f"{plain.line(each.name)} ({plain.line(each.content or 'unknown')})" for each in self.volumes]
        encrypted = [problem for each in self.volumes if each.content in _ENCRYPTED and (problem := _problem(each))]
        there = f"There are: {', '.join(named[:50])}." if named else "Nothing that is known was found on its disks."
        return " ".join((there, *encrypted[:3]))

    def _mount_others(self, tree: FileTree) -> None:
        for line in _fstab(tree):
            volume = fstab.volume_of(line.spec, self.volumes)
            if volume is None or volume.name in self._points:
                continue
            if volume.name == tree.root.system.volume.name or not guestpath.parts_of(line.point):
                continue
            with contextlib.suppress(errors.NotFound):
                tree.mount(line.point, lambda volume=volume: self.system(volume))  # type: ignore[misc]
                self._points[volume.name] = line.point

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


def _is_system(system: FileSystem) -> bool:
    """A Unix system's root, or Windows' volume."""
    try:
        names = {entry.name for entry in system.entries(system.root)}
    except errors.HeadstartError:
        return False
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
