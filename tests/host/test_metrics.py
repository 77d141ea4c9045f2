"""What a host tells Prometheus."""

from __future__ import annotations

import socket
import urllib.request
from dataclasses import replace
from unittest import mock

import pytest
from prometheus_client.parser import text_string_to_metric_families

from headstart import errors
from headstart.backup.complete import Completing
from headstart.host import metrics
from headstart.host.policy import Host
from headstart.restore.serving.places import Tcp
from headstart.state.runs import Runs
from tests.host import home as homes
from tests.host.home import HOUR, MIDNIGHT, Home
from tests.kit.ports import free_port
from tests.kit.waiting import wait_until

TWO = MIDNIGHT + 2 * HOUR
Found = dict[tuple[str, tuple[tuple[str, str], ...]], float]


home = homes.fresh


def scraped(port: int) -> Found:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=20) as answer:
        families = text_string_to_metric_families(answer.read().decode())
    return {
        (sample.name.removeprefix("headstart_host_"), tuple(sample.labels.items())): sample.value
        for family in families
        for sample in family.samples
    }


def test_a_host_tells_of_its_vms(home: Home) -> None:
    port = free_port()
    home.config = replace(home.config, host=Host(metrics=Tcp("127.0.0.1", port)))
    vm, web = home.add("web"), (("vm", "web"),)
    with home.serving() as served:
        wait_until(lambda: "precopy" in home.verbs())
        found = scraped(port)
        assert found["vms", ()] == 1 and ("vm_age_seconds", web) not in found
        assert found["vm_due_timestamp_seconds", web] == TWO and found["vm_failing", web] == 0
        assert found["queue", (("verb", "backup"),)] == 0
        assert found["forget_failing", ()] == 0
        served.caretaker.failing = True
        assert scraped(port)["forget_failing", ()] == 1
        assert not any(name.startswith("server_") for name, _ in found), "it has joined none"
        vm.write("a", 3)
        home.now = TWO
        wait_until(lambda: home.snapshots() and home.status()["due"] == TWO + 24 * HOUR)
        home.now = TWO + 600
        found = scraped(port)
        assert found["vm_last_success_timestamp_seconds", web] == TWO and found["vm_age_seconds", web] == 600
        report = next(run.report for run in Runs(home.journal).newest("web", 100) if run.verb == "backup")
        assert found["vm_window_seconds", web] == report["window_seconds"]
        disk = report["disks"][0]
        for name in ("changed_bytes", "precopied_bytes", "residue_bytes"):
            assert found[f"vm_{name}", web] == disk[name]
        assert 0 < found["vm_ahead_ratio", web] <= 1
        # The next one fails.
        with mock.patch.object(Completing, "run", side_effect=errors.HookFailed("no")):
            home.now = TWO + 24 * HOUR
            wait_until(lambda: scraped(port)["vm_failing", web] == 1)
        found = scraped(port)
        assert found["vm_failures", web] >= 1 and found["vm_last_success_timestamp_seconds", web] == TWO
        wait_until(lambda: home.pass_time(60) and scraped(port)["vm_failing", web] == 0)
        assert scraped(port)["vm_last_success_timestamp_seconds", web] > TWO
    with pytest.raises(OSError):
        scraped(port)


def test_a_port_in_use_is_told(home: Home) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        place = Tcp("127.0.0.1", listener.getsockname()[1])
        with pytest.raises(errors.Usage, match="in use"), metrics.serving(mock.Mock(), place):
            pass


def test_how_it_stands_with_the_server() -> None:
    away = {"state": "away", "seen": 100.0}
    told = {each.name: each.samples[0].value for each in metrics._of_server(away, 160.0)}
    assert told == {"headstart_host_server_connected": 0, "headstart_host_server_silence_seconds": 60}
    told = {each.name: each.samples[0].value for each in metrics._of_server({"state": "connected", "seen": 1.0}, 9.0)}
    assert told == {"headstart_host_server_connected": 1, "headstart_host_server_silence_seconds": 0}
