"""What happens during one run of the program in a simulated world, beside what it does itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

if TYPE_CHECKING:
    from tests.kit.world import World

Place = Literal["step", "commit", "create"]


class Event(Protocol):
    """Something that the guest or the owner does. ``disturbs``: a run may fail because of it."""

    @property
    def disturbs(self) -> bool: ...

    def happen(self, world: World) -> None: ...


@dataclass(frozen=True, slots=True)
class Death:
    """The program ends at the ``number``-th step, commit or creation of a run, before or after that is done."""

    place: Place
    number: int
    after: bool = False
    #: The guard process survives, and undoes a stop or a freeze.
    guarded: bool = True


@dataclass(frozen=True, slots=True)
class Cut:
    """The connection to the VM ends at the ``number``-th step. ``hangs``: after a time-out. ``late``: if that step is
    an order to the bitmaps, it is carried out after the program has given up."""

    number: int
    hangs: bool = False
    late: bool = False


#: No creation from then on succeeds; one succeeds, and its answer is lost, then as before; one is done, and tried again
#: by whoever is in between; one is acknowledged, and lost.
Trouble = Literal["fails", "answer lost", "twice", "object lost"]


@dataclass(frozen=True, slots=True)
class Outage:
    """The store fails at the ``number``-th creation of a run, and, unless it is ``passing``, from then on."""

    number: int
    trouble: Trouble = "fails"
    passing: bool = False


@dataclass(frozen=True, slots=True)
class Misread:
    """The ``number``-th read of an object fails, or (``spoilt``) one bit of what it gives is wrong."""

    number: int
    spoilt: bool = False


#: What the agent does at a piece of a disk: it goes away; refuses; tells a content that the disk does not have. Or it
#: never answers.
Vice = Literal["vanishes", "refuses", "lies", "is absent"]


@dataclass(frozen=True, slots=True)
class Collecting:
    """A collector of garbage comes by at the ``number``-th creation, half a day after the last one. ``forgets``: a
    snapshot (by its place in the list) is forgotten before. ``asleep``: so much time has passed that the draft counts
    as dead. ``hasty``: it waits for nothing, and may take what a run has put, and told nobody."""

    number: int
    forgets: int | None = None
    asleep: bool = False
    hasty: bool = False


@dataclass(frozen=True, slots=True)
class AgentScript:
    """An agent answers. With a ``vice`` it has that from its ``number``-th piece on."""

    vice: Vice | None = None
    number: int = 1


@dataclass(frozen=True, slots=True)
class Script:
    """What happens at which step of a run; how the program, its connection, the store or the agent end it."""

    between: tuple[tuple[int, Event], ...] = ()
    death: Death | None = None
    outage: Outage | None = None
    cut: Cut | None = None
    misread: Misread | None = None
    agent: AgentScript | None = None
    collecting: tuple[Collecting, ...] = ()
    #: The clock is set by so many seconds while the run is under way.
    clock: float = 0.0
    #: At this step what the run before had reported as copied is reported again; 0: not.
    repeated: int = 0

    @property
    def disturbs(self) -> bool:
        ours = (self.death, self.outage, self.cut, self.misread)
        unfair = any(each.asleep or each.hasty for each in self.collecting)
        return any(ours) or unfair or any(event.disturbs for _, event in self.between)
