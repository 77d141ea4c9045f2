"""The moment before a point in time: file systems frozen, if the guest has an agent, and thawed again.

Freezing is the better backup, not a condition of one: without an answer of the agent the point in
time is crash-consistent, and ``notes`` say why.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

from headstart import errors
from headstart.hypervisor.guard import Guard
from headstart.hypervisor.qemu.site import Site
from headstart.wire.qga import Qga

#: How long the agent may take to freeze: sync of a busy guest. The guard thaws after 10 s in any case.
FREEZE_SECONDS = 8.0
THAW_SECONDS = 5.0


@dataclass
class Freeze:
    """What the freeze came to. ``seconds`` is from the order to freeze until the guest is thawed."""

    consistency: str = "crash"
    seconds: float = 0.0
    began: float = field(default_factory=time.monotonic)


@contextlib.contextmanager
def agent(site: Site, wanted: bool, notes: list[str]) -> Iterator[Qga | None]:
    """A connection to qga, made before anything is stopped; None if there is none that answers."""
    found = None
    if wanted and site.qga is not None:
        try:
            found = Qga(site.qga)
        except errors.Unreachable as error:
            notes.append(str(error))
    try:
        yield found
    finally:
        if found is not None:
            found.close()


@contextlib.contextmanager
def frozen(guard: Guard, qga: Qga | None, notes: list[str]) -> Iterator[Freeze]:
    """Inside, the guest's file systems are frozen; ``began`` is when the order went out."""
    outcome = Freeze()
    if qga is None:
        yield outcome
        return
    froze = thawed = None
    with contextlib.suppress(_Unsure), guard.freezing():
        outcome.began = time.monotonic()
        froze = _freeze(qga, notes)
        try:
            yield outcome
        finally:
            thawed = _thaw(qga)
            outcome.seconds = time.monotonic() - outcome.began
        if froze is None or thawed is None:
            raise _Unsure
    if froze and thawed:
        outcome.consistency = "filesystem"
    elif froze:
        # The guard's or the guest's own deadline was faster than we.
        notes.append("the guest was thawed before the point in time stood")


class _Unsure(Exception):
    """The agent did not answer: whether the guest is frozen is not known. Leaves the guard armed, which
    thaws (again)."""


def _freeze(qga: Qga, notes: list[str]) -> bool | None:
    """Whether something was frozen; None if that is not known."""
    try:
        frozen = bool(qga.execute("guest-fsfreeze-freeze", FREEZE_SECONDS))
    except errors.Unreachable as error:
        notes.append(str(error))
        return None
    if not frozen:
        notes.append("the guest agent found no file system to freeze")
    return frozen


def _thaw(qga: Qga) -> bool | None:
    """Whether something was still frozen; None if that is not known."""
    try:
        return bool(qga.execute("guest-fsfreeze-thaw", THAW_SECONDS))
    except errors.Unreachable:
        return None
