"""What an operator does when the repository is damaged: verify, repair, snapshots, restore."""

from __future__ import annotations

import shutil
from pathlib import Path

from tests.cli import console
from tests.cli.shelf import DATA, SYSTEM, Shelf
from tests.restore import stored

BLOCK = stored.BLOCK


def test_nothing_is_damaged(shelf: Shelf) -> None:
    shelf.add()
    done = shelf.cli.run("repair").json
    assert (done["findings"], done["mended"], done["healed"], done["lost"], done["loss"]) == ([], [], [], [], None)
    assert console.run(shelf.cli, "repair").stdout == "Nothing is damaged.\n"


def test_what_cannot_be_healed_is_told_by_everybody(shelf: Shelf, tmp_path: Path) -> None:
    hurt, whole = shelf.add(), shelf.add("db", {"disk": stored.content(7, 8)})
    stored.damage_packs(shelf.cli.repository)
    (shelf.cli.repository / "packs").mkdir(exist_ok=True)
    outcome = shelf.cli.run("repair", expect=13)
    lost = outcome.json["lost"]
    assert [(each["snapshot"], each["name"], each["extents"]) for each in lost if each["vm"] == "web"] == [
        (hurt.id, "system", [{"start": 0, "length": BLOCK}])
    ]
    assert hurt.id in outcome.error["error"]["message"]
    listed = {each["id"]: each["lost"] for each in shelf.cli.run("snapshots").json["snapshots"]}
    assert listed == {hurt.id: ["system"], whole.id: ["disk"]}
    assert "parts are lost" in console.run(shelf.cli, "snapshots").stdout
    error = shelf.cli.run("restore", hurt.id, tmp_path / "a", "--format", "raw", expect=13).error["error"]
    assert error["facts"]["lost"] == [[0, BLOCK]]
    assert "bytes 0 to 65535 were lost" in error["message"]
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["data.raw"]
    done = shelf.cli.run("restore", hurt.id, tmp_path / "b", "--format", "raw", "--lost-as-zeroes").json
    assert done["notes"] == ["Disk system, bytes 0 to 65535: lost, and zeroes in what was restored"]
    assert (tmp_path / "b" / "system.raw").read_bytes() == bytes(BLOCK) + SYSTEM[BLOCK:]
    assert (tmp_path / "b" / "data.raw").read_bytes() == DATA


def test_a_snapshot_stored_again_heals_the_old_one(shelf: Shelf) -> None:
    hurt = shelf.add()
    stored.damage_packs(shelf.cli.repository)
    shelf.cli.run("repair", expect=13)
    shelf.add()
    assert shelf.cli.run("verify").json["findings"] == []
    assert all(not each["lost"] for each in shelf.cli.run("snapshots").json["snapshots"])
    assert shelf.cli.run("verify", hurt.id).json["findings"] == []


def test_a_copy_of_the_repository_heals_everything(shelf: Shelf, tmp_path: Path) -> None:
    made = shelf.add()
    shutil.copytree(shelf.cli.repository, tmp_path / "copy")
    stored.damage_packs(shelf.cli.repository)
    for name in ("config", f"snapshots/{made.id}"):
        (shelf.cli.repository / name).unlink()
    assert shelf.cli.run("snapshots", expect=13).error["error"]["facts"]["object"] == "config"
    found = {each["object"] for each in shelf.cli.run("verify", expect=13).json["findings"]}
    assert found >= {"config", f"snapshots/{made.id}"}
    before = sorted(path for path in shelf.cli.repository.rglob("*"))
    dry = shelf.cli.run("repair", "--dry-run", "--from", tmp_path / "copy", expect=13).json
    assert dry["dry_run"]
    assert sorted(path for path in shelf.cli.repository.rglob("*")) == before
    done = shelf.cli.run("repair", "--from", tmp_path / "copy").json
    assert {each["object"] for each in done["mended"]} == {"config", f"snapshots/{made.id}"}
    assert done["lost"] == []
    assert shelf.cli.run("verify").json["findings"] == []


def test_options_that_contradict(shelf: Shelf) -> None:
    assert shelf.cli.run("repair", "--vm", "web", "--no-vm", expect=2).error["error"]["kind"] == "Usage"


def test_a_state_that_cannot_be_used_does_not_keep_anybody_from_verifying(shelf: Shelf) -> None:
    shelf.add()
    shelf.cli.state.mkdir()
    (shelf.cli.state / "state.sqlite3").write_bytes(b"no database" * 1000)
    outcome = console.run(shelf.cli, "verify")
    assert outcome.status == 0
    assert "what this host remembers was not compared" in outcome.stderr
