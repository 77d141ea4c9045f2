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
import subprocess
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from headstart import durable, errors
from headstart.hypervisor import segmentfile

SUFFIX = ".headstart"
#: Among the names of segments: what the image below was when it was last written by us (``facts_of``).
_SEAL = ""
_SEGMENT = re.compile(r"(?P<stem>.+)\.headstart-(?P<installation>[0-9a-f]{8})-(?P<id>[0-9a-f]{8})")
_NAMED = re.compile(r"(?P<stem>/[^\",]+)\.headstart-[0-9a-f]{8}-[0-9a-f]{8}(?![0-9a-f])")
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
            path = segmentfile.backing(path)
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
            durable.sync(path)
            durable.sync(self.folder)
        except OSError as error:
            raise errors.NoSpace(f"The overlay {path} cannot be made: {error.strerror}") from error

    def point(self, path: Path) -> None:
        """Let the head lead to a segment."""
        new = self.head.with_name(f"{self.head.name}.new")
        new.unlink(missing_ok=True)
        new.symlink_to(path.name)
        new.replace(self.head)
        durable.sync(self.folder)

    def note(self, segments: Iterable[Segment], seal: tuple[str, ...] = ()) -> None:
        """Which names there are. Durable when this returns."""
        new = self._marks.with_name(f"{self._marks.name}.new")
        names = {each.path.name: each.names for each in segments}
        new.write_text(json.dumps(names | ({_SEAL: seal} if seal else {})))
        durable.sync(new)
        new.replace(self._marks)
        durable.sync(self.folder)

    def sync(self, kept: Sequence[Path]) -> None:
        """What was committed is in the image for good, and the lowest of the segments that stay, which stands on it
        now, says so. Before any that was committed is removed."""
        for path in (self.image, *kept[:1]):
            durable.sync(path)

    def remove(self, path: Path) -> None:
        path.unlink(missing_ok=True)

    def put_aside(self, path: Path) -> Path:
        """A segment that nothing leads to any longer, and that holds something, stays. Returns what leads to it now."""
        aside = self.folder / f"{self.stem}{SUFFIX}.aside-{secrets.token_hex(4)}"
        aside.symlink_to(path.name)
        durable.sync(self.folder)
        return aside

    def forget(self) -> None:
        """There is no segment any longer."""
        self._marks.unlink(missing_ok=True)

    def set_aside(self) -> Path:
        """Nobody is to start from these overlays: what they stand on has changed. Returns what leads to them now."""
        aside = self.folder / f"{self.stem}{SUFFIX}.aside-{secrets.token_hex(4)}"
        self.head.replace(aside)
        durable.sync(self.folder)
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
            path = segmentfile.backing(path) if is_any(path) else None
    return found


def is_any(path: Path) -> bool:
    """A segment of whatever installation."""
    return _SEGMENT.fullmatch(path.name) is not None


def facts_of(path: Path) -> tuple[str, ...]:
    """What tells whether a file was written to; a device has nothing of the kind."""
    facts = path.stat()
    if stat.S_ISBLK(facts.st_mode):
        return ("device",)
    return (str(facts.st_ino), str(facts.st_size), str(facts.st_mtime_ns))


def _literal(name: str) -> str:
    return re.sub(r"([*?\[])", r"[\1]", name)


def paths(stack: Iterable[Segment]) -> Iterator[Path]:
    return (each.path for each in stack)
