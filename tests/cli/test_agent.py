"""``headstart agent``."""

from __future__ import annotations

from pathlib import Path

from headstart.agentd import release
from headstart.guest import package
from tests.cli import console
from tests.kit.cli import Cli


def test_build(cli: Cli, tmp_path: Path) -> None:
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
