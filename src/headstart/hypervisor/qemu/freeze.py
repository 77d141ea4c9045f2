"""Who freezes a guest of plain QEMU.

qga where there is one, and Headstart's own agent stands by in the guest to thaw, should all of us die; without
qga the agent does it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from headstart import errors
from headstart.hypervisor import freeze, guard_process
from headstart.hypervisor.contract import GuestFreezer, PointRequest
from headstart.hypervisor.freeze import FREEZE_SECONDS, THAW_SECONDS, Freezer, ThroughAgent
from headstart.hypervisor.guard import Order
from headstart.hypervisor.qemu.site import Site
from headstart.wire.qga import Qga


class ThroughQga:
    """``spare`` thaws what qga has frozen if nobody else does."""

    def __init__(self, qga: Qga, spare: GuestFreezer | None) -> None:
        self.order: Order | None = Order(qga.fileno(), guard_process.QGA_THAW)
        self._qga = qga
        self._spare = spare

    def stand_by(self, notes: list[str]) -> None:
        self._spare = freeze.stand_by(self._spare, notes)

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
