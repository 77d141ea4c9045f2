"""The moment before a point in time: file systems frozen, if somebody in the guest can, and thawed again.

qga freezes where there is one, and Headstart's own agent stands by in the guest to thaw, should all of us die; without
qga the agent does it. Freezing is the better backup, not a condition of one: without an answer the point
in time is crash-consistent, and ``notes`` say why.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Protocol

from headstart import errors
from headstart.hypervisor import guard_process
from headstart.hypervisor.contract import GuestFreezer, PointRequest
from headstart.hypervisor.guard import Guard, Order
from headstart.hypervisor.qemu.site import Site
from headstart.wire.qga import Qga

#: How long whoever freezes may take: sync of a busy guest. The guard thaws after 10 s in any case.
FREEZE_SECONDS = 8.0
THAW_SECONDS = 5.0


@dataclass
class Freeze:
    """What the freeze came to. ``seconds`` is from the order to freeze until the guest is thawed."""

    consistency: str = "crash"
    seconds: float = 0.0
    began: float = field(default_factory=time.monotonic)


class Freezer(Protocol):
    #: What the guard sends if we cannot.
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


class ThroughQga:
    """``spare`` thaws what qga has frozen if nobody else does."""

    def __init__(self, qga: Qga, spare: GuestFreezer | None) -> None:
        self.order: Order | None = Order(qga.fileno(), guard_process.QGA_THAW)
        self._qga = qga
        self._spare = spare

    def stand_by(self, notes: list[str]) -> None:
        if self._spare is not None:
            try:
                self._spare.arm(guard_process.FREEZE_SECONDS)
            except errors.HeadstartError as error:
                self._spare = None
                notes.append(f"the agent in the guest does not stand by to thaw it: {error}")

    def freeze(self, notes: list[str]) -> bool | None:
        try:
            frozen = bool(self._qga.execute("guest-fsfreeze-freeze", FREEZE_SECONDS))
        except errors.Unreachable as error:
            notes.append(str(error))
            return None
        if not frozen:
            notes.append("the guest agent found no file system to freeze")
        return frozen

    def thaw(self) -> bool | None:
        try:
            return bool(self._qga.execute("guest-fsfreeze-thaw", THAW_SECONDS))
        except errors.Unreachable:
            return None

    def stand_down(self) -> None:
        if self._spare is not None:
            self._spare.disarm()


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


@contextlib.contextmanager
def agent(site: Site, request: PointRequest, notes: list[str]) -> Iterator[Freezer | None]:
    """Who freezes, found before anything is stopped; None if nobody can or it is not wanted."""
    qga = _qga(site, notes) if request.freeze else None
    try:
        if qga is not None:
            yield ThroughQga(qga, request.freezer)
        elif request.freeze and request.freezer is not None:
            yield ThroughAgent(request.freezer)
        else:
            yield None
    finally:
        if qga is not None:
            qga.close()


def _qga(site: Site, notes: list[str]) -> Qga | None:
    if site.qga is None:
        return None
    try:
        return Qga(site.qga)
    except errors.Unreachable as error:
        notes.append(str(error))
        return None


@contextlib.contextmanager
def frozen(guard: Guard, freezer: Freezer | None, notes: list[str]) -> Iterator[Freeze]:
    """Inside, the guest's file systems are frozen; ``began`` is when the order went out."""
    outcome = Freeze()
    if freezer is None:
        yield outcome
        return
    freezer.stand_by(notes)
    froze = thawed = None
    with contextlib.suppress(_Unsure), guard.freezing():
        outcome.began = time.monotonic()
        froze = freezer.freeze(notes)
        try:
            yield outcome
        finally:
            thawed = freezer.thaw()
            outcome.seconds = time.monotonic() - outcome.began
            if thawed is not None:
                freezer.stand_down()
        if froze is None or thawed is None:
            raise _Unsure
    if froze and thawed:
        outcome.consistency = "filesystem"
    elif froze:
        # The guard's or the guest's own deadline was faster than we.
        notes.append("the guest was thawed before the point in time stood")


class _Unsure(Exception):
    """Nobody answered: whether the guest is frozen is not known. Leaves the guard armed, which thaws (again)."""
