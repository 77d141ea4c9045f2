"""What drivers have in common that record by overlays: what is wanted, and which segments hold which marks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from headstart import errors, units
from headstart.blocks import Blocks
from headstart.hypervisor import overlays, segmentfile, space
from headstart.hypervisor.contract import Action, Bitmap, Remove, Start, Stop
from headstart.hypervisor.overlays import Place, Segment

#: Of the scratch directory: overlays on devices, beside which nothing can be put.
OVERLAYS = "overlays"
#: Room for what the guest writes to an overlay; a disk that is smaller needs no more than its size.
LEAST_ROOM = units.GIB
#: Of a disk that can have none.
IN_IOTHREAD = "its device is served by an iothread"
#: In place of what is sealed: we are writing to the image, or about to. And: its overlays are being taken off.
UNSEALED, LEAVING = ("unsealed",), ("leaving",)
#: Segments of a disk. A round commits those before it, and adds few: what makes for more has failed as often.
MOST = 32
CHANGED = "somebody wrote to {path}, below the topmost overlay of ours"
LOST = (
    "the overlay {path} has been written to, and the VM does not run on it any longer (was it started from something"
    " else, was the domain defined anew, or did libvirt crash?)"
)


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

    def require_there(self, names: Iterable[str]) -> None:
        for name in names:
            if name not in self.names:
                raise errors.HeadstartError(f"There is no mark {name}.")

    def holding(self, names: Sequence[str]) -> list[Segment]:
        """Where these marks recorded."""
        self.require_there(names)
        return [each for each in self.segments if not set(names).isdisjoint(each.names)]


def recorded(names: Iterable[str], allocated: Mapping[Segment, Blocks]) -> dict[str, Blocks]:
    """What each of these marks recorded, by what is allocated in the segments."""
    return {name: Blocks().union(*(found for each, found in allocated.items() if name in each.names)) for name in names}


def forgotten(removes: Iterable[Remove], stack_of: Callable[[str], Stack]) -> dict[str, list[str]]:
    """The names by disk. Raises ``HeadstartError`` if one is not there."""
    found: dict[str, list[str]] = {}
    for each in removes:
        stack_of(each.disk).require_there([each.name])
        found.setdefault(each.disk, []).append(each.name)
    return found


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


def unbelieved(stack: tuple[Segment, ...]) -> tuple[Segment, ...]:
    """Nothing is recorded in them."""
    return without(stack, [name for each in stack for name in each.names])


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
    return all(segmentfile.is_empty(each.path) for each in stack)


def require_room(folder: Path, size: int) -> None:
    """For one more overlay on a disk of ``size`` bytes. Raises ``NoSpace``."""
    space.require(folder, min(size, LEAST_ROOM), "What the guest writes to an overlay")


def overdue(paths: Sequence[Path]) -> str:
    """Why what these recorded is given up, so that they can be committed; empty if it need not be."""
    if len(paths) <= MOST:
        return ""
    return f"{len(paths)} overlays of ours stand on it, as no round came so far as to commit them: they are given up"


def sealed(place: Place, segments: Sequence[Segment]) -> tuple[str, ...]:
    """What tells later that nobody else has written to what stands below the topmost segment."""
    return tuple(_seal(path) for path in (place.image, *overlays.paths(segments[:-1])))


def _seal(path: Path) -> str:
    return "/".join((path.name, *overlays.facts_of(path)))


def doubt(place: Place, paths: Sequence[Path]) -> str:
    """Why what overlays recorded is not believed; empty if it is. ``paths``: those of the chain, lowest first."""
    seal = place.seal
    if paths and seal not in ((), UNSEALED, LEAVING):
        known = {each.partition("/")[0]: each for each in seal}
        for path in (place.image, *paths):
            if known.get(path.name, "") not in ("", _seal(path)) or (path == paths[-1] and path.name in known):
                return CHANGED.format(path=path)
    return next((LOST.format(path=path) for path in lost(place, paths)), "")


def lost(place: Place, paths: Sequence[Path]) -> list[Path]:
    """Segments that were written to, and have gone from the chain without us: what we commit is noted no more."""
    gone = sorted(place.noted() - set(paths))
    return [path for path in gone if path.exists() and not segmentfile.is_empty(path)]
