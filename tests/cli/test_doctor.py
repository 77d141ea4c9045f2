"""``headstart doctor``: what is broken is found, whatever else is broken, and nothing is changed."""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from headstart.host.doctor import machine
from headstart.host.doctor.finding import Finding
from headstart.state.journal import Journal
from headstart.state.runs import Runs
from headstart.state.values import Point, Vm
from headstart.units import MIB
from tests.cli import console
from tests.cli.shelf import Shelf
from tests.e2e import bare
from tests.e2e.agents import wait_for_agentd
from tests.kit.cli import Cli
from tests.kit.vm import Vm as Machine

POLICY = '[policy.nightly]\nschedule = { calendar = "02:30", timezone = "UTC" }\n'


class Told:
    """Findings of one run."""

    def __init__(self, cli: Cli, *words: str | Path, status: int = 27, **environment: str) -> None:
        outcome = console.inside(cli, "--json", "doctor", *words, environment=environment)
        assert outcome.status == status, outcome.stdout + outcome.stderr
        self.findings: list[dict[str, Any]] = outcome.json["findings"]
        assert outcome.json["problems"] == sum(each["level"] == "problem" for each in self.findings)
        assert "Traceback" not in outcome.stderr

    def one(self, check: str, what: str, level: str, vm: str | None = None) -> dict[str, Any]:
        found = [each for each in self.findings if each["check"] == check and what in each["what"] and each["vm"] == vm]
        assert len(found) == 1, json.dumps(self.findings, indent=1)
        assert found[0]["level"] == level, found[0]
        return found[0]


@contextlib.contextmanager
def mounted(folder: Path, *options: str) -> Iterator[None]:
    folder.mkdir(parents=True, exist_ok=True)
    done = subprocess.run(["mount", *options, folder], capture_output=True)
    if done.returncode != 0:
        pytest.skip(f"cannot mount here: {done.stderr.decode().strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


def files(cli: Cli) -> list[str]:
    return sorted(str(path) for path in cli.repository.parent.rglob("*"))


# -- the host


def test_where_nothing_is_yet(cli: Cli) -> None:
    before = files(cli)
    told = Told(cli)
    assert told.one("repository", "There is no repository", "problem")["advice"].endswith("headstart init")
    told.one("state", "no state yet", "note")
    assert files(cli) == before, "looking makes nothing"


def test_a_host_that_is_ready(shelf: Shelf, tmp_path: Path) -> None:
    with Journal.open(shelf.cli.state):
        pass
    (tmp_path / "headstart.toml").write_text(POLICY)
    told = Told(shelf.cli, "--config", tmp_path / "headstart.toml", status=0)
    told.one("password", "it opens the repository", "ok")
    told.one("configuration", "1 policy, no mistakes", "ok")
    told.one("daemon", "nobody makes the backups that are scheduled", "warning")


def test_text_is_a_line_a_finding_with_the_advice_below(cli: Cli) -> None:
    outcome = console.run(cli, "doctor")
    assert outcome.status == 27
    lines = outcome.stdout.splitlines()
    place = next(number for number, line in enumerate(lines) if line.startswith("problem  repository: There is no"))
    assert lines[place + 1].startswith("           Check the address")
    assert outcome.stderr == "headstart: 1 problem to be mended.\n"


def test_a_wrong_password_is_no_reason_to_end(shelf: Shelf) -> None:
    told = Told(shelf.cli, HEADSTART_PASSWORD="wrong")
    told.one("password", "password", "problem")
    told.one("repository", "can be reached", "ok")


def test_without_a_password_nobody_is_asked(shelf: Shelf) -> None:
    Told(shelf.cli, status=0, HEADSTART_PASSWORD="").one("password", "nobody named a password", "warning")


def test_a_repository_that_cannot_be_written(shelf: Shelf) -> None:
    folder = shelf.cli.repository
    with mounted(folder, "--bind", str(folder)):
        subprocess.run(["mount", "-o", "remount,bind,ro", folder], check=True)
        told = Told(shelf.cli)
        told.one("repository", "is mounted read-only", "problem")
        told.one("password", "it opens the repository", "ok")


def test_scratch_in_memory_and_full(shelf: Shelf) -> None:
    with mounted(shelf.cli.scratch, "-t", "tmpfs", "-o", f"size={320 * MIB}", "tmpfs"):
        told = Told(shelf.cli, status=0)
        told.one("scratch", "is on tmpfs", "warning")
        told.one("scratch", "may be needed (no backup has told yet)", "warning")
    with mounted(shelf.cli.scratch, "-t", "tmpfs", "-o", f"size={320 * MIB}", "tmpfs"):
        (shelf.cli.scratch / "others").write_bytes(bytes(280 * MIB))
        Told(shelf.cli).one("scratch", "MiB free, and", "problem")


def test_a_state_of_a_newer_version_hides_nothing_else(shelf: Shelf) -> None:
    with Journal.open(shelf.cli.state) as journal, journal.change() as database:
        database.execute("PRAGMA user_version = 99")
    told = Told(shelf.cli)
    told.one("state", "newer Headstart (version 99", "problem")
    told.one("password", "it opens the repository", "ok")


def test_the_clock_and_the_repository_of_the_last_backup(shelf: Shelf) -> None:
    shelf.add_vm("web", Path("/nowhere"))
    with Journal.open(shelf.cli.state) as journal:
        journal.published("web", (), Point("ab" * 16, time.time() + 7200))
    told = Told(shelf.cli)
    told.one("clock", "behind the newest snapshot of web", "warning")
    told.one("repository", "the newest snapshot of web, abababababab, is not in this repository", "warning")


# -- the configuration


def test_schedules_that_conflict(shelf: Shelf, tmp_path: Path) -> None:
    for name in ("one", "two", "three", "slow"):
        shelf.add_vm(name, Path("/nowhere"))
    with Journal.open(shelf.cli.state) as journal:
        Runs(journal).end(Runs(journal).begin("slow", "backup"), {"seconds": 400.0, "disks": []})
    (tmp_path / "headstart.toml").write_text(
        f'{POLICY}[policy.often]\nschedule = {{ calendar = "*:0/5" }}\n'
        '[vm."t*"]\npolicy = "nightly"\n[vm."*e"]\npolicy = "nightly"\n[vm.slow]\npolicy = "often"\n'
        '[vm.gone]\npolicy = "nightly"\n'
    )
    told = Told(shelf.cli, HEADSTART_CONFIG=str(tmp_path / "headstart.toml"))
    told.one("policies", "Several patterns name the VM three", "problem")
    told.one("policies", "names a VM that is not there: gone", "warning")
    told.one("schedules", "a backup of slow takes 6 min 40 s, and policy often wants one every 5 min 0 s", "problem")
    told.one("schedules", "cannot begin when due", "warning")


def test_vms_without_a_policy_and_vms_at_once(shelf: Shelf, tmp_path: Path) -> None:
    for name in ("one", "two", "left"):
        shelf.add_vm(name, Path("/nowhere"))
    (tmp_path / "headstart.toml").write_text(f'{POLICY}[vm.one]\npolicy = "nightly"\n[vm.two]\npolicy = "nightly"\n')
    told = Told(shelf.cli, "--config", tmp_path / "headstart.toml")
    told.one("policies", "left has no policy", "warning")
    assert "random_delay" in told.one("schedules", "two cannot begin when due", "warning")["advice"]


def test_mistakes_of_the_configuration(shelf: Shelf, tmp_path: Path) -> None:
    (tmp_path / "headstart.toml").write_text(f"{POLICY}colour = 1\n")
    told = Told(shelf.cli, "--config", tmp_path / "headstart.toml")
    told.one("configuration", "headstart.toml:3: policy.nightly.colour", "problem")
    told.one("password", "it opens the repository", "ok")


# -- VMs that cannot be talked to


def test_an_unknown_vm(shelf: Shelf) -> None:
    outcome = console.run(shelf.cli, "--json", "doctor", "web")
    assert (outcome.status, outcome.stdout) == (15, "")


def test_a_missing_monitor_and_what_is_known_all_the_same(shelf: Shelf, tmp_path: Path) -> None:
    with Journal.open(shelf.cli.state) as journal:
        journal.add_vm(Vm("web", tmp_path / "qmp", str(tmp_path / "agent"), tmp_path / "qga"))
        Runs(journal).end(Runs(journal).begin("web", "backup"), {"error": "it broke"})
    told = Told(shelf.cli, "web")
    advice = told.one("monitor", "cannot be found", "problem", "web")["advice"]
    assert "-qmp unix:" in advice and "'vm remove' and 'vm add'" in advice
    told.one("agent", "cannot be found", "warning", "web")
    told.one("qga", "cannot be found", "warning", "web")
    told.one("freeze", "nobody can freeze", "warning", "web")
    told.one("last run", "failed: it broke", "warning", "web")


def as_nobody(look: Callable[[], list[Finding]]) -> list[Finding]:
    """In a child that is not root."""
    if os.geteuid() != 0:
        pytest.skip("only root can become somebody else")
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.setgroups([])
        os.setresgid(65534, 65534, 65534)
        os.setresuid(65534, 65534, 65534)
        os.write(writing, pickle.dumps(look()))
        os._exit(0)
    os.close(writing)
    with open(reading, "rb") as answer:
        found: list[Finding] = pickle.loads(answer.read())
    assert os.waitpid(child, 0)[1] == 0
    return found


def test_a_socket_that_lets_nobody_in() -> None:
    with tempfile.TemporaryDirectory(prefix="headstart-") as folder, socket.socket(socket.AF_UNIX) as server:
        path = Path(folder, "qmp")
        server.bind(str(path))
        [closed] = as_nobody(lambda: list(machine.socket("monitor", path, "")))
        Path(folder).chmod(0o755)
        path.chmod(0o700)
        [barred] = as_nobody(lambda: list(machine.socket("monitor", path, "")))
        assert list(machine.socket("monitor", path, "")) == []
    assert "closed to us" in closed.what
    assert "does not let us in" in barred.what and "as root" in barred.advice


def test_a_run_that_is_under_way_is_told_and_not_waited_for(shelf: Shelf, tmp_path: Path) -> None:
    """With a monitor that could be asked: who has the lock has it."""
    with tempfile.TemporaryDirectory(prefix="headstart-") as folder, socket.socket(socket.AF_UNIX) as server:
        server.bind(f"{folder}/qmp")
        shelf.add_vm("web", Path(folder, "qmp"))
        with Journal.open(shelf.cli.state) as journal, journal.lock("web", "backup"):
            told = Told(shelf.cli, "web", status=0)
    told.one("monitor", f"Another headstart (process {os.getpid()}) works on VM 'web' (backup, since", "note", "web")


# -- a real VM


@pytest.fixture
def vm(tmp_path: Path) -> Iterator[Machine]:
    with bare.started(bare.pair(tmp_path)) as made:
        yield made


def graph(vm: Machine) -> list[Any]:
    return [vm.qmp(command) for command in ("query-named-block-nodes", "query-jobs", "query-block-exports")]


@pytest.mark.vm
def test_a_vm_with_several_broken_things(shelf: Shelf, vm: Machine) -> None:
    cli = shelf.cli
    cli.run("vm", "add", "web", "--qmp", vm.qmp_socket, "--qga", vm.qga_socket, "--agent", vm.agent_socket)
    cli.run("backup", "web")
    ready = Told(cli, "web", status=0)
    ready.one("bitmaps", "those of the last backup record on dev-one, dev-two", "ok", "web")
    ready.one("disks", "dev-two: raw keeps no bitmaps", "note", "web")
    bare.restart(vm)
    vm.kill()
    vm.start()
    vm.qmp("block-dirty-bitmap-add", node="one", name="theirs", persistent=False)
    vm.qmp("nbd-server-start", addr={"type": "unix", "data": {"path": str(vm.qmp_socket.with_name("nbd"))}})
    vm.qmp("block-export-add", type="nbd", id="their-export", node_name="one")
    before = graph(vm)
    told = Told(cli, "web", status=0)
    assert graph(vm) == before, "looking changes nothing"
    broken = [each for each in told.findings if "it is inconsistent" in each["what"]]
    assert broken and all(each["what"].startswith("dev-one: headstart-") for each in broken), told.findings
    told.one("bitmaps", "dev-two: the bitmap of the last backup is not there", "warning", "web")
    told.one("other tools", "another tool keeps 1 bitmaps: theirs on dev-one", "note", "web")
    told.one("other tools", "their-export", "warning", "web")
    told.one("agent", "does not answer", "warning", "web")
    told.one("qga", "does not answer", "warning", "web")
    with socket.socket(socket.AF_UNIX) as other:
        other.connect(str(vm.qmp_socket))
        busy = Told(cli, "web")
        assert busy.one("monitor", "does not greet", "problem", "web")["advice"].count(f"process {os.getpid()} (") == 1


@pytest.mark.vm
def test_a_guest_that_answers(shelf: Shelf, tmp_path: Path) -> None:
    cli = shelf.cli
    with Machine(bare.pair(tmp_path), memory_mib=192) as machine:
        with Journal.open(cli.state) as journal:
            journal.add_vm(Vm("web", machine.qmp_socket, str(machine.agent_socket), machine.qga_socket))
        wait_for_agentd(machine)
        told = Told(cli, "web", status=0)
        told.one("agent", "it answers (release ", "ok", "web")
        told.one("qga", "answers, and can freeze", "ok", "web")
        told.one("freeze", "by agent or qga", "ok", "web")
        before = sorted(each.name for each in cli.state.iterdir())
        machine.guest.run("touch /run/no-agentd; kill -9 $(ps | awk '/python3.*[a]gentd/ {print $1}')", timeout=20)
        told = Told(cli, "web", status=0)
        told.one("agent", "does not answer", "warning", "web")
        told.one("freeze", "by qga", "ok", "web")
        assert sorted(each.name for each in cli.state.iterdir()) == before
