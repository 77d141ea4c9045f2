"""key: list, add, remove, passwd, export."""

from __future__ import annotations

from pathlib import Path

from tests.cli import console
from tests.cli.shelf import SYSTEM, Shelf
from tests.kit.cli import Cli, Outcome

NEW = "battery staple"


def told(shelf: Shelf, *words: str | Path, status: int = 0, **environment: str) -> Outcome:
    outcome = console.inside(shelf.cli, "--json", *words, environment=environment)
    assert outcome.status == status, outcome.stderr
    return outcome


def test_from_the_first_password_to_the_second(shelf: Shelf) -> None:
    shelf.add()
    [first] = told(shelf, "key", "list").json["keys"]
    assert (first["opens"], first["kdf"], first["now"], first["created"]) == ("everything", "argon2id", True, None)
    added = told(shelf, "key", "add", HEADSTART_NEW_PASSWORD=NEW).json["added"]
    assert "may be the last one" in told(shelf, "key", "remove", first["id"], status=2).error["error"]["message"]
    assert told(shelf, "key", "remove", first["id"][:10], HEADSTART_PASSWORD=NEW).json == {"removed": first["id"]}
    told(shelf, "snapshots", status=12)
    [left] = told(shelf, "key", "list", HEADSTART_PASSWORD=NEW).json["keys"]
    assert (left["id"], left["now"], left["memory_kib"]) == (added, True, 65536)
    assert left["created"] > 1_700_000_000
    assert told(shelf, "verify", HEADSTART_PASSWORD=NEW).json["findings"] == []


def test_passwd_replaces_the_password(shelf: Shelf, tmp_path: Path) -> None:
    (tmp_path / "new").write_text(f"{NEW}\n")
    done = told(shelf, "key", "passwd", HEADSTART_NEW_PASSWORD_FILE=str(tmp_path / "new")).json
    assert len(done["removed"]) == 1
    told(shelf, "snapshots", status=12)
    told(shelf, "snapshots", HEADSTART_PASSWORD=NEW)


def test_the_new_password_is_asked_for_twice(shelf: Shelf) -> None:
    code, shown = console.on_a_terminal(shelf.cli, "key", "add", answers=(NEW, NEW))
    assert code == 0 and NEW not in shown
    told(shelf, "snapshots", HEADSTART_PASSWORD=NEW)
    error = told(shelf, "key", "add", status=2).error["error"]["message"]
    assert "HEADSTART_NEW_PASSWORD_FILE" in error


def test_paper_opens_what_has_no_key_any_longer(shelf: Shelf, tmp_path: Path) -> None:
    shelf.add()
    printed = console.run(shelf.cli, "key", "export").stdout
    (tmp_path / "paper").write_text(printed)
    for path in (shelf.cli.repository / "keys").iterdir():
        path.unlink()
    told(shelf, "snapshots", status=13)
    told(shelf, "key", "add", "--from-paper", tmp_path / "paper", HEADSTART_NEW_PASSWORD=NEW)
    told(shelf, "restore", "web@latest", tmp_path / "out", "--format", "raw", HEADSTART_PASSWORD=NEW)
    assert (tmp_path / "out" / "system.raw").read_bytes() == SYSTEM


def test_paper_is_typed_line_by_line(shelf: Shelf) -> None:
    lines = told(shelf, "key", "export").json["lines"]
    answers = (lines[0], "nonsense", *lines[1:])
    code, shown = console.on_a_terminal(
        shelf.cli, "key", "add", "--from-paper", "-", answers=answers, environment={"HEADSTART_NEW_PASSWORD": NEW}
    )
    assert code == 0, shown
    assert "Line 2 of the paper key is not what was printed" in shown
    told(shelf, "snapshots", HEADSTART_PASSWORD=NEW)


def test_paper_of_another_repository(shelf: Shelf, tmp_path: Path) -> None:
    other = Cli(tmp_path / "other")
    other.run("init")
    (tmp_path / "paper").write_text(console.run(other, "key", "export").stdout)
    error = told(shelf, "key", "add", "--from-paper", tmp_path / "paper", status=12).error["error"]["message"]
    assert error.startswith("The key is of repository ")
    told(shelf, "key", "add", "--from-paper", tmp_path / "nowhere", status=2)


def test_a_server_verifies_and_reads_nothing(shelf: Shelf, tmp_path: Path) -> None:
    made = shelf.add()
    told(shelf, "key", "add", "--structure-only", HEADSTART_NEW_PASSWORD="server")
    assert told(shelf, "snapshots", HEADSTART_PASSWORD="server").json["snapshots"][0]["id"] == made.id
    assert [
        key["opens"] for key in told(shelf, "key", "list", HEADSTART_PASSWORD="server").json["keys"] if key["now"]
    ] == ["structure"]
    for words in (("verify",), ("stats",), ("diff", made.id, made.id), ("key", "list")):
        told(shelf, *words, HEADSTART_PASSWORD="server")
    for words in (
        ("restore", "web@latest", str(tmp_path / "out")),
        ("key", "export"),
        ("key", "add"),
        ("repair",),
        ("copy", "--to", "x"),
    ):
        error = told(shelf, *words, status=12, HEADSTART_PASSWORD="server").error["error"]
        assert "opens the structure of the repository, not its content" in error["message"], words
    assert not (tmp_path / "out").exists()
