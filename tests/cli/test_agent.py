"""``headstart agent``."""

from __future__ import annotations

from pathlib import Path

import pytest

from headstart.agentd import release
from headstart.guest import package
from headstart.state.journal import Journal
from headstart.state.values import Distrust, Vm
from tests.cli import console
from tests.kit.cli import Cli


def test_build_writes_the_agent_of_this_release(cli: Cli, tmp_path: Path) -> None:
    made = cli.run("agent", "build", tmp_path / "agentd").json
    assert made["path"] == str(tmp_path / "agentd")
    assert made["release"] == release.RELEASE
    assert made["size"] == (tmp_path / "agentd").stat().st_size
    assert (tmp_path / "agentd").read_bytes() == package.build()


def test_build_refuses_what_is_not_ours(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "agentd").write_text("precious")
    outcome = console.inside(cli, "--json", "agent", "build", tmp_path / "agentd")
    assert (outcome.status, outcome.error["error"]["kind"]) == (24, "TargetRefused")
    assert (tmp_path / "agentd").read_text() == "precious"


@pytest.mark.parametrize("verb", ["install", "remove"])
def test_it_needs_a_vm_and_a_way_into_it(cli: Cli, tmp_path: Path, verb: str) -> None:
    outcome = console.inside(cli, "--json", "agent", verb, "web")
    assert (outcome.status, outcome.error["error"]["kind"]) == (15, "NotFound")
    with Journal.open(cli.state) as journal:
        journal.add_vm(Vm("web", tmp_path / "qmp"))
    for words, status, said in (
        ((), 2, "--ssh"),
        (("--ssh", ""), 2, "[USER@]HOST"),
        (("--ssh", "nobody@localhost.invalid"), 20, "without a password"),
    ):
        outcome = console.inside(cli, "--json", "agent", verb, "web", *words)
        assert outcome.status == status
        assert said in outcome.error["error"]["message"]


def test_keys_are_made_for_both_ends(cli: Cli, tmp_path: Path) -> None:
    made = cli.run("agent", "keys", tmp_path / "keys").json
    assert made["guest"] == [str(tmp_path / "keys" / name) for name in ("agent.pem", "secret")]
    assert made["host"] == [str(tmp_path / "keys" / name) for name in ("host.pem", "secret")]
    assert (tmp_path / "keys" / "agent.pem").exists()
    assert "keys=" in console.run(cli, "agent", "keys", tmp_path / "others").stdout
    assert cli.run("agent", "keys", tmp_path / "keys", expect=24).error["error"]["kind"] == "TargetRefused"


def test_trust_believes_a_distrusted_agent_again(cli: Cli, tmp_path: Path) -> None:
    with Journal.open(cli.state) as journal:
        journal.add_vm(Vm("web", tmp_path / "qmp"))
        journal.distrust("web", Distrust(1772409600.0, "3 of 3000 blocks were false"))
    found = {"since": 1772409600.0, "reason": "3 of 3000 blocks were false"}
    [told] = console.inside(cli, "--json", "status", "web").json["vms"]
    assert told["agent_distrusted"] == found
    assert "'headstart agent trust web'" in console.inside(cli, "status").stdout
    assert cli.run("agent", "trust", "web").json == {"name": "web", "distrusted": found}
    [told] = console.inside(cli, "--json", "status", "web").json["vms"]
    assert told["agent_distrusted"] is None
    assert "trusted already" in console.inside(cli, "agent", "trust", "web").stdout
    assert cli.run("agent", "trust", "nobody", expect=15).error["error"]["kind"] == "NotFound"
