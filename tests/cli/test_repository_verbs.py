"""init, snapshots, diff, stats, verify, restore."""

from __future__ import annotations

from pathlib import Path

from tests.cli import console
from tests.cli.shelf import DATA, SYSTEM, Shelf
from tests.kit import compare
from tests.kit.cli import Cli
from tests.restore import stored


def test_init_makes_an_encrypted_repository(cli: Cli) -> None:
    made = cli.run("init").json
    assert made["repository"] == str(cli.repository)
    assert made["encrypted"] is True
    assert made["block_size"] == 65536
    assert len(made["id"]) == 32


def test_snapshots_lists_them(shelf: Shelf) -> None:
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


def test_verify_finds_a_sound_repository_whole(shelf: Shelf) -> None:
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


def test_restore_writes_the_disks_and_the_definition(shelf: Shelf, tmp_path: Path) -> None:
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
        "kept_bytes": 0,
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


def test_diff_tells_what_differs_by_disk(shelf: Shelf) -> None:
    before = shelf.add(disks={"system": stored.content(1, 2, 3), "old": stored.content(1)})
    after = shelf.add(disks={"system": stored.content(1, 5, 6, 7), "new": stored.content(0, 9)})
    done = shelf.cli.run("diff", before.id[:8], after.id[:8]).json
    assert (done["before"], done["after"]) == (before.id, after.id)
    new, old, system = done["disks"]
    size = stored.BLOCK
    assert system == {
        "name": "system",
        "size_before": 3 * size,
        "size_after": 4 * size,
        "changed_bytes": 3 * size,
        "extents": [[size, 3 * size]],
    }
    assert (new["size_before"], new["extents"], old["size_after"], old["extents"]) == (
        None,
        [[size, size]],
        None,
        [[0, size]],
    )
    shown = console.run(shelf.cli, "diff", before.id, after.id).stdout
    assert "system  192.0 KiB, then 256.0 KiB: 192.0 KiB in 1 extent" in shown
    assert "new  128.0 KiB, only in the second: 64.0 KiB in 1 extent" in shown
    assert "the same content" in console.run(shelf.cli, "diff", after.id, after.id).stdout
    assert shelf.cli.run("diff", before.id, "ffff", expect=15).error["error"]["kind"] == "NotFound"


def test_stats_tells_what_is_stored(shelf: Shelf) -> None:
    shelf.add("web", {"disk": stored.content(1, 2)})
    shelf.add("db", {"disk": stored.content(1, 3, 4)})
    done = shelf.cli.run("stats").json
    assert done["protected"] == {"snapshots": 2, "size": 5 * stored.BLOCK, "data": 5 * stored.BLOCK}
    assert (done["content"]["count"], done["content"]["bytes"]) == (4, 4 * stored.BLOCK)
    assert done["deduplication"] == 5 / 4
    assert done["compression"] > 10
    assert {each["vm"]: each["needed"]["count"] for each in done["vms"]} == {"web": 2, "db": 3}
    assert done["stored"] == sum(path.stat().st_size for path in shelf.cli.repository.rglob("*") if path.is_file())
    shown = console.run(shelf.cli, "stats").stdout
    assert "2 snapshots of disks with 320.0 KiB" in shown and "(deduplication 1.2)" in shown
    stored.damage_packs(shelf.cli.repository)
    shelf.cli.run("stats")
    for pack in (shelf.cli.repository / "packs").iterdir():
        pack.unlink()
    assert shelf.cli.run("stats", expect=3).error["error"]["kind"] == "Incomplete"
