"""What a dead run and its watch left frozen is thawed by the next one. Over libvirt's own driver for tests."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import libvirt
import pytest

from headstart.hypervisor.libvirt.freeze import ThroughLibvirt
from headstart.hypervisor.libvirt.place import Place
from headstart.hypervisor.libvirt.recovery import recover
from headstart.wire import libvirt as wire
from headstart.wire.libvirt import Domain
from tests.hypervisor.libvirt.builtin import URI, UUID

THAWED = ("the guest, frozen by a dead run, was thawed",)


@pytest.fixture
def domain(monkeypatch: pytest.MonkeyPatch) -> Iterator[Domain]:
    """Its driver has no keepalive."""
    wire._serve_events()
    monkeypatch.setattr(wire, "open_connection", libvirt.open)
    with Domain(URI, UUID) as found:
        yield found
        found.order(lambda running: running.fsThaw(None, 0))


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path, "vm")


def freeze(domain: Domain, place: Place) -> ThroughLibvirt:
    through, notes = ThroughLibvirt(domain, None, place.frozen), list[str]()
    through.stand_by(notes)
    assert place.frozen.exists() and through.freeze(notes) and notes == []
    return through


def test_what_was_frozen_by_us_alone_is_thawed_once(domain: Domain, place: Place) -> None:
    """Nothing else of the run was there yet: no job, no file."""
    freeze(domain, place)
    assert recover(domain, place) == THAWED
    domain.order(lambda running: running.fsFreeze(None, 0))
    assert recover(domain, place) == (), "that was not we"
    assert domain.order(lambda running: running.fsThaw(None, 0))


def test_what_was_thawed_leaves_no_note(domain: Domain, place: Place) -> None:
    through = freeze(domain, place)
    assert through.thaw()
    through.stand_down()
    assert not any(place.scratch.iterdir()) and recover(domain, place) == ()


class Spare:
    """The agent in the guest."""

    armed = False

    def arm(self, seconds: float) -> None:
        self.armed = True

    def disarm(self) -> None:
        self.armed = False


@pytest.mark.parametrize("spare", [None, Spare()])
def test_without_a_note_nothing_is_frozen_that_nobody_would_thaw(
    domain: Domain, place: Place, spare: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The scratch directory is full, and the backup needs nothing of it otherwise."""

    def full(path: Path, text: str) -> None:
        path.touch()
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "write_text", full)
    through, notes = ThroughLibvirt(domain, spare, place.frozen), list[str]()
    through.stand_by(notes)
    assert not place.frozen.exists()
    frozen = through.freeze(notes)
    assert frozen == bool(domain.order(lambda running: running.fsThaw(None, 0))) == (spare is not None)
    assert through.thaw() is False
    through.stand_down()
    if spare is None:
        (note,) = notes
        assert note.startswith("nothing was frozen") and "No space left" in note
    else:
        assert notes == [] and not spare.armed


def test_a_guest_that_does_not_answer_is_thawed_later(
    domain: Domain, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    def silent(*_: object) -> None:
        raise libvirt.libvirtError("Guest agent is not responding")

    freeze(domain, place)
    with monkeypatch.context() as patch:
        patch.setattr(libvirt.virDomain, "fsThaw", silent)
        assert recover(domain, place) == ()
    assert recover(domain, place) == THAWED


def test_a_guest_that_was_started_anew_is_let_be(domain: Domain, place: Place) -> None:
    place.frozen.write_text("another start")
    domain.order(lambda running: running.fsFreeze(None, 0))
    assert recover(domain, place) == () and not place.frozen.exists()
    assert domain.order(lambda running: running.fsThaw(None, 0))
