"""Several hosts: a repository each, in one place, or one for all."""

from __future__ import annotations

from pathlib import Path
from unittest import mock

from tests.cli import console
from tests.kit.cli import Cli, Outcome


def on(host: str, cli: Cli, *words: str) -> Outcome:
    with mock.patch("socket.gethostname", return_value=host):
        outcome = console.inside(cli, "--json", *words)
    assert outcome.status == 0, outcome.stderr
    return outcome


def test_each_host_its_own_in_one_place(tmp_path: Path) -> None:
    cli = Cli(tmp_path, HEADSTART_REPOSITORY=f"{tmp_path}/backups/{{host}}")
    made = [on(host, cli, "init").json for host in ("hv1", "hv2")]
    assert [each["repository"] for each in made] == [f"{tmp_path}/backups/hv1", f"{tmp_path}/backups/hv2"]
    assert made[0]["id"] != made[1]["id"]
    assert sorted(path.name for path in (tmp_path / "backups").iterdir()) == ["hv1", "hv2"]
    assert on("hv2", cli, "snapshots").json["snapshots"] == []
    done = on("hv1", cli, "copy", "--to", f"{tmp_path}/backups/hv2").json
    assert done["snapshots"] == []


def test_one_for_all_and_a_password_for_each(tmp_path: Path) -> None:
    """A host that leaves loses its own password; the others go on."""
    first = Cli(tmp_path, "first")
    on("hv1", first, "init")
    first.environment["HEADSTART_NEW_PASSWORD"] = "second"
    added = on("hv1", first, "key", "add").json["added"]
    second = Cli(tmp_path, "second")
    assert on("hv2", second, "snapshots").json["snapshots"] == []
    on("hv1", first, "key", "remove", added)
    assert console.inside(second, "snapshots").status == 12
    on("hv1", first, "snapshots")
