"""``headstart history``: the table, the figures, the picture, and which files it replaces."""

from __future__ import annotations

import os
import stat
import time
from pathlib import Path
from xml.etree import ElementTree

import pytest

from headstart.cli import history
from headstart.host import picture
from headstart.state.journal import Journal
from headstart.state.runs import Runs
from headstart.state.series import MINUTE, Minute, Series
from headstart.state.values import Vm
from headstart.units import MIB
from tests.cli import console
from tests.kit.cli import Cli

ROUND = {
    "vm": "web",
    "round": 3,
    "transport": "agent",
    "identified_bytes": 5 * MIB,
    "copied_bytes": 4 * MIB,
    "remaining_bytes": MIB,
    "halted": "",
}
NOW = int(time.time()) // MINUTE * MINUTE


@pytest.fixture
def lived(cli: Cli) -> Cli:
    """A VM with an hour behind it."""
    with Journal.open(cli.state) as journal:
        journal.add_vm(Vm("web", Path("/nowhere")))
        series = Series(journal)
        for moment in (NOW - 30 * 3600, NOW - 120, NOW - 60):
            series.add("web", Minute(moment, 0.25, 0.002, "idle", 2 * MIB, MIB, 0))
        Runs(journal).end(Runs(journal).begin("web", "precopy"), ROUND)
        Runs(journal).end(Runs(journal).begin("web", "backup"), {"error": "It\nbroke \x1b[2J."})
        Runs(journal).begin("web", "backup")
    return cli


def test_a_table_of_the_runs(lived: Cli) -> None:
    outcome = console.inside(lived, "history", "web")
    assert (outcome.status, outcome.stderr) == (0, "")
    head, first, second, third = outcome.stdout.splitlines()
    assert head.split() == ["TIME", "VERB", "DIRTY", "COPIED", "REMAINING", "WINDOW", "BY", "RESULT"]
    assert first.split()[2:] == ["precopy", "5.0", "MiB", "4.0", "MiB", "1.0", "MiB", "-", "agent", "done"]
    assert second.endswith("failed: It broke ?[2J.")
    assert third.endswith("did not end")


def test_figures_and_reports_as_json(lived: Cli) -> None:
    found = console.inside(lived, "history", "web", "--json").json
    assert set(found) == {"vm", "since", "until", "minutes", "runs", "svg"}
    assert found["until"] - found["since"] == 24 * 3600
    assert [each["moment"] for each in found["minutes"]] == [NOW - 120, NOW - 60]
    assert found["minutes"][0] == {
        "moment": NOW - 120,
        "load": 0.25,
        "latency": 0.002,
        "state": "idle",
        "copied_bytes": 2 * MIB,
        "remaining_bytes": MIB,
        "deferred_bytes": 0,
    }
    precopy, broken, unended = found["runs"]
    assert precopy.items() >= {**ROUND, "verb": "precopy", "error": None}.items()
    assert (broken["error"], unended["error"], unended["ended"]) == ("It\nbroke \x1b[2J.", None, None)
    assert found["svg"] is None


def test_hours_reach_back(lived: Cli) -> None:
    found = console.inside(lived, "history", "web", "--hours", "192", "--json").json
    assert len(found["minutes"]) == 3


@pytest.mark.parametrize("hours", ["0", "193", "-1", "1.5", "many", "", "9" * 5000])
def test_hours_that_cannot_be(lived: Cli, hours: str) -> None:
    outcome = console.inside(lived, "history", "web", f"--hours={hours}")
    assert outcome.status == 2
    assert "hours from 1 to 192" in outcome.stderr


def test_an_unknown_vm(cli: Cli, tmp_path: Path) -> None:
    outcome = console.inside(cli, "history", "web", "--svg", tmp_path / "web.svg", "--json")
    assert (outcome.status, outcome.error["error"]["kind"]) == (15, "NotFound")
    assert not (tmp_path / "web.svg").exists()


def test_a_vm_without_backups_has_an_empty_history(cli: Cli, tmp_path: Path) -> None:
    with Journal.open(cli.state) as journal:
        journal.add_vm(Vm("web", Path("/nowhere")))
    assert console.inside(cli, "history", "web").stdout.count("\n") == 1
    console.inside(cli, "history", "web", "--svg", tmp_path / "web.svg")
    assert "Nothing is known of this time" in (tmp_path / "web.svg").read_text()


# -- the picture


def test_a_picture_is_replaced_again_and_again(lived: Cli, tmp_path: Path) -> None:
    place = tmp_path / "web.svg"
    for _ in range(2):
        outcome = console.inside(lived, "history", "web", "--svg", place)
        assert (outcome.status, outcome.stderr) == (0, "")
        assert outcome.stdout == f"Drew 24 h of web: {place}\n"
        ElementTree.parse(place)
    assert console.inside(lived, "history", "web", "--svg", place, "--json").json["svg"] == str(place)
    assert [each.name for each in tmp_path.iterdir() if each.suffix == ".svg" or each.name.startswith(".")] == [
        "web.svg"
    ]


def test_others_may_see_it_as_the_umask_wants(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        history.write(tmp_path / "web.svg", picture.HEAD)
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "web.svg").stat().st_mode) == 0o640


def test_an_empty_file_is_replaced(lived: Cli, tmp_path: Path) -> None:
    (tmp_path / "web.svg").touch()
    assert console.inside(lived, "history", "web", "--svg", tmp_path / "web.svg").status == 0


@pytest.mark.parametrize("content", [b"<svg/>", b"\x00", picture.HEAD.encode()[:-1]])
def test_what_is_not_ours_is_left_alone(lived: Cli, tmp_path: Path, content: bytes) -> None:
    place = tmp_path / "web.svg"
    place.write_bytes(content)
    outcome = console.inside(lived, "history", "web", "--svg", place)
    assert outcome.status == 24
    assert "is no picture of Headstart's" in outcome.stderr
    assert place.read_bytes() == content


def test_no_link_and_no_folder_is_replaced(lived: Cli, tmp_path: Path) -> None:
    (tmp_path / "there.svg").write_text(picture.HEAD)
    (tmp_path / "link.svg").symlink_to(tmp_path / "there.svg")
    (tmp_path / "folder.svg").mkdir()
    for name in ("link.svg", "folder.svg", "", "/dev/null"):
        assert console.inside(lived, "history", "web", "--svg", tmp_path / name).status == 24
    assert (tmp_path / "there.svg").read_text() == picture.HEAD


def test_a_folder_that_is_not_there(lived: Cli, tmp_path: Path) -> None:
    outcome = console.inside(lived, "history", "web", "--svg", tmp_path / "pictures" / "web.svg")
    assert outcome.status == 2
    assert f"There is no folder {tmp_path / 'pictures'}" in outcome.stderr


def test_a_picture_that_cannot_be_written_leaves_nothing(lived: Cli, tmp_path: Path) -> None:
    outcome = console.inside(lived, "history", "web", "--svg", tmp_path / ("x" * 300))
    assert outcome.status == 24
    assert "cannot be written: File name too long" in outcome.stderr
    assert not list(tmp_path.glob(".headstart-*"))
