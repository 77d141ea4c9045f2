"""The way to the store is looked at where there is one, and what went over it for our sake is no load."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path

import pytest

from headstart.host.gauge import Gauge
from headstart.host.tally import Tally
from headstart.host.vault import Vault
from headstart.load import machine
from headstart.load.bucket import Bucket
from headstart.load.machine import Sample
from headstart.load.network import Network
from headstart.store.limited import LimitedStore
from headstart.store.memory import MemoryStore
from tests.kit import stores

SPEED = 1e9


class Elsewhere(MemoryStore):
    @property
    def host(self) -> str:
        return "127.0.0.1"


class Card:
    """Of this host: a second passes with each look, in which others send ``others`` bytes."""

    def __init__(self, others: float) -> None:
        self._others = others
        self._seconds = itertools.count()
        self.asked: list[str] = []
        self.ours = 0.0

    def look(self, images: Sequence[Path], interface: str) -> Sample:
        self.asked.append(interface)
        second = next(self._seconds)
        card = Network(0.0, second * self._others + self.ours, SPEED)
        return Sample(float(second), None, {}, card if interface else None, {})


def test_what_others_send_towards_the_store_is_load_and_what_we_send_is_not() -> None:
    card, bucket = Card(others=SPEED / 4), Bucket()
    store = LimitedStore(MemoryStore(), bucket)
    gauge = Gauge(Tally(bucket), card.look, lambda: "eth0")
    gauge.look(None, [])
    assert gauge.look(None, []).values[machine.NETWORK] == 0.25
    store.create("packs/a", bytes(1 << 20))
    card.ours += 1 << 20
    assert gauge.look(None, []).values[machine.NETWORK] == 0.25
    assert set(card.asked) == {"eth0"} and machine.NETWORK not in gauge.missing


@pytest.mark.parametrize(("interface", "missed"), [("", False), ("eth0", True)])
def test_a_network_is_missed_only_where_the_store_is_behind_one(interface: str, missed: bool) -> None:
    nothing = Sample(0.0, None, {}, None, {})
    gauge = Gauge(Tally(Bucket()), lambda images, name: nothing, lambda: interface)
    gauge.look(None, [])
    gauge.look(None, [])
    assert machine.CPU in gauge.missing
    assert (machine.NETWORK in gauge.missing) is missed


@pytest.mark.parametrize(("store", "interface"), [(MemoryStore(), ""), (Elsewhere(), "lo")], ids=["here", "elsewhere"])
def test_the_interface_is_known_once_the_repository_is_open(store: MemoryStore, interface: str) -> None:
    stores.new_repository(store).close()
    vault = Vault(lambda: store, lambda: stores.PASSWORD, Bucket())
    assert vault.interface == ""
    vault.repository().close()
    assert vault.interface == interface
