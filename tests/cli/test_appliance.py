"""``headstart appliance`` without a VM: keys, trust, and what is refused."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from headstart.state import appliances
from headstart.state.journal import Journal
from headstart.state.values import Distrust
from tests.kit.cli import Cli


@pytest.fixture
def cli(tmp_path: Path) -> Cli:
    return Cli(tmp_path)


def test_keys_are_for_their_owner_and_never_overwritten(cli: Cli, tmp_path: Path) -> None:
    folder = tmp_path / "keys"
    told = cli.run("appliance", "keys", folder).json
    assert told == {"appliance": str(folder / "appliance"), "host": str(folder / "host")}
    files = {path: path.read_bytes() for path in folder.glob("*/*")}
    assert len(files) == 4 and all(stat.S_IMODE(path.stat().st_mode) == 0o600 for path in files)
    assert all(stat.S_IMODE(path.parent.stat().st_mode) == 0o700 for path in files)
    assert "never" not in cli.run("appliance", "keys", folder, expect=24).error["error"]["message"]
    assert {path: path.read_bytes() for path in folder.glob("*/*")} == files


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        ((), "--keys"),
        (("--keys", "/nowhere", "--rounds", "0"), "--rounds"),
        (("--keys", "/nowhere", "--listen", "host:none"), "HOST:PORT"),
    ],
)
def test_what_cannot_be_meant_is_refused(cli: Cli, arguments: tuple[str, ...], word: str) -> None:
    assert word in cli.run("appliance", *arguments, expect=2).error["error"]["message"]


def test_without_its_keys_it_does_not_begin(cli: Cli) -> None:
    cli.run("init", "--no-encryption")
    told = cli.run("appliance", "--keys", "/nowhere", "--listen", "127.0.0.1:1", expect=2).error["error"]["message"]
    assert "/nowhere" in told and "headstart appliance keys" in told


def test_an_address_that_is_none_is_refused(cli: Cli) -> None:
    told = cli.run("precopy", "vm", "--appliance", "somewhere", expect=2).error["error"]["message"]
    assert "tcp:HOST:PORT[,monitor=PATH],keys=DIR" in told


def test_one_that_lied_is_trusted_again_by_its_address(cli: Cli) -> None:
    name = "192.0.2.7:10810"
    with Journal.open(cli.state) as journal:
        assert appliances.number(journal, name) == 2 and appliances.number(journal, "other:1") == 3
        appliances.distrust(journal, name, Distrust(5.0, "it lied"))
    assert cli.run("appliance", "trust", name).json["distrusted"] == {"since": 5.0, "reason": "it lied"}
    assert cli.run("appliance", "trust", name).json["distrusted"] is None
    cli.run("appliance", "trust", "unknown:1", expect=15)
    with Journal.open(cli.state) as journal:
        assert appliances.distrusted(journal, name) is None
        assert appliances.number(journal, name) == 2 and appliances.names(journal) == {2: name, 3: "other:1"}
