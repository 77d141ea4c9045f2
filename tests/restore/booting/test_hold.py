"""A guest goes on if it was we who held it."""

from __future__ import annotations

import pytest

from headstart import errors
from headstart.restore.booting import attendance, hold
from headstart.restore.booting.hold import Hold


class Guest:
    """What it does is noted; orders fail with these, one after the other."""

    def __init__(self, *failures: errors.HeadstartError, status: str = "running") -> None:
        self.failures = list(failures)
        self.status = status
        self.orders: list[str] = []
        self.ended = self.stays = False

    @property
    def runs(self) -> bool:
        return self.status in ("running", "io-error")

    def stop(self) -> None:
        self._order("stop", "paused")

    def go_on(self) -> None:
        self._order("cont", "running")

    def resume(self) -> None:
        self.go_on()

    def wait(self, seconds: float) -> bool:
        return self.ended

    def power_off(self, seconds: float) -> bool:
        self._order("power off", "")
        return True

    def _order(self, order: str, becomes: str) -> None:
        self.orders.append(order)
        if self.failures:
            raise self.failures.pop(0)
        self.status = becomes


def unanswered() -> errors.Unreachable:
    return errors.Unreachable("QEMU's monitor did not answer.")


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hold, "_RETRY_SECONDS", 0.0)


@pytest.mark.parametrize(("status", "orders"), [("running", 2), ("io-error", 2), ("paused", 0), ("prelaunch", 0)])
def test_one_that_a_failed_request_holds_goes_on_as_well(status: str, orders: int) -> None:
    """On the new image what it waits for is there, and nobody attends to it any longer."""
    guest = Guest(status=status)
    held = Hold(guest)
    held.begin()
    held.end()
    assert guest.orders == ["stop", "cont"][:orders]


def test_a_stop_that_is_not_answered_comes_in_the_end(caplog: pytest.LogCaptureFixture) -> None:
    guest = Guest(unanswered(), unanswered(), errors.Busy("It is busy."))
    held = Hold(guest)
    with pytest.raises(errors.Unreachable):
        held.begin()
    held.end()
    assert guest.orders == ["stop", "cont", "cont", "cont"] and guest.status == "running"
    assert len(caplog.records) == 1


@pytest.mark.parametrize("ended", [True, False])
def test_one_that_has_ended_is_not_waited_for(ended: bool) -> None:
    guest = Guest()
    held = Hold(guest)
    held.begin()
    guest.failures.append(unanswered())
    guest.ended = ended
    with pytest.raises(errors.Unreachable):
        held.end(hold.PATIENCE_SECONDS if ended else 0)
    assert guest.orders == ["stop", "cont"]


@pytest.mark.parametrize(("stays", "kept", "orders"), [(True, False, ["cont"]), (False, True, []), (False, False, [])])
def test_ended_by_the_user_while_its_disks_go_over(stays: bool, kept: bool, orders: list[str]) -> None:
    """One that has moved goes on; another one ends with us, with its overlays of one moment."""
    guest = Guest()
    held = Hold(guest)
    held.begin()
    guest.stays = stays
    attendance.leave(guest, held, kept=kept)
    assert guest.orders == ["stop", *orders]


def test_one_that_has_moved_and_cannot_be_let_go_on_is_told(caplog: pytest.LogCaptureFixture) -> None:
    guest = Guest()
    held = Hold(guest)
    held.begin()
    guest.stays, guest.failures = True, [unanswered()]
    attendance.leave(guest, held, kept=False)
    assert "stands still" in caplog.text and "'cont' on its monitor" in caplog.text


@pytest.mark.parametrize(
    ("stays", "kept", "orders"), [(True, False, []), (False, True, ["power off"]), (False, False, [])]
)
def test_ended_by_the_user_while_it_runs(stays: bool, kept: bool, orders: list[str]) -> None:
    guest = Guest()
    guest.stays = stays
    attendance.leave(guest, Hold(guest), kept=kept)
    assert guest.orders == orders
