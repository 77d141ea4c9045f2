"""Freezing through the agent; a ``GuestFreezer`` (see headstart.hypervisor.contract)."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from typing import Any

from headstart import errors, plain
from headstart.agentd.filesystems import BUSY
from headstart.guest.channel import Channel, Refused
from headstart.hypervisor.guard_process import FREEZE_SECONDS

#: How long the agent may take to stand by, or to stop that.
ARM_SECONDS = 3.0
#: Names of the guest's that reach a person, and their characters.
SHOWN, SHOWN_LENGTH = 5, 60


class AgentFreezer:
    """``channel`` is used for nothing else meanwhile. The agent's word counts for the consistency of its own
    guest's backup and for nothing else."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._frozen = 0
        self.thaw_order = channel.order("thaw")

    def fileno(self) -> int:
        return self._channel.fileno()

    def freeze(self, seconds: float, notes: list[str]) -> bool | None:
        # The end of this request is told when the guest is thawed; nobody needs to hear it.
        request = 0
        self._frozen = 0
        try:
            request = self._channel.start("freeze", limit=FREEZE_SECONDS)
            told = self._channel.answer(request, seconds)
            self._frozen = _count(told["frozen"])
            skipped = _busy(told.get("skipped", ()))
        except Refused as refusal:
            notes.append(f"nothing was frozen: {refusal}")
            return False
        except errors.Unreachable as error:
            notes.append(str(error))
            return None
        except (KeyError, TypeError, ValueError):
            notes.append("the agent in the guest does not say what it has frozen")
            return None
        finally:
            self._channel.forget(request)
        if skipped:
            notes.append(f"somebody else in the guest has frozen {', '.join(skipped)} and may thaw it at any time")
        elif not self._frozen:
            notes.append("the agent in the guest found no file system to freeze")
        return bool(self._frozen) and not skipped

    def thaw(self, seconds: float) -> bool | None:
        try:
            told = self._channel.ask("thaw", seconds)
            return not told["early"] and _count(told["thawed"]) == self._frozen
        except (errors.HeadstartError, KeyError, TypeError, ValueError):
            return None

    def arm(self, seconds: float) -> None:
        self._channel.ask("arm", ARM_SECONDS, limit=seconds)

    def disarm(self) -> None:
        with contextlib.suppress(errors.HeadstartError):
            self._channel.ask("disarm", ARM_SECONDS)


def _count(told: object) -> int:
    """Raises ``ValueError``."""
    if not isinstance(told, int):
        raise ValueError("no number")
    return told


def _busy(skipped: Sequence[Mapping[str, Any]]) -> list[str]:
    found = [repr(plain.line(str(each["point"]), SHOWN_LENGTH)) for each in skipped if each["why"] == BUSY]
    return found[:SHOWN]
