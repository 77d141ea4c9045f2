"""A domain that was held goes on, whatever becomes of libvirt meanwhile. Over libvirt's own driver for tests."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import libvirt
import pytest

from headstart import errors
from headstart.restore.booting import hold
from headstart.restore.booting.domain import DomainInstance
from headstart.restore.booting.hold import Hold
from headstart.wire import libvirt as wire
from headstart.wire.libvirt import Domain
from tests.hypervisor.libvirt.builtin import URI, UUID


@pytest.fixture
def instance(monkeypatch: pytest.MonkeyPatch) -> Iterator[DomainInstance]:
    """Its driver has no keepalive."""
    wire._serve_events()
    monkeypatch.setattr(wire, "open_connection", libvirt.open)
    monkeypatch.setattr(hold, "_RETRY_SECONDS", 0.0)
    found = DomainInstance.__new__(DomainInstance)
    with Domain(URI, UUID) as found.domain:
        yield found
        found.go_on()


AWAY = errors.Unreachable("libvirt went away and does not come back.")
RESTARTED = wire.LinkLost("libvirt was restarted.")


@pytest.mark.parametrize("answers", [(AWAY, AWAY), (RESTARTED,)], ids=["away for minutes", "restarted"])
def test_libvirt_goes_away(
    instance: DomainInstance, monkeypatch: pytest.MonkeyPatch, answers: tuple[errors.Unreachable, ...]
) -> None:
    """Before the order to go on is carried out, or after it."""
    order, rest = Domain.order, list(answers)

    def ordered(domain: Domain, what: Any) -> Any:
        if rest and rest[0] is RESTARTED:
            order(domain, what)
        if rest:
            raise rest.pop(0)
        return order(domain, what)

    held = Hold(instance)
    held.begin()
    assert instance.status == "paused"
    monkeypatch.setattr(Domain, "order", ordered)
    held.end()
    assert rest == [] and instance.status == "running"


def test_one_that_is_gone_is_not_waited_for(instance: DomainInstance, monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(*_: Any) -> Any:
        raise wire.Gone("The domain is gone from libvirt.")

    held = Hold(instance)
    held.begin()
    with monkeypatch.context() as patch:
        patch.setattr(Domain, "order", gone)
        with pytest.raises(wire.Gone):
            held.end()
        assert instance.wait(1)
