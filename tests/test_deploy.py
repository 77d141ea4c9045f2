"""What is shipped beside the program: alerts, dashboard, units. They name metrics and verbs that are there."""

from __future__ import annotations

import configparser
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from headstart.host import metrics as of_host
from headstart.server import metrics as of_server
from headstart.server.settings import Settings
from headstart.server.site import open_site

ROOT = Path(__file__).parents[1]
DEPLOY = ROOT / "deploy"
PROMTOOL = ROOT / "build" / "promtool"  # scripts/setup puts it there
ALERTS, BOARD = DEPLOY / "prometheus" / "alerts.yml", DEPLOY / "grafana" / "headstart.json"
UNITS = sorted((DEPLOY / "systemd").glob("*.service"))
_NAME = re.compile(r"\bheadstart_[a-z_0-9]+")


def queries(found: Any) -> Iterator[str]:
    if isinstance(found, dict):
        for name, value in found.items():
            if name in ("expr", "query") and isinstance(value, str):
                yield value
            yield from queries(value)
    elif isinstance(found, list):
        for each in found:
            yield from queries(each)


def scraped(page: bytes) -> Iterator[str]:
    """The names that queries may ask for."""
    for family in text_string_to_metric_families(page.decode()):
        if family.type == "histogram":
            yield from (f"{family.name}_{end}" for end in ("count", "sum", "bucket"))
        yield f"{family.name}_total" if family.type == "counter" else family.name


@pytest.fixture(scope="module")
def known(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """Of a server and a host without anything in them: what they would tell is named all the same."""
    folder = tmp_path_factory.mktemp("known")
    site = open_site(Settings(folder, f"sqlite:///{folder / 'server.db'}", str(folder / "objects")))
    host = mock.Mock(wards={}, server=lambda: {"state": "connected", "seen": 1.0})
    host.house.clock.return_value = 2.0
    host.caretaker.failing = False
    host.house.rounds.waiting = host.house.backups.waiting = host.house.rounds.taken = host.house.backups.taken = 0
    registry = CollectorRegistry()
    registry.register(of_host.Collector(host))
    pages = (of_server.Metrics(site).page(), of_server.of_tenant(site, "x"), generate_latest(registry))
    return {name for page in pages for name in scraped(page)}


def test_alerts_ask_for_metrics_that_are_there(known: set[str]) -> None:
    text = "\n".join(line for line in ALERTS.read_text().splitlines() if not line.lstrip().startswith("#"))
    asked = set(_NAME.findall(text))
    assert len(asked) > 12 and not asked - known


def test_the_dashboard_asks_for_metrics_that_are_there(known: set[str]) -> None:
    board = json.loads(BOARD.read_text())
    asked = {name for query in queries(board) for name in _NAME.findall(query)}
    assert len(asked) > 20 and not asked - known
    ids = [panel["id"] for panel in board["panels"]]
    assert len(ids) == len(set(ids))


def test_alerts_do_what_they_mean() -> None:
    for what, file in (("check", "alerts.yml"), ("test", "alerts-test.yml")):
        done = subprocess.run(
            [PROMTOOL, what, "rules", file], cwd=ALERTS.parent, capture_output=True, text=True, timeout=60
        )
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
def test_units_start_what_there_is(unit: Path, tmp_path: Path) -> None:
    text = unit.read_text()
    parser = configparser.RawConfigParser(strict=False, allow_no_value=True)
    parser.optionxform = str  # type: ignore[assignment, method-assign]
    parser.read_string(text)
    words = parser["Service"]["ExecStart"].split()
    assert words[0] == "/usr/bin/headstart"
    command = [sys.executable, "-m", "headstart", *words[1:], "--help"]
    subprocess.run(command, check=True, capture_output=True, timeout=60)
    if shutil.which("systemd-analyze"):
        # The program need not be installed here.
        (tmp_path / unit.name).write_text(text.replace("/usr/bin/headstart", "/bin/true"))
        done = subprocess.run(
            ["systemd-analyze", "verify", "--man=no", str(tmp_path / unit.name)],
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 0, done.stderr
