"""File systems that a guest made to deceive: nothing leaves the target, nothing hangs, nothing breaks us."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import random
import re
import resource
import stat
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from headstart import errors
from headstart.restore.files import extraction, guestpath
from headstart.restore.files.archive import Archive
from headstart.restore.files.contents import Contents
from headstart.restore.files.extraction import Copied
from headstart.restore.files.filetree import Troubles
from headstart.store.local import LocalStore
from headstart.volumes import confined, filesystem
from tests.kit import filetrees, stores
from tests.restore import stored
from tests.volumes.metadata import Bytes

MIB = filetrees.MIB
ALL = guestpath.parse("c0ffee:vda:/")


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    folder = tmp_path / "tree"
    (folder / "folder/below").mkdir(parents=True)
    (folder / "folder/AAAAAAAA").write_bytes(b"misnamed")
    (folder / "folder/file").write_bytes(b"content")
    (folder / "folder/below/file").write_bytes(b"content")
    (folder / "BBBBBBBB").symlink_to(tmp_path / "victim")
    (folder / "CCCCCCCC").mkdir()
    (folder / "CCCCCCCC/inside").write_bytes(b"content")
    return folder


def image_of(tree: Path, size: int = 16 * MIB) -> Path:
    return filetrees.make("ext4", tree.with_name("image"), size, "-O", "^metadata_csum", "-d", tree)


def edit(image: Path, *commands: str) -> None:
    for command in commands:
        done = subprocess.run(["/sbin/debugfs", "-w", "-R", command, image], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr


def rename(image: Path, old: bytes, new: bytes) -> None:
    """In directories, to what no system call would take."""
    data = image.read_bytes()
    assert len(old) == len(new) and old in data
    image.write_bytes(data.replace(old, new))


def contents_of(image: Path) -> Contents:
    repo = stores.new_repository()
    return Contents(repo, stored.store_snapshot(repo, {"vda": image.read_bytes()}))


def names_in(folder: Path) -> list[str]:
    return sorted(each.name for each in folder.iterdir())


def copy(image: Path, target: Path, *, force: bool = False) -> Copied:
    copied = Copied()
    target.mkdir(exist_ok=True)
    with contents_of(image) as contents:
        extraction.copy(*contents.find(ALL), target, "copy", copied, lambda _: None, force=force)
    return copied


def test_a_directory_within_itself_is_entered_once(tree: Path, tmp_path: Path) -> None:
    image = image_of(tree)
    edit(image, "link folder folder/below/again", "link folder again")
    copied = copy(image, tmp_path / "out")
    assert (tmp_path / "out/copy/folder/below/file").exists() or (tmp_path / "out/copy/again/below/file").exists()
    assert copied.troubles.count == 2
    assert all("part of itself" in why for _, why in copied.troubles.kept)


@pytest.mark.parametrize("name", [b"../../xx", b"/etc/xyz", b"..\0AAAAA", b"a/../..b"])
def test_names_that_lead_elsewhere_are_left_out(tree: Path, tmp_path: Path, name: bytes) -> None:
    image = image_of(tree)
    rename(image, b"AAAAAAAA", name)
    copied = copy(image, tmp_path / "out")
    assert names_in(tmp_path / "out") == ["copy"]
    assert names_in(tmp_path / "out/copy/folder") == ["below", "file"]
    assert copied.troubles.count <= 1


def test_a_link_and_a_directory_of_one_name(tree: Path, tmp_path: Path) -> None:
    """The link leads to the victim, and what is in the directory would go there."""
    (tmp_path / "victim").mkdir()
    image = image_of(tree)
    rename(image, b"CCCCCCCC", b"BBBBBBBB")
    copied = copy(image, tmp_path / "out")
    assert not names_in(tmp_path / "victim")
    assert copied.troubles.kept == [("/", "it has several files of the name 'BBBBBBBB', of which one is shown")]


def test_links_in_the_target_are_not_followed(tree: Path, tmp_path: Path) -> None:
    """Somebody else may have put them there, even while we copy."""
    (tmp_path / "victim").mkdir()
    (tmp_path / "out/copy/folder").mkdir(parents=True)
    (tmp_path / "out/copy/CCCCCCCC").symlink_to(tmp_path / "victim")
    (tmp_path / "victim/file").write_bytes(b"precious")
    (tmp_path / "out/copy/folder/file").symlink_to(tmp_path / "victim/file")
    copied = copy(image_of(tree), tmp_path / "out", force=True)
    assert names_in(tmp_path / "victim") == ["file"]
    assert (tmp_path / "victim/file").read_bytes() == b"precious"
    assert [path for path, _ in copied.troubles.kept] == ["/CCCCCCCC"]
    assert (tmp_path / "out/copy/folder/file").read_bytes() == b"content"
    assert not (tmp_path / "out/copy/folder/file").is_symlink()


def swapped_for_a_link(victim: Path, name: str, folder: int) -> None:
    os.symlink(victim, name, dir_fd=folder)


def swapped_for_another_name(victim: Path, name: str, folder: int) -> None:
    os.link(victim, name, dst_dir_fd=folder)


@pytest.mark.parametrize(
    ("kind", "victim", "swapped"),
    [
        ("fifo", "file", swapped_for_a_link),
        ("fifo", "file", swapped_for_another_name),
        ("fifo", "fifo", swapped_for_another_name),
        ("symlink", "file", swapped_for_another_name),
    ],
)
def test_a_name_is_swapped_while_it_is_made(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
    victim: str,
    swapped: Callable[[Path, str, int], None],
) -> None:
    """By whoever owns the target, for what is not theirs: its owner, mode and times stay."""
    tree, out, theirs = (tmp_path / name for name in ("tree", "out", "victim"))
    tree.mkdir()
    out.mkdir()
    os.mkfifo(tree / "name", 0o666) if kind == "fifo" else (tree / "name").symlink_to("elsewhere")
    os.utime(tree / "name", (1, 1), follow_symlinks=False)
    os.mkfifo(theirs, 0o600) if victim == "fifo" else theirs.touch(0o600)
    image = image_of(tree)
    edit(image, "set_inode_field name uid 65534")
    before = theirs.stat()
    make, place = (os.mknod, 0) if kind == "fifo" else (os.symlink, 1)

    def made(*arguments: Any, dir_fd: int) -> None:
        make(*arguments, dir_fd=dir_fd)
        os.unlink(arguments[place], dir_fd=dir_fd)
        swapped(theirs, arguments[place], dir_fd)

    copied = Copied()
    with contents_of(image) as contents:
        found = contents.find(guestpath.parse("c0ffee:vda:/name"), follow=False)
        monkeypatch.setattr(os, make.__name__, made)
        extraction.copy(*found, out, "name", copied, lambda _: None)
    after = theirs.stat()
    assert (after.st_uid, after.st_mode, after.st_mtime) == (before.st_uid, before.st_mode, before.st_mtime)
    assert [(path, "somebody else" in why) for path, why in copied.troubles.kept] == [("/name", True)]


def test_only_root_makes_programs_that_run_as_their_owner(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Root's in the guest would run as whoever copies it; and the numbers of a user of the guest say nothing here."""
    (tmp_path / "tree/shared").mkdir(parents=True)
    for name in ("of root", "of group", "of mine", "plain"):
        (tmp_path / "tree" / name).touch()
    image = image_of(tmp_path / "tree")
    edit(image, 'sif "of root" mode 0104755', 'sif "of group" mode 0102755', 'sif "of mine" mode 0106755')
    edit(image, 'sif "of mine" uid 1000', 'sif "of mine" gid 1000', "sif plain mode 0100644", "sif shared mode 0042770")

    def modes(target: Path) -> tuple[list[str], dict[str, int]]:
        copied = copy(image, target)
        found = {each.name: each.stat() for each in (target / "copy").iterdir() if each.name != "lost+found"}
        return copied.notes(), {name: stat.S_IMODE(each.st_mode) for name, each in sorted(found.items())}

    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setattr(os, "getegid", lambda: 1000)
    notes, found = modes(tmp_path / "out")
    assert found == {"of group": 0o755, "of mine": 0o755, "of root": 0o755, "plain": 0o644, "shared": 0o2770}
    assert any("setuid" in note and "(3 files)" in note for note in notes)
    monkeypatch.undo()
    if os.geteuid() == 0:
        assert modes(tmp_path / "by root")[1] == {**found, "of group": 0o2755, "of mine": 0o6755, "of root": 0o4755}


def test_absurd_sizes(tree: Path, tmp_path: Path) -> None:
    """A file of 8 EiB, all hole, costs nothing; one that claims more data than there is, is refused. So is a link to
    what no system call takes."""
    (tree / "link").symlink_to("DDDDDDDD")
    image = image_of(tree)
    rename(image, b"DDDDDDDD", b"DDD\0DDDD")
    edit(image, "set_inode_field folder/file size 0x7ffffffffffffff0")
    copied = copy(image, tmp_path / "out")
    assert (tmp_path / "out/copy/folder/below/file").read_bytes() == b"content"
    assert [path for path, _ in copied.troubles.kept] in (["/link"], ["/link", "/folder/file"])
    with (tmp_path / "tar").open("wb") as stream, contents_of(image) as contents:
        archive = Archive(stream, Copied())
        archive.add(*contents.find(ALL), "copy", lambda _: None)
        archive.close()
    assert (tmp_path / "tar").stat().st_size < MIB


@pytest.mark.parametrize("checked", [True, False])
def test_an_archive_promises_no_more_than_there_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, checked: bool
) -> None:
    """``checked``: by the driver; else by us, whatever it says. What Linux has grown by truncate(2) is sound."""
    (tmp_path / "tree").mkdir()
    for name in ("small", "grown"):
        (tmp_path / "tree" / name).write_bytes(b"hello")
    image = filetrees.make("ext4", tmp_path / "image", 8 * MIB, "-O", "inline_data", "-d", tmp_path / "tree")
    edit(image, f"set_inode_field small size {1 << 60 if checked else 5}", "set_inode_field grown size 5000")
    copied = Copied()
    with (tmp_path / "tar").open("wb") as stream, contents_of(image) as contents:
        _, grown = contents.find(guestpath.parse("c0ffee:vda:/grown"))
        assert grown.system.read(grown.details(), 0, 9000) == b"hello" + bytes(4995)
        tree, top = contents.find(guestpath.parse("c0ffee:vda:/small"))
        details = top.details() if not checked else None
        if details is not None:
            monkeypatch.setattr(
                type(top),
                "details",
                lambda _: dataclasses.replace(details, node=dataclasses.replace(details.node, size=1 << 60)),
            )
        archive = Archive(stream, copied)
        archive.add(tree, top, "small", lambda _: None)
        archive.close()
    assert [path for path, _ in copied.troubles.kept] == ["/small"]
    assert (tmp_path / "tar").stat().st_size < MIB


def test_blocks_outside_of_the_volume(tree: Path, tmp_path: Path) -> None:
    (tree / "far").write_bytes(os.urandom(100_000))
    image = filetrees.make("ext2", tmp_path / "image", 16 * MIB, "-d", tree)
    edit(image, "set_inode_field far block[0] 0x7fffffff")
    copied = copy(image, tmp_path / "out")
    assert [path for path, _ in copied.troubles.kept] == ["/far"]
    assert not (tmp_path / "out/copy/far").exists(), "a part of a file was left behind as a whole one"
    assert (tmp_path / "out/copy/folder/file").read_bytes() == b"content"


def test_a_tree_deeper_than_a_path_may_be(tmp_path: Path) -> None:
    """4096 bytes are the longest path that the system takes at once."""
    tree = tmp_path / "tree"
    tree.mkdir()
    image = filetrees.make("ext4", tmp_path / "image", 32 * MIB)
    with filetrees.mounted(image, tmp_path / "mnt") as mnt:
        here = os.open(mnt, os.O_RDONLY)
        for _ in range(300):
            os.mkdir("d" * 100, dir_fd=here)
            below = os.open("d" * 100, os.O_RDONLY, dir_fd=here)
            os.close(here)
            here = below
        os.close(os.open("bottom", os.O_CREAT | os.O_WRONLY, dir_fd=here))
        os.close(here)
    copied = copy(image, tmp_path / "out")
    assert not copied.troubles.count
    assert (copied.directories, copied.files) == (302, 1)
    subprocess.run(["rm", "-r", tmp_path / "out"], check=True)


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """Small file systems of each kind, with some files."""
    folder = tmp_path_factory.mktemp("samples")
    tree = folder / "tree"
    tree.mkdir()
    for number in range(40):
        (tree / f"file {number}").write_bytes(os.urandom(number * 1000))
    (tree / "folder").mkdir()
    (tree / "folder/link").symlink_to("x" * 200)
    made = {"ext4": filetrees.make("ext4", folder / "ext4", 4 * MIB, "-d", tree)}
    made["vfat"] = filetrees.make("vfat", folder / "vfat", 4 * MIB)
    filetrees.into_fat(made["vfat"], tree, *(f"file {number}" for number in range(40)))
    made["ntfs"] = filetrees.make("ntfs", folder / "ntfs", 8 * MIB)
    for number in range(40):
        subprocess.run(["ntfscp", "-q", made["ntfs"], tree / f"file {number}", f"/file {number}"], check=True)
    return {kind: image.read_bytes() for kind, image in made.items()}


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("kind", ["ext4", "vfat", "ntfs"])
def test_damaged_metadata_ends_in_words(samples: dict[str, bytes], tmp_path: Path, kind: str, seed: int) -> None:
    """Whatever is in there: an error of ours, or what can be read; and no minute passes."""
    source = random.Random(f"{kind}{seed}")
    data = bytearray(samples[kind])
    used = [at for at in range(0, len(data), 512) if any(data[at : at + 512])]
    for _ in range(40):
        at = source.choice(used) + source.randrange(512)
        data[at : at + 4] = source.randbytes(4)
    (tmp_path / "image").write_bytes(data)
    began = time.monotonic()
    with contextlib.suppress(errors.NotFound, errors.Unsupported, confined.BrokenFileSystem):
        copy(tmp_path / "image", tmp_path / "out")
    assert time.monotonic() - began < 30


@pytest.fixture
def many_descriptors() -> Iterator[None]:
    """As a server with that many connections: what is opened now has a number beyond 1023."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(4096, hard), hard))
    taken = [os.open(os.devnull, os.O_RDONLY) for _ in range(1100)]
    yield
    for each in taken:
        os.close(each)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_parser_that_dies_is_an_error_and_starts_again(tree: Path, many_descriptors: None) -> None:
    with contents_of(image_of(tree)) as contents:
        files, top = contents.find(ALL)
        process = top.system._parser._process
        assert process is not None
        process.kill()
        process.wait()
        assert {step.file.path for step in files.walk(top, Troubles())} >= {"/folder/file"}


def test_a_parser_that_says_nothing_is_ended(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with contents_of(image_of(tree)) as contents:
        _, top = contents.find(ALL)
        process = top.system._parser._process
        assert process is not None
        process.send_signal(19)  # SIGSTOP
        monkeypatch.setattr(confined, "SILENT_SECONDS", 0.2)
        with pytest.raises(confined.BrokenFileSystem, match="took more than"):
            top.system.entries(top.node.number)
        assert process.poll() is not None


#: What a process may do that was taken over: half a frame, none of what it asked for is taken, frames without end.
HALF = "out.write(b'D' + bytes(2)); out.flush()"
DEAF = "parserframes.put(out, b'N', b'[\"vda\", 0, 4194304]')"
ENDLESS = "while True: parserframes.put(out, b'P', b'[]')"


DEEP = "parserframes.put(out, b'D', b'[' * 200_000)"


@pytest.mark.parametrize(
    ("does", "seconds", "told"),
    [
        (HALF, 1.0, "took more than"),
        (DEAF, 1.0, "took more than"),
        (ENDLESS, 1.0, "took more than"),
        (HALF, None, "took more than"),
        (ENDLESS, 15.0, "at once"),
        (DEEP, 15.0, "made no sense"),
    ],
)
def test_a_parser_that_was_taken_over_can_do_no_more(
    monkeypatch: pytest.MonkeyPatch, does: str, seconds: float | None, told: str
) -> None:
    script = "import sys, time; sys.path[:] = sys.argv[2:]; from headstart.volumes import parserframes\n"
    monkeypatch.setattr(confined, "_START", f"{script}out = sys.stdout.buffer\n{does}\ntime.sleep(15)")
    monkeypatch.setattr(confined, "SILENT_SECONDS", seconds or 1.0)
    monkeypatch.setattr(confined, "MOST_TOLD", MIB if told == "at once" else confined.MOST_TOLD)
    with (
        confined.Parser("look", {"vda": Bytes(bytes(8 * MIB))}, seconds=seconds) as parser,
        pytest.raises(confined.BrokenFileSystem, match=told),
    ):
        parser.start()


def test_no_more_is_told_of_several_files_than_memory_has_room_for(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    few = "from headstart.volumes import parserprocess; parserprocess._MOST_TOGETHER = 1; parserprocess.main('ext4')"
    (tree / "\N{GREEK SMALL LETTER ALPHA}\udcff").touch()
    with contents_of(image_of(tree)) as contents:
        files, top = contents.find(ALL)
        top.system.close()
        monkeypatch.setattr(confined, "_START", f"import sys; sys.path[:] = sys.argv[2:]; {few}")
        numbers = [files.find(path).node.number for path in ("/folder/file", "/folder/below/file")]
        top.system.announce(numbers)
        assert top.system.details(numbers[0]).node.size == 7 and not top.system._fetched
        assert top.system.details(numbers[1]).node.size == 7
        monkeypatch.setattr(confined, "MOST_TOLD", 1)
        names = {entry.name for entry in top.system.entries(top.node.number)}
        assert names == {*names_in(tree), "lost+found"}, "of names more may be told"
        monkeypatch.setattr(confined, "MOST_NAMES", 1)
        with pytest.raises(confined.BrokenFileSystem, match="at once"):
            top.system.entries(top.node.number)


LOOP = """
from headstart.volumes import parserprocess
def loop(*_):
    while True: pass
parserprocess._SECONDS, parserprocess.survey.volumes = 1, loop
parserprocess.main("survey")
"""


def test_a_parser_in_a_loop_ends_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also if nobody waits for it any longer."""
    monkeypatch.setattr(confined, "_START", f"import sys; sys.path[:] = sys.argv[2:]{LOOP}")
    with pytest.raises(confined.BrokenFileSystem, match="ended by SIGXCPU"):
        confined.survey({})


@pytest.mark.parametrize(
    "told",
    [
        {"uid": 1 << 32},
        {"gid": 1 << 32},
        {"major": 1 << 32},
        {"target": "a\0b"},
        {"target": "\ud800"},
        {"xattrs": {"user.\0": b""}},
    ],
    ids=str,
)
def test_what_no_system_call_takes_is_not_believed(told: dict[str, Any]) -> None:
    node = filesystem.Node(1, "file", 0o644, 0, 0, 0, 1, 0, 0, 0)
    details = filesystem.Details(node, (), "", {})
    in_node = told.keys() <= {"uid", "gid", "major"}
    said = dataclasses.replace(details, node=dataclasses.replace(node, **told)) if in_node else None
    said = said or dataclasses.replace(details, **told)
    filesystem.details_of(json.loads(json.dumps(filesystem.told(details))), MIB)
    with pytest.raises(filesystem.Malformed):
        filesystem.details_of(json.loads(json.dumps(filesystem.told(said))), MIB)


CONFINED = """
import os, resource, socket
from headstart.volumes import parserprocess
resource.setrlimit(resource.RLIMIT_CPU, (60, 60))  # as where whoever runs it has one
parserprocess._confine()
parserprocess._go_on()
def tried(what):
    try:
        what()
    except OSError:
        return "refused"
    return "allowed"
print(tried(lambda: open("/etc/hosts")), tried(lambda: socket.socket()), tried(lambda: os.fork() or os._exit(0)),
      tried(lambda: os.kill(os.getppid(), 0)), os.environ.get("HEADSTART_PASSWORD"),
      resource.getrlimit(resource.RLIMIT_CPU)[0])
"""


def test_what_parses_can_do_little_else(monkeypatch: pytest.MonkeyPatch, tree: Path) -> None:
    monkeypatch.setattr(confined, "_START", "import sys; sys.path[:] = sys.argv[2:]" + CONFINED)
    monkeypatch.setenv("HEADSTART_PASSWORD", "secret")
    parser = confined.Parser("ext4", {})
    monkeypatch.setattr(parser, "_call", lambda *_, **__: None)
    parser.opened()
    process = parser._process
    assert process is not None and process.stdout is not None
    said = process.stdout.read().decode().split()
    parser.close()
    others = "refused" if os.geteuid() == 0 else "allowed"  # a process of the same user can be signalled
    assert said == ["refused", "refused", "refused", others, "None", "60"]


def test_the_process_that_parses_is_confined(tree: Path) -> None:
    with contents_of(image_of(tree)) as contents:
        _, top = contents.find(ALL)
        process = top.system._parser._process
        assert process is not None
        limits = Path(f"/proc/{process.pid}/limits").read_text()
        status = dict(
            line.split(":\t", 1)
            for line in Path(f"/proc/{process.pid}/status").read_text().splitlines()
            if "\t" in line
        )
    assert re.search(r"Max open files +0 +0", limits)
    assert status["NoNewPrivs"] == "1"
    if os.geteuid() == 0:
        assert set(status["Uid"].split()) == {"65534"} and not status["Groups"].strip()


@pytest.fixture
def damaged(tmp_path: Path) -> Iterator[Contents]:
    """One pack with the content of a file is damaged."""
    tree = tmp_path / "tree"
    tree.mkdir()
    for name in ("one", "two", "three"):
        (tree / name).write_bytes(os.urandom(2 * MIB))
    image = filetrees.make("ext4", tmp_path / "image", 16 * MIB, "-d", tree)
    with stores.new_repository(LocalStore(tmp_path / "repository")) as repo:
        manifest = stored.store_snapshot(repo, {"vda": image.read_bytes()})
        [pack] = [each for each in (tmp_path / "repository/packs").iterdir() if each.stat().st_size > 5 * MIB]
        data = bytearray(pack.read_bytes())
        data[len(data) // 2] ^= 1
        pack.write_bytes(data)
        with Contents(repo, manifest) as contents:
            yield contents


def test_a_damaged_chunk_costs_its_file_alone(damaged: Contents, tmp_path: Path) -> None:
    copied = Copied()
    extraction.copy(*damaged.find(ALL), tmp_path, "out", copied, lambda _: None)
    [(path, why)] = copied.troubles.kept
    assert "damaged" in why
    whole = {"one", "two", "three"} - {path.removeprefix("/")}
    assert {each.name for each in (tmp_path / "out").iterdir()} - {"lost+found"} == whole
    for name in whole:
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "tree" / name).read_bytes()
