"""The page of all metrics: asked of a host and of a server that have nothing yet."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from prometheus_client.core import Metric

from handbook.markdown import code, table
from headstart.host.caretaker import Caretaker
from headstart.host.house import House
from headstart.host.metrics import Collector
from headstart.host.ward import Ward
from headstart.server import metrics, site
from headstart.server.settings import Settings
from tests.host import home as homes

Row = tuple[str, str, str, str]


def page() -> str:
    with tempfile.TemporaryDirectory() as folder, homes.home() as home:
        place = Path(folder)
        opened = site.open_site(Settings(place, f"sqlite:///{place / 'server.db'}", str(place / "objects")))
        parts = (
            ("Of a host", _rows(Collector(_Host(home.house)).collect())),
            ("Of the server, for the site", _of(metrics.Metrics(opened)._registry)),
            ("Of the server, for a tenant", _rows(metrics._OfTenant(opened, "").collect())),
        )
    head = "# Metrics\n\nWhere each is asked for, and by whom, is in [monitoring](../docs/monitoring.md).\n"
    return head + "".join(f"\n## {title}\n\n{table(('', 'type', 'labels', ''), rows)}" for title, rows in parts)


class _Host:
    """One that has joined a server, and protects nothing."""

    def __init__(self, house: House) -> None:
        self.house = house
        self.wards: dict[str, Ward] = {}
        self.caretaker = Caretaker(house)

    def hangs(self, name: str) -> bool:
        return False

    def server(self) -> dict[str, Any]:
        return {"state": "connected", "seen": 0.0}


def _of(registry: Any) -> Iterator[Row]:
    for collector in registry._collector_to_names:
        labels = getattr(collector, "_labelnames", None)
        yield from _rows(collector.collect()) if labels is None else _rows(collector.describe(), labels)


def _rows(families: Iterable[Metric], labels: Iterable[str] = ()) -> Iterator[Row]:
    for family in families:
        name = f"{family.name}_total" if family.type == "counter" else family.name
        named = getattr(family, "_labelnames", labels)
        yield code(name), family.type, ", ".join(map(code, named)), family.documentation
