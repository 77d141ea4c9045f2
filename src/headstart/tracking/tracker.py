"""Tracking by what the hypervisor records at each write: dirty bitmaps, or overlays that it shows in the same way."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from headstart import errors
from headstart.blocks import Blocks
from headstart.hypervisor import names
from headstart.hypervisor.contract import Bitmap, Bitmaps, Migrating, Remove, Start, Stop
from headstart.tracking.mark import Kind, Mark, Marks, Standing


class Tracker:
    """Marks of this installation on the disks of one VM, by disk name. A mark is a bitmap whose name tells the
    installation, the disk's nonce and the mark: only the exact name is believed."""

    def __init__(self, bitmaps: Bitmaps, installation: str, nonces: Mapping[str, str]) -> None:
        """``nonces``: random, by disk; they tell a disk from its copy in another VM."""
        self._bitmaps = bitmaps
        self._installation = installation
        self._nonces = nonces

    def _name(self, disk: str, mark: Mark) -> str:
        return names.Track(self._installation, mark.kind.value, self._nonces[disk], mark.id).name

    def standing(self) -> dict[str, dict[Mark, Standing]]:
        """Which marks of ours are there. A mark that is not listed is gone for good."""
        found: dict[str, dict[Mark, Standing]] = {}
        for disk, bitmaps in self._bitmaps.bitmaps().items():
            marks = found.setdefault(disk, {})
            for bitmap in bitmaps:
                mark = self._mark(disk, bitmap.name)
                # The same name may stand on two layers; the one that is believed wins.
                if mark is not None and marks.get(mark) in (None, Standing.BROKEN):
                    marks[mark] = _standing(bitmap)
        return found

    def _mark(self, disk: str, name: str) -> Mark | None:
        track = names.parse(name)
        if track is None or track.installation != self._installation or track.kind not in ("base", "round"):
            return None
        return Mark(Kind(track.kind), track.id) if track.nonce == self._nonces.get(disk) else None

    def foreign(self) -> list[str]:
        """Bitmaps of other installations, for people to know."""
        return [
            f"{disk}: {bitmap.name}"
            for disk, bitmaps in self._bitmaps.bitmaps().items()
            for bitmap in bitmaps
            if (track := names.parse(bitmap.name)) and track.installation != self._installation
        ]

    def rotate(self, start: Marks, end: Marks) -> None:
        """All or nothing: ``start`` begin, then ``end`` freeze, or go on where nothing can be frozen.

        A new mark records before the old one is read, so between two rounds nothing is lost."""
        starts, ends = self.actions(start, end)
        self._bitmaps.transact([*starts, *ends])

    def actions(self, start: Marks, end: Marks) -> tuple[tuple[Start, ...], tuple[Stop, ...]]:
        """The same as ``rotate``, for a point in time to do."""
        starts = tuple(Start(disk, self._name(disk, mark)) for disk, mark in start)
        return starts, tuple(Stop(disk, self._name(disk, mark)) for disk, mark in end)

    def changed(self, marks: Mapping[str, Sequence[Mark]]) -> dict[str, Blocks]:
        """What each disk's marks recorded, together; at least up to the moment of the call."""
        wanted = {disk: [self._name(disk, mark) for mark in each] for disk, each in marks.items()}
        return self._bitmaps.changed(wanted)

    def settle(self, disks: Sequence[str]) -> None:
        """What marks of these disks recorded before the newest one of each began has been read, and is known durably.
        A recorder that has to let go of it does so now; what its older marks tell afterwards is that much less."""
        if disks:
            self._bitmaps.settle(disks)

    def names(self, disk: str, marks: Sequence[Mark]) -> dict[str, Mark]:
        """The marks of a disk by the names of their bitmaps, in their order: for ``PointRequest.reads``."""
        return {self._name(disk, mark): mark for mark in marks}

    def drop(self, marks: Marks) -> None:
        """Forget marks. Gone already is fine; one that nobody can remove now stays."""
        there = {(disk, bitmap.name) for disk, bitmaps in self._bitmaps.bitmaps().items() for bitmap in bitmaps}
        wanted = [(disk, self._name(disk, mark)) for disk, mark in marks]
        self._remove([Remove(*each) for each in dict.fromkeys(wanted) if each in there])

    def drop_strays(self) -> None:
        """Bitmaps of this installation that belong to another disk: the image is a copy of that one."""
        self._remove(
            [
                Remove(disk, bitmap.name)
                for disk, bitmaps in self._bitmaps.bitmaps().items()
                for bitmap in bitmaps
                if _is_copied(names.parse(bitmap.name), self._installation, self._nonces.get(disk))
            ]
        )

    def _remove(self, removes: Sequence[Remove]) -> None:
        """A bitmap stored in an image below another one is read-only: it stays, and keeps no other."""
        try:
            self._bitmaps.transact(removes)
        except (errors.Unreachable, Migrating):
            raise
        except errors.HeadstartError:
            for each in removes if len(removes) > 1 else ():
                self._remove([each])


def _standing(bitmap: Bitmap) -> Standing:
    if not bitmap.believed:
        return Standing.BROKEN
    return Standing.RECORDING if bitmap.recording else Standing.FROZEN


def _is_copied(track: names.Track | None, installation: str, nonce: str | None) -> bool:
    return track is not None and track.installation == installation and track.nonce != nonce
