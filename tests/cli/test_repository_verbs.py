"""init, snapshots, verify, restore."""

from __future__ import annotations

from pathlib import Path

from tests.cli import console
from tests.cli.shelf import DATA, SYSTEM, Shelf
from tests.kit import compare
from tests.kit.cli import Cli
from tests.restore import stored


def test_init(cli: Cli) -> None:
    made = cli.run("init").json
    assert made["repository"] == str(cli.repository)
    assert made["encrypted"] is True
    assert made["block_size"] == 65536
    assert len(made["id"]) == 32


def test_snapshots(shelf: Shelf) -> None:
    made = shelf.add("web", files={"definition": b"qemu"})
    shelf.add("db")
    listed = shelf.cli.run("snapshots").json
    assert sorted(each["vm"] for each in listed["snapshots"]) == ["db", "web"]
    assert listed["damaged"] == []
    [only] = shelf.cli.run("snapshots", "web").json["snapshots"]
    assert only["id"] == made.id
    assert [disk["name"] for disk in only["disks"]] == ["system", "data"]
    assert only["files"] == ["definition"]
    assert shelf.cli.run("snapshots", "nobody").json["snapshots"] == []


def test_a_damaged_snapshot_is_left_out_and_said(shelf: Shelf) -> None:
    good, bad = shelf.add(), shelf.add()
    path = shelf.cli.repository / "snapshots" / bad.id
    path.chmod(0o600)
    path.write_bytes(b"nonsense")
    outcome = shelf.cli.run("snapshots", expect=3)
    assert [each["id"] for each in outcome.json["snapshots"]] == [good.id]
    assert outcome.json["damaged"][0]["object"] == f"snapshots/{bad.id}"
    assert outcome.error["error"]["kind"] == "Incomplete"
    assert bad.id in outcome.error["error"]["message"]


def test_verify(shelf: Shelf) -> None:
    made = shelf.add()
    done = shelf.cli.run("verify").json
    assert (done["snapshots"], done["findings"]) == (1, [])
    assert shelf.cli.run("verify", made.id[:6], "web@latest").json["snapshots"] == 1
    assert "everything is whole" in console.run(shelf.cli, "verify").stdout


def test_verify_names_what_is_damaged(shelf: Shelf) -> None:
    made = shelf.add()
    stored.damage_packs(shelf.cli.repository)
    outcome = shelf.cli.run("verify", expect=13)
    [finding] = outcome.json["findings"]
    assert finding["object"].startswith("packs/")
    [touched] = finding["touched"]
    assert (touched["snapshot"], touched["vm"], touched["name"]) == (made.id, "web", "system")
    assert touched["extents"] == [{"start": 0, "length": 65536}]
    assert finding["object"] in outcome.error["error"]["message"]
    assert f"are hurt: {made.id}. Restore others." in outcome.error["error"]["message"]
    assert "system: 64.0 KiB from byte 0 on" in console.run(shelf.cli, "verify").stdout


def test_restore(shelf: Shelf, tmp_path: Path) -> None:
    made = shelf.add(files={"definition": b"<domain/>"})
    out = tmp_path / "out"
    done = shelf.cli.run("restore", made.id[:8], out, "--format", "raw").json
    assert (done["snapshot"], done["vm"]) == (made.id, "web")
    assert done["disks"][0] == {
        "name": "system",
        "path": str(out / "system.raw"),
        "format": "raw",
        "size": len(SYSTEM),
        "data_bytes": 3 * stored.BLOCK + 512,
    }
    assert done["files"] == [str(out / "definition.xml")]
    assert (out / "system.raw").read_bytes() == SYSTEM


def test_restore_to_qcow2(shelf: Shelf, tmp_path: Path) -> None:
    shelf.add()
    console.run(shelf.cli, "restore", "web@latest", tmp_path / "out")
    with compare.as_raw(tmp_path / "out" / "data.qcow2", "qcow2") as raw:
        assert raw.read_bytes() == DATA


def test_restore_one_disk_to_a_target(shelf: Shelf, tmp_path: Path) -> None:
    shelf.add()
    shelf.cli.run("restore", "web@latest", tmp_path / "out", "--disk", f"data={tmp_path}/data.img", "--disk", "system")
    assert (tmp_path / "data.img").read_bytes() == DATA
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["system.qcow2"]


def test_restore_onto_a_block_device(shelf: Shelf, tmp_path: Path) -> None:
    shelf.add()
    with stored.loop_device(tmp_path / "backing", 8 * stored.BLOCK) as device:
        shelf.cli.run("restore", "web@latest", tmp_path / "out", "--disk", f"system={device}")
        assert device.read_bytes() == SYSTEM.ljust(8 * stored.BLOCK, b"\0")
    assert not (tmp_path / "out").exists()


def test_restore_refuses_what_exists(shelf: Shelf, tmp_path: Path) -> None:
    shelf.add()
    (tmp_path / "system.raw").write_bytes(b"precious")
    outcome = shelf.cli.run("restore", "web@latest", tmp_path, "--format", "raw", expect=24)
    assert outcome.error["error"]["facts"]["target"] == str(tmp_path / "system.raw")
    assert (tmp_path / "system.raw").read_bytes() == b"precious"
    assert not (tmp_path / "data.raw").exists()


def test_restore_names_what_is_damaged(shelf: Shelf, tmp_path: Path) -> None:
    shelf.add()
    stored.damage_packs(shelf.cli.repository)
    error = shelf.cli.run("restore", "web@latest", tmp_path / "out", "--format", "raw", expect=13).error["error"]
    assert (error["facts"]["disk"], error["facts"]["start"], error["facts"]["length"]) == ("system", 0, 65536)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["data.raw"]
