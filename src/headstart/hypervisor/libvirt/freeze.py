"""Who freezes a domain: qga through libvirt, which owns its channel; else Headstart's own agent."""

from __future__ import annotations

import contextlib
from pathlib import Path

import libvirt

from headstart import errors
from headstart.hypervisor import freeze
from headstart.hypervisor.contract import GuestFreezer, PointRequest
from headstart.hypervisor.freeze import FREEZE_SECONDS, Freezer, ThroughAgent
from headstart.hypervisor.guard import Order
from headstart.hypervisor.libvirt import recovery
from headstart.hypervisor.libvirt.inventory import QGA_PORT, Look
from headstart.wire.libvirt import Domain, Failed, LinkLost


class ThroughLibvirt:
    """``spare`` thaws what qga has frozen if nobody else does."""

    order: Order | None = None

    def __init__(self, domain: Domain, spare: GuestFreezer | None, note: Path) -> None:
        """``note`` exists while the guest may be frozen, for a later run."""
        self._domain = domain
        self._spare = spare
        self._note = note
        #: Somebody thaws, should we and the watch die.
        self._safe = True

    def stand_by(self, notes: list[str]) -> None:
        self._spare = freeze.stand_by(self._spare, notes)
        try:
            recovery.note(self._note, self._domain)
        except errors.NoSpace as error:
            self._safe = self._spare is not None
            if not self._safe:
                notes.append(f"nothing was frozen: {error}")

    def freeze(self, notes: list[str]) -> bool | None:
        if not self._safe:
            return False
        self._wait_at_most(int(FREEZE_SECONDS))
        try:
            number = self._domain.order(lambda domain: domain.fsFreeze(None, 0))
        except (errors.Unreachable, errors.Busy, LinkLost) as error:
            notes.append(str(error))
            return None
        except Failed as error:
            notes.append(f"the guest agent (qga) did not freeze: {error}")
            return False
        if not number:
            notes.append("the guest agent found no file system to freeze")
        return bool(number)

    def thaw(self) -> bool | None:
        if not self._safe:
            return False
        try:
            return bool(self._domain.order(lambda domain: domain.fsThaw(None, 0)))
        except errors.HeadstartError:
            return None
        finally:
            # libvirt does not tell what it was; this is what it is for every domain that starts.
            self._wait_at_most(libvirt.VIR_DOMAIN_AGENT_RESPONSE_TIMEOUT_BLOCK)

    def _wait_at_most(self, seconds: int) -> None:
        with contextlib.suppress(errors.HeadstartError):
            self._domain.order(lambda domain: domain.agentSetResponseTimeout(seconds, 0))

    def stand_down(self) -> None:
        self._note.unlink(missing_ok=True)
        if self._spare is not None:
            self._spare.disarm()


def agent(domain: Domain, seen: Look, request: PointRequest, notes: list[str], note: Path) -> Freezer | None:
    """Who freezes; None if nobody can or it is not wanted. ``note``: see ``ThroughLibvirt``."""
    if not request.freeze:
        return None
    channel = seen.channels.get(QGA_PORT)
    if channel is not None and channel.connected:
        return ThroughLibvirt(domain, request.freezer, note)
    if request.freezer is not None:
        return ThroughAgent(request.freezer)
    notes.append("nothing was frozen: no guest agent (qga) is connected, and Headstart's own does not answer")
    return None
