"""Points from which the changes of a disk are tracked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum


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
