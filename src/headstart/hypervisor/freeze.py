"""The moment before a point in time: file systems frozen, if somebody in the guest can, and thawed again.

Freezing is the better backup, not a condition of one: without an answer the point in time is crash-consistent,
and ``notes`` say why.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Protocol

from headstart import errors
from headstart.hypervisor import guard_process
from headstart.hypervisor.contract import GuestFreezer
from headstart.hypervisor.guard import Order

#: How long whoever freezes may take: sync of a busy guest. The guard thaws after 9 s in any case.
FREEZE_SECONDS = 8.0
THAW_SECONDS = 5.0


@dataclass
class Freeze:
    """What the freeze came to. ``freeze_seconds`` is from the order to freeze until the guest is thawed."""

    consistency: str = "crash"
    freeze_seconds: float = 0.0
    began: float = field(default_factory=time.monotonic)


class Guarding(Protocol):
    """Whoever thaws if we cannot."""

    def freezing(self) -> contextlib.AbstractContextManager[None]:
        """Inside, the guest may be frozen by us. Left by an error, it thaws."""
        ...


class _Froze(Protocol):
    """A freeze, or a point in time that was made in one."""

    @property
    def freeze_seconds(self) -> float: ...


class Freezer(Protocol):
    #: What a guard can send if we cannot; None where it has another way.
    order: Order | None

    def stand_by(self, notes: list[str]) -> None:
        """Before the guest feels anything."""
        ...

    def freeze(self, notes: list[str]) -> bool | None:
        """Whether all was frozen; None if that is not known."""
        ...

    def thaw(self) -> bool | None:
        """Whether it was still frozen; None if that is not known."""
        ...

    def stand_down(self) -> None:
        """The guest is thawed."""
        ...


class ThroughAgent:
    """It thaws by itself when we are gone, and after 10 s."""

    def __init__(self, agent: GuestFreezer) -> None:
        self._agent = agent
        self.order: Order | None = Order(agent.fileno(), agent.thaw_order) if agent.thaw_order else None

    def stand_by(self, notes: list[str]) -> None:
        pass

    def freeze(self, notes: list[str]) -> bool | None:
        return self._agent.freeze(FREEZE_SECONDS, notes)

    def thaw(self) -> bool | None:
        return self._agent.thaw(THAW_SECONDS)

    def stand_down(self) -> None:
        pass


def stand_by(spare: GuestFreezer | None, notes: list[str]) -> GuestFreezer | None:
    """Let the agent in the guest thaw what somebody else freezes, should all of us die; None if it does not."""
    if spare is not None:
        try:
            spare.arm(guard_process.FREEZE_SECONDS)
        except errors.HeadstartError as error:
            notes.append(f"the agent in the guest does not stand by to thaw it: {error}")
            return None
    return spare


@contextlib.contextmanager
def frozen(guard: Guarding, freezer: Freezer | None, notes: list[str]) -> Iterator[Freeze]:
    """Inside, the guest's file systems are frozen; ``began`` is when the order went out."""
    outcome = Freeze()
    if freezer is None:
        yield outcome
        return
    freezer.stand_by(notes)
    froze = thawed = None
    with telling(outcome), contextlib.suppress(_Unsure), guard.freezing():
        outcome.began = time.monotonic()
        froze = freezer.freeze(notes)
        try:
            yield outcome
        finally:
            thawed = freezer.thaw()
            outcome.freeze_seconds = time.monotonic() - outcome.began
            if thawed is not None:
                freezer.stand_down()
        if froze is None or thawed is None:
            raise _Unsure
    if froze and thawed:
        outcome.consistency = "filesystem"
    elif froze:
        # The guard's or the guest's own deadline was faster than we.
        notes.append("the guest was thawed before the point in time stood")


@contextlib.contextmanager
def telling(froze: _Froze) -> Iterator[None]:
    """What fails inside tells for how long the guest was frozen for it (``facts``: ``freeze_seconds``)."""
    try:
        yield
    except errors.HeadstartError as error:
        error.facts.setdefault("freeze_seconds", froze.freeze_seconds)
        raise


class _Unsure(Exception):
    """Nobody answered: whether the guest is frozen is not known. Leaves the guard armed, which thaws (again)."""
