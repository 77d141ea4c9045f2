"""copy: from one repository into another one, by the command line."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli import console
from tests.cli.shelf import SYSTEM, Shelf
from tests.kit.cli import Cli, QuickCli
from tests.restore import stored

THEIRS = "battery staple"


@pytest.fixture
def other(tmp_path: Path) -> Cli:
    """Another repository with another password."""
    made = QuickCli(tmp_path / "other", THEIRS)
    made.run("init")
    return made


def with_password(shelf: Shelf) -> Cli:
    """Its command line knows both."""
    shelf.cli.environment["HEADSTART_TO_PASSWORD"] = THEIRS
    return shelf.cli


def test_everything_and_then_nothing(shelf: Shelf, other: Cli, tmp_path: Path) -> None:
    one, two = shelf.add(), shelf.add("db", {"disk": stored.content(5, 6)})
    cli = with_password(shelf)
    done = cli.run("copy", "--to", other.repository).json
    assert {each["id"]: each["there"] for each in done["snapshots"]} == {one.id: False, two.id: False}
    assert (done["failed"], done["read_bytes"]) == ([], 6 * stored.BLOCK + 512)
    again = cli.run("copy", "--to", other.repository).json
    assert [each["there"] for each in again["snapshots"]] == [True, True]
    assert (again["read_bytes"], again["stored_bytes"]) == (0, 0)
    assert "Copied 0 snapshots, 2 were there." in console.run(cli, "copy", "--to", other.repository).stdout
    assert other.run("verify").json["findings"] == []
    other.run("restore", "web@latest", tmp_path / "out", "--format", "raw")
    assert (tmp_path / "out" / "system.raw").read_bytes() == SYSTEM


def test_one_of_them_from_a_named_repository(shelf: Shelf, other: Cli) -> None:
    made = shelf.add()
    shelf.add("db")
    other.environment["HEADSTART_FROM_PASSWORD"] = "correct horse"
    done = other.run("copy", "web@latest", "--from", shelf.cli.repository, "--to", other.repository).json
    assert [each["id"] for each in done["snapshots"]] == [made.id]
    assert [each["vm"] for each in other.run("snapshots").json["snapshots"]] == ["web"]


@pytest.mark.parametrize(
    ("when", "place"),
    [
        ("kill_after", "headstart.repository.draft:begin"),
        ("kill_after", "headstart.repository.draft:record"),
        ("kill_before", "headstart.repository.snapshot:publish"),
        ("kill_before", "headstart.repository.draft:drop"),
    ],
)
def test_killed_it_is_run_again(shelf: Shelf, other: Cli, when: str, place: str) -> None:
    made = shelf.add()
    cli = with_password(shelf)
    cli.run("copy", "--to", other.repository, **{when: f"{place}:1"})  # type: ignore[arg-type]
    console.inside(cli, "copy", "--to", other.repository)
    [listed] = other.run("snapshots").json["snapshots"]
    assert listed["id"] == made.id
    assert other.run("verify").json["findings"] == []
    assert not list((other.repository / "drafts").iterdir())


def test_what_is_damaged_is_left_out_and_said(shelf: Shelf, other: Cli) -> None:
    hurt = shelf.add()
    stored.damage_packs(shelf.cli.repository)
    shelf.add("db", {"disk": stored.content(5, 6)})
    outcome = with_password(shelf).run("copy", "--to", other.repository, expect=3)
    assert [each["vm"] for each in outcome.json["snapshots"]] == ["db"]
    assert hurt.id in outcome.error["error"]["message"]
    assert other.run("verify").json["findings"] == []


def test_copies_that_cannot_be_are_refused(shelf: Shelf, other: Cli, tmp_path: Path) -> None:
    shelf.add()
    for status, *words in (
        (2, "copy"),
        (2, "copy", "--to", shelf.cli.repository),
        (10, "copy", "--to", tmp_path / "nowhere"),
        (12, "copy", "--to", other.repository),
        (15, "copy", "ffff", "--to", other.repository),
    ):
        environment = {} if status == 12 else {"HEADSTART_TO_PASSWORD": THEIRS if status == 15 else ""}
        outcome = console.inside(shelf.cli, "--json", *map(str, words), environment=environment)
        assert outcome.status == status, (words, outcome.stderr)
    assert other.run("snapshots").json["snapshots"] == []


def test_each_password_is_asked_for_by_its_place(shelf: Shelf, other: Cli) -> None:
    shelf.add()
    code, shown = console.on_a_terminal(
        shelf.cli,
        "copy",
        "--to",
        other.repository,
        answers=("correct horse", THEIRS),
        environment={"HEADSTART_PASSWORD": ""},
    )
    assert code == 0, shown
    assert f"Password of {other.repository}:" in shown
