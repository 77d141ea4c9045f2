"""What drivers have in common that record by overlays: what is wanted, and marks as overlays have them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from headstart import errors, units
from headstart.hypervisor import space
from headstart.hypervisor.contract import Action, Bitmap, Start, Stop
from headstart.hypervisor.overlays import Place, Segment

#: Of the scratch directory: overlays on devices, beside which nothing can be put.
OVERLAYS = "overlays"
#: Room for what the guest writes to an overlay; a disk that is smaller needs no more than its size.
LEAST_ROOM = units.GIB
#: Of a disk that can have none.
IN_IOTHREAD = "its device is served by an iothread"


@dataclass(frozen=True, slots=True)
class Recording:
    """``wanted``: disks that stand on overlays of ours are recorded by them. ``prepared``: there are to be some to
    start from. ``folder``: for those of devices."""

    installation: str
    folder: Path
    wanted: bool = False
    prepared: bool = False


NOTHING = Recording("", Path("/"))


@dataclass(frozen=True, slots=True)
class Stack:
    """Overlays of ours on a disk, lowest first; none yet where the first is still to be put on. ``form``: of the image
    below."""

    place: Place
    form: str
    segments: tuple[Segment, ...]

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(name for each in self.segments for name in each.names))

    @property
    def recording(self) -> tuple[str, ...]:
        return self.segments[-1].names if self.segments else ()

    def marks(self) -> tuple[Bitmap, ...]:
        """As the contract has them. They are persistent: files say what they are."""
        return tuple(Bitmap(name, name in self.recording, persistent=True) for name in self.names)

    def require_there(self, name: str) -> None:
        if name not in self.names:
            raise errors.HeadstartError(f"There is no mark {name}.")


def by_disk(actions: Iterable[Action]) -> dict[str, tuple[list[str], list[str]]]:
    """Names to start and to stop."""
    found: dict[str, tuple[list[str], list[str]]] = {}
    for each in actions:
        starts, stops = found.setdefault(each.disk, ([], []))
        if isinstance(each, Start):
            starts.append(each.name)
        elif isinstance(each, Stop):
            stops.append(each.name)
    return found


def require_room(folder: Path, size: int) -> None:
    """For one more overlay on a disk of ``size`` bytes. Raises ``NoSpace``."""
    space.require(folder, min(size, LEAST_ROOM), "What the guest writes to an overlay")
