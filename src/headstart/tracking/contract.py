"""What a tracker of changes promises, whatever it records with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Protocol

from headstart.blocks import Blocks
from headstart.hypervisor.contract import Action


class Kind(Enum):
    #: Records from before a snapshot's point in time until its successor is published.
    BASE = "base"
    #: Records from the beginning of a round until the next one has begun.
    ROUND = "round"


@dataclass(frozen=True, slots=True)
class Mark:
    """A checkpoint of ours on one disk: a point from which changes are tracked."""

    kind: Kind
    id: str


class Standing(Enum):
    RECORDING = "recording"
    #: Holds what it recorded until it was ended, and records no longer.
    FROZEN = "frozen"
    #: Cannot be believed: inconsistent, or not where the guest's writes go.
    BROKEN = "broken"


Marks = Sequence[tuple[str, Mark]]


class Tracker(Protocol):
    """Marks of this installation on the disks of one VM, by disk name."""

    def standing(self) -> Mapping[str, Mapping[Mark, Standing]]:
        """Which marks of ours are there. A mark that is not listed is gone for good."""
        ...

    def rotate(self, start: Marks, end: Marks) -> None:
        """All or nothing: ``start`` begin, then ``end`` freeze, or go on where nothing can be frozen.

        A new mark records before the old one is read, so between two rounds nothing is lost."""
        ...

    def changed(self, marks: Mapping[str, Sequence[Mark]]) -> dict[str, Blocks]:
        """What each disk's marks recorded, together; at least up to the moment of the call."""
        ...

    def settle(self, disks: Sequence[str]) -> None:
        """What marks of these disks recorded before the newest one of each began has been read, and is known durably.
        A recorder that has to let go of it does so now; what its older marks tell afterwards is that much less."""
        ...

    def names(self, disk: str, marks: Sequence[Mark]) -> Mapping[str, Mark]:
        """What the hypervisor knows marks of a disk by, in their order: for ``PointRequest.reads``."""
        ...

    def drop(self, marks: Marks) -> None:
        """Forget marks. Gone already is fine; one that nobody can remove now stays."""
        ...

    def actions(self, start: Marks, end: Marks) -> tuple[tuple[Action, ...], tuple[Action, ...]]:
        """The same as ``rotate``, for a point in time to do."""
        ...
