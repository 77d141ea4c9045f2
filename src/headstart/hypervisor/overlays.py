"""Overlays of ours on an image: their files, and which marks each of them holds.

::

    data.raw.headstart -> segment 2      a link to what the VM is started from, the topmost segment
    segment 2 (qcow2)                    written to; allocated = changed since its marks began
        | backing file
    segment 1 (qcow2)                    frozen: holds what its marks recorded until segment 2 began
        |
    data.raw

A segment begins at one moment and has the names of the marks that record from then on, with those that go on. Which
those are is said by a file beside the link: QEMU is told nothing of them, so nothing of them is lost with it. Each step
leaves a chain that can be started as it is: the link leads to a new, empty segment before the guest writes to it, and
a segment's file goes when its content has reached the image below, and its disk.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import secrets
import stat
import struct
import subprocess
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from headstart import errors

SUFFIX = ".headstart"
#: Among the names of segments: what the image below was when it was last written by us (``facts_of``).
_SEAL = ""
_SEGMENT = re.compile(r"(?P<stem>.+)\.headstart-(?P<installation>[0-9a-f]{8})-(?P<id>[0-9a-f]{8})")
_NAMED = re.compile(r"(?P<stem>/[^\",]+)\.headstart-[0-9a-f]{8}-[0-9a-f]{8}(?![0-9a-f])")
#: docs/interop/qcow2.txt: magic, version, offset and length of the backing file's name, all big-endian.
_HEADER = struct.Struct(">4sIQI")
#: At 24 the guest's size; at 36 number of entries and offset of the L1 table, an entry being 8 bytes.
_SIZE = struct.Struct(">Q")
_TABLE = struct.Struct(">IQ")
#: At 60 the number of internal snapshots.
_SNAPSHOTS_AT = 60
#: Of the incompatible features bit 1, ``corrupt``: the image may be read, and is refused to who wants to write.
_FEATURES_AT, _FEATURES = 72, struct.Struct(">Q")
_READ_ONLY = 2
_MAGIC = b"QFI\xfb"
#: A chain of ours is far shorter; one that leads back to itself ends here.
_DEEPEST = 64


@dataclass(frozen=True, slots=True)
class Segment:
    """``names``: of the marks that record in it."""

    path: Path
    names: tuple[str, ...] = ()

    @property
    def id(self) -> str:
        found = _SEGMENT.fullmatch(self.path.name)
        assert found is not None, "segments are named by us"
        return found["id"]


@dataclass(frozen=True, slots=True)
class Place:
    """Where the overlays of one image are."""

    image: Path
    folder: Path
    stem: str
    installation: str

    @property
    def head(self) -> Path:
        """A link to what the VM is started from, as qcow2."""
        return self.folder / f"{self.stem}{SUFFIX}"

    @property
    def _marks(self) -> Path:
        return self.folder / f"{self.stem}{SUFFIX}-{self.installation}.marks"

    def new(self) -> Path:
        return self.folder / f"{self.stem}{SUFFIX}-{self.installation}-{secrets.token_hex(4)}"

    def is_segment(self, path: Path) -> bool:
        found = _SEGMENT.fullmatch(path.name)
        return found is not None and found["stem"] == self.stem and found["installation"] == self.installation

    # -- what is there

    def stack(self) -> tuple[Segment, ...]:
        """The segments that a start from the head opens, lowest first; empty where there is no head of ours."""
        paths, below = self._chain(self.target())
        if not paths or below != self.image:
            return ()
        return self.named(reversed(paths))

    def named(self, paths: Iterable[Path]) -> tuple[Segment, ...]:
        """Segments with the marks that were noted of them."""
        names = self._names()
        return tuple(Segment(each, names.get(each.name, ())) for each in paths)

    def noted(self) -> frozenset[Path]:
        """Of which segments marks were noted."""
        return frozenset(self.folder / name for name in self._names() if name != _SEAL)

    def in_use(self) -> bool:
        """There is anything of ours but what was put aside."""
        return bool(self.strays(())) or self._marks.exists()

    @property
    def seal(self) -> tuple[str, ...]:
        """What was noted of the image with them."""
        return self._names().get(_SEAL, ())

    def _chain(self, path: Path | None) -> tuple[list[Path], Path | None]:
        """Segments from ``path`` downwards, and what the lowest one stands on."""
        paths: list[Path] = []
        while path is not None and self.is_segment(path) and len(paths) < _DEEPEST:
            paths.append(path)
            path = _backing(path)
        return paths, path

    def target(self) -> Path | None:
        """Where the head leads to; None where there is none of ours."""
        try:
            path = self.head.readlink()
        except OSError:
            return None
        return self.folder / path

    def strays(self, kept: Iterable[Path]) -> list[Path]:
        """Files of segments that are in no chain, and were not set aside."""
        known = set(kept)
        for aside in self.folder.glob(f"{_literal(self.stem)}{SUFFIX}.aside-*"):
            known.update(self._chain(self.folder / aside.readlink())[0])
        found = self.folder.glob(f"{_literal(self.stem)}{SUFFIX}-{self.installation}-*")
        return sorted(path for path in found if self.is_segment(path) and path not in known)

    def _names(self) -> dict[str, tuple[str, ...]]:
        try:
            told = json.loads(self._marks.read_text())
            return {str(name): tuple(map(str, each)) for name, each in told.items()}
        except (OSError, ValueError, AttributeError, TypeError):
            # Without it marks are gone, and the disk is compared.
            return {}

    # -- changing it

    def create(self, path: Path, below: Path, form: str, size: int) -> None:
        """An empty segment, usable for whoever may use the image. Durable when this returns."""
        options = ["-u", "-b", str(below), "-F", form, str(path), str(size)]
        try:
            self.folder.mkdir(exist_ok=True, mode=0o711)
            done = subprocess.run(
                ["qemu-img", "create", "-q", "-f", "qcow2", *options],
                capture_output=True,
                text=True,
                stdin=subprocess.DEVNULL,
            )
            if done.returncode:
                raise errors.NoSpace(f"The overlay {path} cannot be made: {done.stderr.strip()}")
            facts = self.image.stat()
            path.chmod(facts.st_mode & 0o666)
            os.chown(path, facts.st_uid, facts.st_gid)
            sync(path)
            sync(self.folder)
        except OSError as error:
            raise errors.NoSpace(f"The overlay {path} cannot be made: {error.strerror}") from error

    def point(self, path: Path) -> None:
        """Let the head lead to a segment."""
        new = self.head.with_name(f"{self.head.name}.new")
        new.unlink(missing_ok=True)
        new.symlink_to(path.name)
        new.replace(self.head)
        sync(self.folder)

    def note(self, segments: Iterable[Segment], seal: tuple[str, ...] = ()) -> None:
        """Which names there are. Durable when this returns."""
        new = self._marks.with_name(f"{self._marks.name}.new")
        names = {each.path.name: each.names for each in segments}
        new.write_text(json.dumps(names | ({_SEAL: seal} if seal else {})))
        sync(new)
        new.replace(self._marks)
        sync(self.folder)

    def remove(self, path: Path) -> None:
        path.unlink(missing_ok=True)

    def put_aside(self, path: Path) -> Path:
        """A segment that nothing leads to any longer, and that holds something, stays. Returns what leads to it now."""
        aside = self.folder / f"{self.stem}{SUFFIX}.aside-{secrets.token_hex(4)}"
        aside.symlink_to(path.name)
        sync(self.folder)
        return aside

    def forget(self) -> None:
        """There is no segment any longer."""
        self._marks.unlink(missing_ok=True)

    def set_aside(self) -> Path:
        """Nobody is to start from these overlays: what they stand on has changed. Returns what leads to them now."""
        aside = self.folder / f"{self.stem}{SUFFIX}.aside-{secrets.token_hex(4)}"
        self.head.replace(aside)
        sync(self.folder)
        return aside


def place_of(image: Path, folder: Path, installation: str) -> Place:
    """``folder`` is for images that are devices: nothing can be put beside them."""
    with contextlib.suppress(OSError):
        if stat.S_ISBLK(image.stat().st_mode):
            return Place(image, folder, str(image).strip("/").replace("/", "-"), installation)
    return Place(image, image.parent, image.name, installation)


def is_ours(path: str, installation: str) -> bool:
    """A segment of ours, or a head that leads to one."""
    name = Path(path).name
    if name.endswith(SUFFIX):
        with contextlib.suppress(OSError):
            name = Path(path).readlink().name
    found = _SEGMENT.fullmatch(name)
    return found is not None and found["installation"] == installation


def as_it_is_now(text: str) -> str:
    """``text`` with the names of segments replaced by what their heads lead to now: they were committed since."""

    def now(found: re.Match[str]) -> str:
        head = Path(found["stem"] + SUFFIX)
        with contextlib.suppress(OSError):
            return str(head.parent / head.readlink())
        return found[0]

    return _NAMED.sub(now, text)


def files_of(head: Path) -> list[Path]:
    """The segments that a start from ``head`` opens now, topmost first, and what they stand on."""
    found: list[Path] = []
    with contextlib.suppress(OSError):
        path: Path | None = head.parent / head.readlink()
        while path is not None and len(found) < _DEEPEST:
            found.append(path)
            path = _backing(path) if is_any(path) else None
    return found


def is_any(path: Path) -> bool:
    """A segment of whatever installation."""
    return _SEGMENT.fullmatch(path.name) is not None


# -- what may be written to


def freeze(path: Path) -> None:
    """Whoever would write to this segment is refused, also one that has opened it already, to use it later: a QEMU that
    was started to receive the VM, when another segment was topmost. It can be read as before."""
    _mark(path, _READ_ONLY, 0)


def thaw(path: Path) -> None:
    _mark(path, 0, _READ_ONLY)


def _mark(path: Path, added: int, taken: int) -> None:
    """Durable when this returns. QEMU writes this part of the header only when it changes options of the image."""
    with path.open("r+b") as file:
        file.seek(_FEATURES_AT)
        (before,) = _FEATURES.unpack(file.read(_FEATURES.size))
        after = (before | added) & ~taken
        if after != before:
            file.seek(_FEATURES_AT)
            file.write(_FEATURES.pack(after))
            file.flush()
            os.fsync(file.fileno())


# -- names on segments


def begun(stack: tuple[Segment, ...], path: Path, start: Iterable[str], stop: Iterable[str]) -> tuple[Segment, ...]:
    """A segment more: all that recorded goes on in it but for ``stop``. Raises ``HeadstartError`` for what is there
    already, or is not."""
    started, stopped = list(start), set(stop)
    known = {name for each in stack for name in each.names}
    going = stack[-1].names if stack else ()
    for name in started:
        if name in known:
            raise errors.HeadstartError(f"There is a mark {name} already.")
    for name in stopped - known:
        raise errors.HeadstartError(f"There is no mark {name}.")
    return (*stack, Segment(path, (*(each for each in going if each not in stopped), *started)))


def without(stack: tuple[Segment, ...], gone: Iterable[str]) -> tuple[Segment, ...]:
    dropped = set(gone)
    return tuple(replace(each, names=tuple(name for name in each.names if name not in dropped)) for each in stack)


def nameless(stack: tuple[Segment, ...]) -> int:
    """How many of the lowest segments nobody wants to read any longer. Never the one that is written to."""
    count = 0
    while count < len(stack) - 1 and not stack[count].names:
        count += 1
    return count


def is_blank(stack: tuple[Segment, ...]) -> bool:
    """One overlay to which nobody has ever written: its table of tables is empty. Also where there is none."""
    if len(stack) > 1:
        return False
    return all(is_empty(each.path) for each in stack)


def is_empty(path: Path) -> bool:
    """Nobody has ever written to this segment."""
    return not any(_first_table(path))


def holds_snapshots(path: Path) -> bool:
    """Somebody keeps internal snapshots in this segment."""
    return any(_read(path, _SNAPSHOTS_AT, 4))


def facts_of(path: Path) -> tuple[str, ...]:
    """What tells whether a file was written to; a device has nothing of the kind."""
    facts = path.stat()
    if stat.S_ISBLK(facts.st_mode):
        return ("device",)
    return (str(facts.st_ino), str(facts.st_size), str(facts.st_mtime_ns))


def size_of(path: Path) -> int:
    """As the guest sees it."""
    (size,) = _SIZE.unpack(_read(path, 24, _SIZE.size))
    return int(size)


def _first_table(path: Path) -> bytes:
    entries, offset = _TABLE.unpack(_read(path, 36, _TABLE.size))
    return _read(path, offset, entries * 8)


def _read(path: Path, offset: int, length: int) -> bytes:
    with path.open("rb") as file:
        file.seek(offset)
        return file.read(length)


def sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _backing(path: Path) -> Path | None:
    try:
        with path.open("rb") as file:
            magic, _, offset, length = _HEADER.unpack(file.read(_HEADER.size))
            if magic != _MAGIC or not offset:
                return None
            file.seek(offset)
            return path.parent / file.read(length).decode()
    except (OSError, struct.error, UnicodeDecodeError):
        return None


def _literal(name: str) -> str:
    return re.sub(r"([*?\[])", r"[\1]", name)


def paths(stack: Iterable[Segment]) -> Iterator[Path]:
    return (each.path for each in stack)
