"""``config check``, as its users start it."""

from __future__ import annotations

import os
from argparse import Namespace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from headstart.cli import config, settings
from headstart.host.policy import Host
from headstart.state.journal import Journal
from headstart.state.values import Vm
from tests.cli import console
from tests.kit.cli import Cli

TEXT = """
[policy.nightly]
schedule = { calendar = "02:30", timezone = "Europe/Berlin", random_delay = "30min" }
head_start.begin_before = "8h"
hooks.after-publish = "true"
limits = [{ rate = 0, from = "08:00", until = "12:00", days = "Mon..Fri" }]
[policy.rare]
schedule = { calendar = "2099-01-01", timezone = "UTC", missed = false }
head_start.transports = []
audit = "all"
[vm."web-*"]
policy = "nightly"
[vm.web-test]
policy = "none"
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return write(tmp_path, TEXT)


def write(folder: Path, text: str) -> Path:
    file = folder / "headstart.toml"
    file.write_text(text)
    file.chmod(0o600)
    return file


def add_vms(state: Path, *names: str) -> None:
    with Journal.open(state) as journal:
        for name in names:
            journal.add_vm(Vm(name, Path(f"/run/{name}.qmp")))


def test_without_a_state(cli: Cli, file: Path) -> None:
    found = cli.run("config", "check", "--config", file).json
    assert set(found) == {"file", "files", "host", "policies", "vms", "warnings"}
    assert (found["file"], found["files"]) == (str(file), [str(file)])
    assert (found["vms"], found["warnings"]) == ([], [])
    nightly, rare = found["policies"]
    assert (nightly["name"], nightly["patterns"], nightly["vms"]) == ("nightly", ["web-*"], [])
    assert nightly["schedule"] == {
        "calendar": ["02:30"],
        "timezone": "Europe/Berlin",
        "random_delay": 1800.0,
        "missed": True,
    }
    first, second, third = nightly["next"]
    assert second - first in (82800, 86400, 90000) and third > second > first > datetime.now(UTC).timestamp()
    assert nightly["head_start"] == {
        "transports": ["agent", "host"],
        "begin_before": 28800.0,
        "interval": 900.0,
        "after_false_audit": "distrust",
    }
    assert nightly["limits"] == [{"rate": 0.0, "from": 480, "until": 720, "days": [0, 1, 2, 3, 4]}]
    assert nightly["hooks"] == [{"event": "after-publish", "command": "true"}]
    assert rare["next"] == [datetime(2099, 1, 1, tzinfo=UTC).timestamp()]
    assert (rare["audit"], rare["consistency"], rare["default"]) == ("all", "best", False)
    assert not cli.state.exists(), "looking makes nothing"


def test_check_tells_each_vm_its_policy(cli: Cli, tmp_path: Path) -> None:
    add_vms(cli.state, "db", "web-1", "web-test")
    file = write(tmp_path, f"{TEXT}[vm.gone]\npolicy = 'rare'\n")
    found = cli.run("config", "check", "--config", file).json
    assert found["vms"] == [
        {"name": "db", "policy": None, "entry": None},
        {"name": "web-1", "policy": "nightly", "entry": "web-*"},
        {"name": "web-test", "policy": None, "entry": "web-test"},
    ]
    assert [each["vms"] for each in found["policies"]] == [["web-1"], []]
    assert found["warnings"] == [
        "The VM db has no policy, and is not backed up.",
        f"There is no VM gone ({file}:15). 'headstart vm list' shows those that are.",
    ]


def test_check_tells_people_the_same_in_lines(cli: Cli, tmp_path: Path) -> None:
    add_vms(cli.state, "db", "web-1", "web-test")
    file = write(tmp_path, f"{TEXT}[default]\npolicy = 'rare'\n")
    outcome = console.run(cli, "config", "check", environment={"HEADSTART_CONFIG": str(file)})
    assert (outcome.status, outcome.stderr) == (0, "")
    lines = outcome.stdout.splitlines()
    assert lines[0] == f"{file}: no mistakes."
    assert "  schedule     02:30 (Europe/Berlin), up to 30 min 0 s later" in lines
    assert "  head start   by agent, else host, every 15 min 0 s, from 8 h 0 min before" in lines
    assert '  for          "web-*"' in lines
    assert "  VMs          web-1" in lines
    assert "  schedule     2099-01-01 (UTC), not repeated when missed" in lines
    assert "  next         Thu 2099-01-01 00:00:00 UTC" in lines
    assert "  for          all that nothing else names" in lines
    assert lines[-1] == "Excluded: web-test"


def test_warnings_are_notes(cli: Cli, file: Path) -> None:
    add_vms(cli.state, "db")
    outcome = console.run(cli, "config", "check", "--config", file)
    assert outcome.status == 0
    assert "headstart: note: The VM db has no policy, and is not backed up." in outcome.stderr.splitlines()


def test_mistakes_are_told_with_their_lines(cli: Cli, tmp_path: Path) -> None:
    file = write(tmp_path, "[host]\nrounds = 0\n[policy.a]\n")
    error = cli.run("config", "check", "--config", file, expect=2).error["error"]
    assert (error["kind"], [each["line"] for each in error["facts"]["mistakes"]]) == ("Usage", [2, 3])
    outcome = console.run(cli, "config", "check", "--config", file)
    assert (outcome.status, outcome.stdout) == (2, "")
    assert outcome.stderr.splitlines() == [
        "headstart: The configuration has 2 mistakes:",
        f"{file}:2: host.rounds: must be a whole number, 1 or more, not 0",
        f"{file}:3: policy.a.schedule: is missing",
    ]


def test_two_patterns_for_one_vm(cli: Cli, tmp_path: Path) -> None:
    add_vms(cli.state, "web-1", "web-2")
    file = write(tmp_path, f"{TEXT}[vm.'*-1']\npolicy = 'rare'\n[vm.'*-2']\npolicy = 'rare'\n")
    error = cli.run("config", "check", "--config", file, expect=2).error["error"]
    assert [each["vm"] for each in error["facts"]["mistakes"]] == ["web-1", "web-2"]
    assert "Several patterns name the VM web-2" in error["message"]


def test_a_file_that_is_not_there_is_a_usage_error(cli: Cli, tmp_path: Path) -> None:
    error = cli.run("config", "check", "--config", tmp_path / "nothing", expect=2).error["error"]
    assert "there is no such file" in error["message"]


def test_a_state_that_cannot_be_read(cli: Cli, file: Path) -> None:
    cli.state.mkdir()
    (cli.state / "state.sqlite3").write_text("not a database" * 100)
    [warning] = cli.run("config", "check", "--config", file).json["warnings"]
    assert warning.startswith("Which VMs there are is not known: ")


def test_the_state_of_the_configuration(cli: Cli, tmp_path: Path) -> None:
    """The environment comes before the file, and an option before both."""
    states = {name: tmp_path / name for name in ("configured", "environment", "option")}
    for name, state in states.items():
        add_vms(state, name)
    file = write(tmp_path, f"[host]\nstate = '{states['configured']}'\n")
    named = str(states["environment"])
    options: tuple[str | Path, ...] = ("--state", states["option"])
    for more, environment, expected in (
        ((), "", "configured"),
        ((), named, "environment"),
        (options, named, "option"),
    ):
        words = ("config", "check", "--json", "--config", file, *more)
        outcome = console.inside(cli, *words, environment={"HEADSTART_STATE": environment})
        assert [vm["name"] for vm in outcome.json["vms"]] == [expected]


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, {"HEADSTART_PASSWORD_FILE": "/etc/password"}),
        ({"HEADSTART_PASSWORD": ""}, {"HEADSTART_PASSWORD_FILE": "/etc/password"}),
        ({"HEADSTART_PASSWORD": "x"}, {"HEADSTART_PASSWORD": "x"}),
        ({"HEADSTART_PASSWORD_COMMAND": "x"}, {"HEADSTART_PASSWORD_COMMAND": "x"}),
    ],
)
def test_one_way_to_the_password(environment: dict[str, str], expected: dict[str, str]) -> None:
    assert config.beneath(environment, Host(password_file=Path("/etc/password"))) == expected


def test_settings_from_the_configuration() -> None:
    host = Host(repository="/srv/backups", state=Path("/srv/state"))
    chosen = settings.settings(Namespace(), config.beneath({"HEADSTART_REPOSITORY": "/other"}, host))
    assert (chosen.repository, chosen.state, chosen.scratch) == (
        "/other",
        Path("/srv/state"),
        Path("/srv/state/scratch"),
    )


def test_relative_paths_are_of_here(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(file.parent)
    found = config.load(Namespace(config=Path(file.name)), os.environ, datetime.now(UTC))
    assert found.file == file
