"""The daemon and an agent that is an enemy: it is told, remembered, and used no longer, or on as the policy says."""

from __future__ import annotations

import functools
import logging
from collections.abc import Iterator
from dataclasses import replace

import pytest

from headstart.backup.complete import Options
from headstart.backup.transport import Transport
from headstart.cli import status
from headstart.host import requests
from headstart.host.policy import FalseAudit, HeadStart
from headstart.state.runs import Runs
from tests.guest import enemy as enemies
from tests.guest.enemy import Enemy, Held
from tests.host import home as homes
from tests.host.home import HOUR, MIDNIGHT, NIGHTLY, Home
from tests.kit.waiting import wait_until

TWO = MIDNIGHT + 2 * HOUR
DAY = 24 * HOUR


@pytest.fixture
def home() -> Iterator[Home]:
    with homes.home() as made:
        made.add("web")
        yield made


def with_policy(home: Home, after: FalseAudit) -> None:
    ahead = HeadStart((Transport.AGENT, Transport.HOST), None, 900.0, after)
    home.config = replace(home.config, policies={"nightly": replace(NIGHTLY, head_start=ahead, audit=None)})


def enemy(home: Home) -> Enemy:
    vm = home.vms["web"]
    made = Enemy(home.folder / "agent", enemies.FalseContent(), {"vda": Held("a", functools.partial(vm.data, "a"))})
    with home.journal.change() as database:
        database.execute("UPDATE vms SET agent = ?", (made.address,))
    return made


def day(home: Home, number: int) -> None:
    """Rounds in the night until one has copied what was written, and the backup at two."""
    home.now = MIDNIGHT + number * DAY + HOUR
    for block in range(0, 8, 2):
        home.vms["web"].write("a", block)
    before = len(transports(home))
    wait_until(lambda: home.pass_time(60) and len(transports(home)) > before)
    assert home.now < TWO + number * DAY
    home.now = TWO + number * DAY
    wait_until(lambda: len(home.snapshots()) > number)
    assert home.content(home.snapshots()[-1]) == home.vms["web"].data("a")


def transports(home: Home) -> list[str]:
    """Of the rounds that copied something, oldest first."""
    runs = [run.report for run in reversed(Runs(home.journal).newest("web", 1000)) if run.verb == "precopy"]
    return [report["transport"] for report in runs if report.get("copied_bytes")]


def test_it_reads_nothing_until_it_is_trusted(home: Home, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "headstart.host")
    with_policy(home, FalseAudit.DISTRUST)
    with enemy(home), home.serving():
        for number in range(3):
            if number == 2:
                home.journal.trust("web")
            day(home, number)
        assert transports(home) == ["agent", "host", "agent"]
    assert caplog.text.count("event=agent-false") == 2 and "trusted=no" in caplog.text
    assert "not trusted since" in caplog.text, "told with the rounds that are read from outside"
    [told] = status._warnings([status._values(home.journal, "web", None)])
    assert told.startswith("web: its agent is not trusted since") and "'headstart agent trust web'" in told


def test_or_goes_on_where_the_policy_wants_a_report(home: Home, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "headstart.host")
    with_policy(home, FalseAudit.REPORT)
    with enemy(home), home.serving():
        for number in range(2):
            day(home, number)
        assert transports(home) == ["agent", "agent"]
    assert caplog.text.count("event=agent-false") == 2 and "trusted=no" not in caplog.text
    assert status._warnings([status._values(home.journal, "web", None)]) == []


def test_a_backup_that_is_ordered_follows_the_policy(home: Home) -> None:
    """Not what the command line knows nothing of."""
    with_policy(home, FalseAudit.REPORT)
    with enemy(home), home.serving():
        wait_until(lambda: transports(home) == ["agent"])
        told = home.ask("backup", vm="web", options=requests.options_json(Options(audit=None)))
        assert told["audit"]["agent_mismatched_bytes"] > 0
    assert home.journal.distrusted("web") is None
