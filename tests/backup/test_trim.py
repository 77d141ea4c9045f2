"""Waiting for a guest that trims ends when something else comes first."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from headstart.agentd import messages
from headstart.backup import trim
from headstart.backup.context import Context
from headstart.guest.agent import Agent
from headstart.guest.channel import Channel
from headstart.load.throttle import Halted
from headstart.state.journal import Journal
from headstart.state.values import Vm
from tests.guest import hostile
from tests.guest.hostile import Guest
from tests.wire import scripted
from tests.wire.scripted import mute


def test_by_whomever(tmp_path: Path) -> None:
    """The other one is not asked instead."""
    beats: list[float] = []

    def beat() -> None:
        beats.append(time.monotonic())
        if len(beats) % 2 == 0:
            raise Halted("the backup is due")

    def never(guest: Guest) -> None:
        guest.next(messages.ASK)
        guest.next(messages.CREDIT)

    with Journal.open(tmp_path) as journal, hostile.playing(never) as link, scripted.listening(mute) as qga:
        context = Context(journal, None, tmp_path, beat=beat, agent=lambda address: Agent(Channel(link)))
        journal.add_vm(Vm("both", None, agent="unix:agent", qga=tmp_path / "nobody"))
        journal.add_vm(Vm("outside", None, qga=qga))
        for name in ("both", "outside"):
            with pytest.raises(Halted):
                trim.trim(context, name)
    assert len(beats) == 4
