"""One snapshot in one file: written, read where it is, taken over; and what becomes of it on a bad way."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

from headstart import errors, repository
from headstart.repository import snapshot, tree
from headstart.repository.copying import Copying
from headstart.repository.manifest import Manifest
from headstart.store.archive import ArchiveStore, ArchiveWriter
from tests.cli import console
from tests.cli.shelf import DATA, SYSTEM, Shelf
from tests.kit import stores
from tests.kit.cli import ROOT, Cli, QuickCli
from tests.restore import stored

THEIRS = "battery staple"


@pytest.fixture
def made(shelf: Shelf) -> Manifest:
    """One of two snapshots."""
    shelf.add("db", {"disk": stored.content(5, 6)})
    return shelf.add(files={"definition": b"qemu-system-x86_64 -m 1G"})


@pytest.fixture
def file(shelf: Shelf, made: Manifest, tmp_path: Path) -> Path:
    shelf.cli.environment["HEADSTART_TO_PASSWORD"] = THEIRS
    done = shelf.cli.run("export", "web@latest", tmp_path / "web.hsx").json
    assert (done["snapshot"], done["vm"], done["file"]) == (made.id, "web", str(tmp_path / "web.hsx"))
    assert done["bytes"] == (tmp_path / "web.hsx").stat().st_size
    assert (tmp_path / "web.hsx").stat().st_mode & 0o777 == 0o600
    return tmp_path / "web.hsx"


@pytest.fixture
def other(tmp_path: Path) -> Cli:
    """Another host with another repository."""
    return QuickCli(tmp_path / "other", "third password", HEADSTART_FROM_PASSWORD=THEIRS)


def test_it_is_read_where_it_is(file: Path, made: Manifest, tmp_path: Path) -> None:
    cli = QuickCli(tmp_path / "reader", THEIRS)
    words = ("--repository", str(file))
    assert [each["id"] for each in cli.run("snapshots", *words).json["snapshots"]] == [made.id]
    done = cli.run("restore", "web@latest", tmp_path / "out", "--format", "raw", *words)
    assert (tmp_path / "out" / "system.raw").read_bytes() == SYSTEM
    assert (tmp_path / "out" / "data.raw").read_bytes() == DATA
    assert done.json["notes"] == []
    assert cli.run("verify", "--read-data", *words).json["findings"] == []
    assert "it is only read" in cli.run("forget", made.id, *words, expect=None).error["error"]["message"]
    assert QuickCli(tmp_path / "wrong", "guessed").run("snapshots", *words, expect=12)


def test_it_is_taken_over(file: Path, made: Manifest, other: Cli, tmp_path: Path) -> None:
    other.run("init")
    assert [each["there"] for each in other.run("import", file).json["snapshots"]] == [False]
    assert [each["there"] for each in other.run("import", file).json["snapshots"]] == [True]
    file.unlink()
    assert [each["id"] for each in other.run("snapshots").json["snapshots"]] == [made.id]
    other.run("restore", made.id, tmp_path / "out", "--format", "raw")
    assert (tmp_path / "out" / "system.raw").read_bytes() == SYSTEM
    assert other.run("verify", "--read-data").json["findings"] == []


def test_through_a_pipe_and_apart(shelf: Shelf, made: Manifest, tmp_path: Path) -> None:
    """What tar makes of it is a repository, too."""
    command = [sys.executable, "-m", "headstart", "export", made.id, "-"]
    with subprocess.Popen(command, env=shelf.cli.environment, cwd=ROOT, stdout=subprocess.PIPE) as process:
        (tmp_path / "apart").mkdir()
        subprocess.run(["tar", "-x", "-C", tmp_path / "apart"], stdin=process.stdout, check=True, timeout=60)
        assert process.wait(60) == 0
    shelf.cli.run("restore", made.id, tmp_path / "out", "--format", "raw", "--repository", str(tmp_path / "apart"))
    assert (tmp_path / "out" / "system.raw").read_bytes() == SYSTEM


def test_nobody_reads_the_pipe(shelf: Shelf, made: Manifest) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "headstart", "export", made.id, "-"],
            env=shelf.cli.environment,
            cwd=ROOT,
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
        )
    assert done.returncode == 23 and "Could not write standard output" in done.stderr


def test_a_file_that_was_cut_short(file: Path, tmp_path: Path) -> None:
    whole = file.read_bytes()
    source = random.Random(1)
    cuts = {*range(512, len(whole) - 1024, 512), *source.sample(range(1, len(whole) - 1024), 100)}
    cut = tmp_path / "cut.hsx"
    for length in sorted(cuts):
        cut.write_bytes(whole[:length])
        with pytest.raises((errors.Damaged, errors.NoRepository), match=r"it ends too early|no export|is damaged"):
            repository.open(ArchiveStore(cut), lambda: THEIRS.encode()).close()


def test_a_file_that_was_changed_on_the_way(tmp_path: Path) -> None:
    """Wherever a bit is turned over: an error, or what is right."""
    with stores.new_repository() as source_repo, (tmp_path / "web.hsx").open("wb") as opened:
        made = stored.store_snapshot(source_repo, {"system": SYSTEM, "data": DATA})
        writer = ArchiveWriter(opened, "web.hsx")
        with repository.create(writer, stores.PASSWORD, cost=stores.QUICK) as target:
            Copying(source_repo, target, "host", time.time, lambda *_: None).copy(made)
        writer.finish()
    whole = bytearray((tmp_path / "web.hsx").read_bytes())
    source = random.Random(2)
    hurt = tmp_path / "hurt.hsx"
    failed = 0
    for place in source.sample(range(len(whole)), 150):
        changed = bytearray(whole)
        changed[place] ^= 1 << source.randrange(8)
        hurt.write_bytes(changed)
        try:
            with repository.open(ArchiveStore(hurt), lambda: stores.PASSWORD) as repo:
                found = snapshot.load(repo, made.id)
                for disk, content in zip(found.disks, (SYSTEM, DATA), strict=True):
                    for block, chunk in tree.walk(repo, disk.root, disk.size):
                        start = block * stored.BLOCK
                        assert repo.read_chunk(chunk) == content[start : start + stored.BLOCK]
        except (errors.Damaged, errors.NoRepository, errors.NotFound, errors.WrongPassword, errors.Unsupported):
            failed += 1
    assert failed > 30


def test_what_is_no_export(other: Cli, tmp_path: Path) -> None:
    other.run("init")
    (tmp_path / "text").write_text("precious" * 1000)
    (tmp_path / "empty").touch()
    for name in ("text", "empty"):
        said = other.run("import", tmp_path / name, expect=10).error["error"]["message"]
        assert "is no repository and no export" in said
    assert "There is no file" in other.run("import", tmp_path / "nothing", expect=15).error["error"]["message"]


def test_nothing_is_overwritten_and_nothing_half_stays(shelf: Shelf, made: Manifest, tmp_path: Path) -> None:
    (tmp_path / "there").write_bytes(b"precious")
    assert "is not overwritten" in shelf.cli.run("export", made.id, tmp_path / "there", expect=24).stderr
    assert (tmp_path / "there").read_bytes() == b"precious"
    stored.damage_packs(shelf.cli.repository)
    shelf.cli.run("export", made.id, tmp_path / "web.hsx", expect=13)
    assert not list(tmp_path.glob("web.hsx*"))


def test_the_password_is_typed_in_twice(shelf: Shelf, made: Manifest, tmp_path: Path) -> None:
    del shelf.cli.environment["HEADSTART_PASSWORD"]
    words = ("export", made.id, tmp_path / "web.hsx")
    status, shown = console.on_a_terminal(shelf.cli, *words, answers=("correct horse", THEIRS, THEIRS))
    assert status == 0 and "New password" in shown
    QuickCli(tmp_path / "reader", THEIRS).run("snapshots", "--repository", str(tmp_path / "web.hsx"))
