"""Where the password comes from, and that it is never shown."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli import console
from tests.cli.shelf import Shelf
from tests.kit.cli import Cli

RIGHT = "correct horse"
NONE = {"HEADSTART_PASSWORD": ""}


def status(shelf: Shelf, **environment: str) -> tuple[int, str]:
    outcome = console.inside(shelf.cli, "snapshots", environment=NONE | environment)
    return outcome.status, outcome.stderr


def test_a_wrong_password_has_a_status_of_its_own(shelf: Shelf) -> None:
    assert status(shelf, HEADSTART_PASSWORD="wrong")[0] == 12


@pytest.mark.parametrize("content", [RIGHT, f"{RIGHT}\n", f"{RIGHT}\r\n", f"{RIGHT}\na second line\n"])
def test_from_a_file(shelf: Shelf, tmp_path: Path, content: str) -> None:
    (tmp_path / "password").write_text(content)
    assert status(shelf, HEADSTART_PASSWORD_FILE=str(tmp_path / "password")) == (0, "")


def test_from_a_command(shelf: Shelf) -> None:
    assert status(shelf, HEADSTART_PASSWORD_COMMAND=f"echo '{RIGHT}'") == (0, "")


def test_the_first_of_them_counts(shelf: Shelf, tmp_path: Path) -> None:
    (tmp_path / "wrong").write_text("wrong")
    wrong = {"HEADSTART_PASSWORD_FILE": str(tmp_path / "wrong"), "HEADSTART_PASSWORD_COMMAND": "echo wrong"}
    assert status(shelf, HEADSTART_PASSWORD=RIGHT, **wrong)[0] == 0
    assert status(shelf, **wrong | {"HEADSTART_PASSWORD_COMMAND": f"echo '{RIGHT}'"})[0] == 12


@pytest.mark.parametrize(
    ("source", "value", "reason"),
    [
        ("FILE", "/nowhere", "No such file or directory. Correct the path"),
        ("FILE", "/dev/null", "the first line of /dev/null is empty"),
        ("COMMAND", "echo out of order >&2; exit 3", "status 3. out of order"),
        ("COMMAND", "exit 3", "status 3. Run it by hand"),
        ("COMMAND", "true", "is empty"),
    ],
)
def test_sources_that_give_none(shelf: Shelf, source: str, value: str, reason: str) -> None:
    code, stderr = status(shelf, **{f"HEADSTART_PASSWORD_{source}": value})
    assert code == 2
    assert f"HEADSTART_PASSWORD_{source}" in stderr
    assert reason in stderr


def test_no_source_and_no_terminal(shelf: Shelf) -> None:
    code, stderr = status(shelf)
    assert code == 2
    assert "HEADSTART_PASSWORD_FILE" in stderr


def test_the_terminal_is_asked(shelf: Shelf) -> None:
    code, shown = console.on_a_terminal(shelf.cli, "snapshots", answers=(RIGHT,), environment=NONE)
    assert code == 0, shown
    assert RIGHT not in shown
    assert console.on_a_terminal(shelf.cli, "snapshots", answers=("wrong",), environment=NONE)[0] == 12


def test_a_new_password_is_asked_for_twice(cli: Cli) -> None:
    code, shown = console.on_a_terminal(cli, "init", answers=(RIGHT, "another"), environment=NONE)
    assert code == 2
    assert "differ" in shown
    assert not cli.repository.exists()
    code, shown = console.on_a_terminal(cli, "init", answers=("", ""), environment=NONE)
    assert code == 2 and "is empty" in shown
    code, shown = console.on_a_terminal(cli, "init", answers=(RIGHT, RIGHT), environment=NONE)
    assert code == 0, shown
    assert RIGHT not in shown
    assert console.run(cli, "snapshots").status == 0


def test_without_encryption_none_is_needed(cli: Cli) -> None:
    outcome = console.run(cli, "init", "--no-encryption", environment=NONE)
    assert outcome.status == 0
    assert "anybody" in outcome.stdout
    assert console.run(cli, "snapshots", environment=NONE).status == 0


def test_errors_do_not_show_it(shelf: Shelf) -> None:
    outcome = console.run(shelf.cli, "snapshots", "-v", environment={"HEADSTART_PASSWORD": "hunter2"})
    assert outcome.status == 12
    assert "hunter2" not in outcome.stderr
