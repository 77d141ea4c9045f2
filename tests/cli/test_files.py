"""``ls``, ``cp``, ``find``, ``versions`` and ``mount``, as users start them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli import console
from tests.cli.shelf import Shelf
from tests.kit import filetrees
from tests.kit.cli import ROOT, Cli

MIB = filetrees.MIB
DAY = 86400.0


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    folder = tmp_path / "tree"
    (folder / "etc").mkdir(parents=True)
    (folder / "usr").mkdir()
    (folder / "etc/hosts").write_bytes(b"127.0.0.1 localhost\n")
    (folder / "etc/app.conf").write_bytes(b"a = 1\n")
    (folder / "etc/link").symlink_to("hosts")
    (folder / "etc/evil \x1b[2Jname\n").write_bytes(b"")
    return folder


@pytest.fixture
def web(shelf: Shelf, tree: Path) -> Cli:
    """A snapshot of ``web``, whose only disk is ``vda``."""
    add(shelf, tree)
    return shelf.cli


def add(shelf: Shelf, tree: Path, day: int = 0) -> bytes:
    """A snapshot of the tree; returns the disk."""
    image = filetrees.make("ext4", shelf.cli.scratch / f"image{time.monotonic_ns()}", 16 * MIB, "-d", tree)
    content = image.read_bytes()
    shelf.add("web", {"vda": content}, created=DAY * day)
    return content


def test_ls_lists_a_directory(web: Cli) -> None:
    listed = web.run("ls", "web@latest:/etc").json
    assert [(each["path"], each["kind"], each["size"]) for each in listed["files"]] == [
        ("/etc/app.conf", "file", 6),
        ("/etc/evil \x1b[2Jname\n", "file", 0),
        ("/etc/hosts", "file", 20),
        ("/etc/link", "symlink", 5),
    ]
    assert listed["files"][3]["target"] == "hosts"
    assert (listed["volume"], listed["path"]) == ("vda", "/etc")
    [volume] = web.run("ls", "web@latest:").json["volumes"]
    assert (volume["name"], volume["content"], volume["size"], volume["mounted"]) == ("vda", "ext4", 16 * MIB, "/")


def test_ls_for_people(web: Cli) -> None:
    assert console.run(web, "ls", "web@latest:/etc").stdout.splitlines() == [
        "app.conf",
        "evil ?[2Jname?",
        "hosts",
        "link",
    ]
    lines = console.run(web, "ls", "-l", "web@latest:/etc").stdout.splitlines()
    assert lines[3].startswith("lrwxrwxrwx  1  0  0") and lines[3].endswith("link -> hosts")
    shown = console.run(web, "ls", "web@latest:").stdout.splitlines()
    assert shown[1].split() == ["vda", "ext4", "16.0", "MiB", "-", "/"]


def test_cp_a_file(web: Cli, tmp_path: Path) -> None:
    done = web.run("cp", "web@latest:/etc/hosts", "web@latest:/etc/app.conf", tmp_path).json
    assert (done["files"], done["data_bytes"], done["left_out"]) == (2, 26, 0)
    assert (tmp_path / "hosts").read_bytes() == b"127.0.0.1 localhost\n"
    assert (tmp_path / "app.conf").read_bytes() == b"a = 1\n"
    web.run("cp", "web@latest:/etc/hosts", tmp_path / "renamed")
    assert (tmp_path / "renamed").read_bytes() == b"127.0.0.1 localhost\n"


def test_cp_a_link_and_what_it_leads_to(web: Cli, tmp_path: Path) -> None:
    web.run("cp", "web@latest:/etc/link", tmp_path)
    assert (tmp_path / "link").readlink() == Path("hosts")
    web.run("cp", "-L", "web@latest:/etc/link", tmp_path / "followed")
    assert (tmp_path / "followed").read_bytes() == b"127.0.0.1 localhost\n"


def test_cp_overwrites_nothing_without_force(web: Cli, tmp_path: Path) -> None:
    (tmp_path / "hosts").write_bytes(b"mine")
    refused = web.run("cp", "web@latest:/etc/hosts", tmp_path, expect=24)
    assert "--force" in refused.error["error"]["message"]
    assert (tmp_path / "hosts").read_bytes() == b"mine"
    web.run("cp", "--force", "web@latest:/etc/hosts", tmp_path)
    assert (tmp_path / "hosts").read_bytes() == b"127.0.0.1 localhost\n"
    assert not list(tmp_path.glob(".headstart*"))


@pytest.mark.parametrize("number", [2, 5])
def test_a_killed_cp_leaves_no_part_of_a_file(shelf: Shelf, tree: Path, tmp_path: Path, number: int) -> None:
    """Each piece has a MiB."""
    for name in ("a", "b"):
        (tree / "etc" / name).write_bytes(os.urandom(3 * MIB))
    add(shelf, tree)
    shelf.cli.run(
        "cp", "web@latest:/etc", tmp_path / "out", kill_before=f"headstart.restore.files.extraction:_write:{number}"
    )
    left = {each.name: each.read_bytes() for each in (tmp_path / "out").iterdir() if each.is_file()}
    assert all(content == (tree / "etc" / name).read_bytes() for name, content in left.items())
    assert "b" not in left and ("a" in left) == (number > 3)


def test_cp_everything(web: Cli, tree: Path, tmp_path: Path) -> None:
    done = web.run("cp", "web@latest:/", tmp_path / "out")
    told = [json.loads(line).get("progress") for line in done.stderr.splitlines()]
    assert {("copying", 26, 26)} <= {(each["what"], each["done"], each["total"]) for each in told if each}
    copied = filetrees.plainly(filetrees.describe(tmp_path / "out"))
    assert copied == filetrees.plainly(filetrees.describe(tree))
    (tmp_path / "into").mkdir()
    web.run("cp", "web@latest:/", tmp_path / "into")
    assert [each.name for each in (tmp_path / "into").iterdir()] == ["web"]


def test_cp_to_stdout(web: Cli, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "headstart.cli.main", "cp", "web@latest:/etc", "-"],
        cwd=ROOT,
        env=web.environment,
        capture_output=True,
    )
    assert done.returncode == 0, done.stderr
    (tmp_path / "tar").write_bytes(done.stdout)
    with tarfile.open(tmp_path / "tar") as opened:
        assert opened.extractfile("etc/hosts").read() == b"127.0.0.1 localhost\n"  # type: ignore[union-attr]
    refused = web.run("cp", "web@latest:/etc", "-", expect=2)
    assert "--json" in refused.error["error"]["message"]


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (("ls", "web@latest:/nope"), 15, "no '/nope'"),
        (("ls", "web@latest"), 2, "names no file"),
        (("ls", "web@latest:vdb:/x"), 15, "no volume 'vdb'"),
        (("ls", "db@latest:/"), 15, "'db'"),
        (("cp", "web@latest:/etc", "/nowhere/at/all"), 24, "make it"),
        (("cp", "web@latest:/etc", "web@latest:/usr", "/nowhere"), 2, "several files"),
        (("versions", "web@latest:/etc"), 2, "NAME:/PATH"),
        (("versions", "db:/etc"), 15, "'db'"),
        (("versions", "web:/nope"), 15, "No snapshot"),
        (("mount", "web@latest", "/nowhere/at/all"), 24, "make it"),
    ],
)
def test_paths_that_are_not_there_are_told(web: Cli, arguments: tuple[str, ...], status: int, said: str) -> None:
    failed = web.run(*arguments, expect=status)
    assert said in failed.error["error"]["message"]


def test_find_lists_what_matches(web: Cli) -> None:
    found = web.run("find", "web@latest:/", "--name", "*.conf", "--name", "ho*").json["files"]
    assert [each["path"] for each in found] == ["/etc/app.conf", "/etc/hosts"]
    shown = console.run(web, "find", "web@latest:/etc").stdout.splitlines()
    assert shown == ["/etc", "/etc/app.conf", "/etc/evil ?[2Jname?", "/etc/hosts", "/etc/link"]


def test_versions(shelf: Shelf, tree: Path) -> None:
    """The same content is recognised without being read, but for what lies in a block that changed."""
    (tree / "etc/large").write_bytes(os.urandom(4 * MIB))
    disk = bytearray(add(shelf, tree))
    at = disk.index(b"a = 1\n")
    disk[at : at + 6] = b"a = 2\n"
    shelf.add("web", {"vda": bytes(disk)}, created=DAY)
    (tree / "etc/app.conf").unlink()
    (tree / "etc/ballast").write_bytes(os.urandom(MIB))
    add(shelf, tree, 2)  # what is large lies elsewhere
    (tree / "etc/hosts").chmod(0o600)
    (tree / "etc/ballast").write_bytes(os.urandom(MIB))
    (tree / "etc/large").write_bytes(os.urandom(4 * MIB))
    add(shelf, tree, 3)
    shelf.add("web", {"vda": bytes(MIB)}, created=4 * DAY)

    def versions(path: str) -> list[tuple[str, int]]:
        told = shelf.cli.run("versions", f"web:{path}").json["versions"]
        return [(each["state"], each["compared_bytes"]) for each in told]

    assert [state for state, _ in versions("/etc/app.conf")] == ["new", "changed", "absent", "absent", "absent"]
    assert [state for state, _ in versions("/etc/hosts")] == ["new", "same", "same", "metadata", "absent"]
    (_, _), (second, little), (third, much), (fourth, _), _ = versions("/etc/large")
    assert (second, third, fourth) == ("same", "same", "changed")
    assert little < 128 * 1024 < 4 * MIB == much


@pytest.fixture
def mountable() -> None:
    if not Path("/dev/fuse").exists() or os.geteuid() != 0:
        pytest.skip("no FUSE here")


@pytest.fixture
def mounted(web: Cli, tmp_path: Path, mountable: None) -> Iterator[tuple[Path, subprocess.Popen[str]]]:
    folder = tmp_path / "mnt"
    folder.mkdir()
    process = web.start("mount", "web@latest", folder)
    assert process.stdout is not None
    line = process.stdout.readline()
    assert line and json.loads(line)["directory"] == str(folder), process.communicate()
    try:
        yield folder, process
    finally:
        subprocess.run(["umount", "-l", folder], capture_output=True)
        process.kill()
        process.communicate()


def test_a_mount_shows_all_files_and_takes_none(mounted: tuple[Path, subprocess.Popen[str]], tree: Path) -> None:
    folder, process = mounted
    assert filetrees.plainly(filetrees.describe(folder)) == filetrees.plainly(filetrees.describe(tree))
    with pytest.raises(OSError, match="Read-only"):
        (folder / "new").write_bytes(b"x")
    with pytest.raises(FileNotFoundError):
        (folder / "nope").read_bytes()
    subprocess.run(["umount", folder], check=True)
    assert process.wait(20) == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_a_mount(
    mounted: tuple[Path, subprocess.Popen[str]], number: signal.Signals, web: Cli, tmp_path: Path
) -> None:
    folder, process = mounted
    assert list((web.repository / "leases").glob("*/*")), "nothing keeps the snapshot from being collected"
    process.send_signal(number)
    assert process.wait(20) == 0
    assert not list(folder.iterdir())
    assert not list((web.repository / "leases").glob("*/*"))


def test_mount_several_volumes(shelf: Shelf, tree: Path, tmp_path: Path, mountable: None) -> None:
    images = [
        filetrees.make("ext4", tmp_path / f"image{number}", 16 * MIB, "-d", tree).read_bytes() for number in (1, 2)
    ]
    shelf.add("web", {"vda": images[0], "vdb": images[1]})
    folder = tmp_path / "mnt"
    folder.mkdir()
    process = shelf.cli.start("mount", "web@latest:", folder)
    try:
        assert process.stdout is not None and json.loads(process.stdout.readline())["volumes"] == ["vda", "vdb"]
        assert sorted(each.name for each in folder.iterdir()) == ["vda", "vdb"]
        assert (folder / "vdb/etc/hosts").read_bytes() == b"127.0.0.1 localhost\n"
    finally:
        subprocess.run(["umount", folder], check=True)
        process.communicate(timeout=20)
