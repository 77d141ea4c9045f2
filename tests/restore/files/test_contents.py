"""Volumes of every layout, and how a path finds its way to the right one."""

from __future__ import annotations

import subprocess
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from headstart import errors
from headstart.extents import Extent
from headstart.repository.manifest import Excluded
from headstart.restore.files import guestpath
from headstart.restore.files.contents import Contents
from headstart.restore.files.filetree import Troubles
from tests.kit import disks, filetrees
from tests.restore.files.images import ext4, opened
from tests.volumes import metadata

MIB = filetrees.MIB


def children() -> set[str]:
    return {pid for each in Path("/proc/self/task").glob("*/children") for pid in each.read_text().split()}


def read(contents: Contents, path: str) -> bytes:
    _, file = contents.find(guestpath.parse(f"c0ffee:{path}"))
    return file.system.read(file.details(), 0, 1000)


def partitioned(image: Path, table: str, *parts: tuple[int, Path]) -> Path:
    """A disk with this table (as sfdisk has it), and file systems at these sectors."""
    with image.open("xb") as file:
        file.truncate(200 * MIB)
    done = subprocess.run(["/sbin/sfdisk", "-q", image], input=table, text=True, capture_output=True)
    assert done.returncode == 0, done.stderr
    with image.open("r+b") as file:
        for sector, part in parts:
            file.seek(sector * 512)
            file.write(part.read_bytes())
    return image


ROOT = {"etc/hosts": b"of the root", "usr/bin/true": b"", "home/hidden": b"under the mount"}


def test_partitions_of_a_gpt_keep_their_numbers(tmp_path: Path) -> None:
    """Partitions keep their numbers, whatever their order on the disk."""
    root, data = ext4(tmp_path, "root", ROOT), ext4(tmp_path, "data", {"x": b"of data"}, "-L", "data")
    disk = partitioned(
        tmp_path / "disk",
        "label: gpt\n2: start=2048, size=32768, name=second\n1: start=40960, size=32768\n",
        (2048, root),
        (40960, data),
    )
    with opened({"vda": disk}) as contents:
        assert {each.name for each in contents.volumes} == {"vda/1", "vda/2"}
        assert read(contents, "/etc/hosts") == b"of the root"
        assert read(contents, "vda/1:/x") == b"of data"
        assert read(contents, "LABEL=data:/x") == b"of data"
        assert read(contents, "PARTLABEL=second:/etc/hosts") == b"of the root"
        told = subprocess.run(["blkid", "-p", "-o", "export", root], capture_output=True, text=True, check=True).stdout
        identity = next(line for line in told.splitlines() if line.startswith("UUID="))
        assert read(contents, f"{identity}:/etc/hosts") == b"of the root"
        listed = subprocess.run(["/sbin/sfdisk", "--part-uuid", disk, "2"], capture_output=True, text=True, check=True)
        assert read(contents, f"PARTUUID={listed.stdout.strip()}:/etc/hosts") == b"of the root"


def test_mbr_with_logical_partitions(tmp_path: Path) -> None:
    table = (
        "label: dos\nlabel-id: 0x12345678\nstart=2048, size=32768, type=83\nstart=34816, size=200000, type=5\n"
        "start=36864, size=32768, type=83\nstart=71680, size=32768, type=83\n"
    )
    volumes = [ext4(tmp_path, name, {"name": name.encode()}) for name in ("first", "fifth", "sixth")]
    disk = partitioned(tmp_path / "disk", table, *zip((2048, 36864, 71680), volumes, strict=True))
    with opened({"sda": disk}) as contents:
        assert [each.name for each in contents.volumes] == ["sda/1", "sda/5", "sda/6"]
        assert read(contents, "sda/1:/name") == b"first"
        assert read(contents, "sda/5:/name") == b"fifth"
        assert read(contents, "PARTUUID=12345678-06:/name") == b"sixth"


def test_a_disk_without_partitions(tmp_path: Path) -> None:
    """A single file system needs not look like a system's."""
    with opened({"data": ext4(tmp_path, "data", {"x": b"y"})}) as contents:
        assert read(contents, "/x") == read(contents, "data:/x") == b"y"


def test_other_file_systems_are_where_the_guest_mounts_them(tmp_path: Path) -> None:
    identity = str(uuid.uuid4())
    fstab = f"# a comment\nUUID={identity} /home ext4 defaults 0 2\nLABEL=deep /home/my\\040data ext4 defaults 0 2\n"
    root = ext4(tmp_path, "root", {**ROOT, "etc/fstab": fstab.encode()})
    home = ext4(tmp_path, "home", {"me": b"of home", "my data/no": b"hidden"}, "-U", identity)
    deep = ext4(tmp_path, "deep", {"file": b"deeper"}, "-L", "deep")
    with opened({"a": deep, "b": root, "c": home}) as contents:
        assert read(contents, "/home/me") == b"of home"
        assert contents.system(contents.volume("a"))._parser._process is None, "it is kept though nobody needs it"
        assert read(contents, "/home/my data/file") == b"deeper"
        assert read(contents, "b:/home/hidden") == b"under the mount"
        seen = {each.volume.name: each.mounted for each in contents.seen()}
        assert seen == {"a": "/home/my data", "b": "/", "c": "/home"}
        tree, top = contents.find(guestpath.parse("c0ffee:/"))
        paths = {step.file.path for step in tree.walk(top, Troubles())}
        assert {"/home/me", "/home/my data/file"} <= paths
        assert "/home/hidden" not in paths


def test_a_mounted_volume_that_cannot_be_read_hides_nothing_else(tmp_path: Path) -> None:
    fstab = b"LABEL=secret /home ext4 x\nLABEL=below /home/below ext4 x\nLABEL=deep /srv/a/b ext4 x\n"
    home = bytearray(ext4(tmp_path, "home", {"me": b"of home"}, "-L", "secret").read_bytes())
    home[0x43A] = 0xFF  # a magic number that is still there, over a superblock that makes no sense
    home[1024 + 0x28 : 1024 + 0x2C] = bytes(4)
    (tmp_path / "home").write_bytes(home)
    root = ext4(tmp_path, "root", {**ROOT, "etc/fstab": fstab, "home/below/hidden": b"", "srv/a/b/hidden": b""})
    below, deep = (ext4(tmp_path, name, {"x": name.encode()}, "-L", name) for name in ("below", "deep"))
    with opened({"a": root, "b": tmp_path / "home", "c": below, "d": deep}) as contents:
        with ThreadPoolExecutor(2) as threads:
            assert [*threads.map(lambda path: read(contents, path), ["/etc/hosts", "/srv/a/b/x"])] == [
                b"of the root",
                b"deep",
            ]
        assert {each.volume.name: each.mounted for each in contents.seen()} == {
            "a": "/",
            "b": "/home",
            "c": "",
            "d": "/srv/a/b",
        }
        tree, top = contents.find(guestpath.parse("c0ffee:/"))
        assert {"etc", "home", "usr"} <= {file.name for file in tree.files_in(top)}
        troubles = Troubles()
        paths = {step.file.path for step in tree.walk(top, troubles)}
        assert "/etc/hosts" in paths and "/home/hidden" not in paths
        assert [path for path, _ in troubles.kept] == ["/home"]
        assert ["LABEL=below at /home/below" in note and "Volume b cannot" in note for note in contents.notes] == [True]
        before = children()
        with pytest.raises(errors.HeadstartError, match="Volume b cannot be read"):
            read(contents, "/home/me")
        assert children() == before


def test_what_is_mounted_and_not_shown_is_told(tmp_path: Path) -> None:
    fstab = (
        b"LABEL=root / ext4 x\n/dev/mapper/home /home ext4 x\nLABEL=scratch /scratch ext4 x\n"
        b"/scratch/srv /srv none bind\nLABEL=twin /twin ext4 x\nLABEL=root /again ext4 x\nLABEL=alone /none ext4 x\n"
        b"tmpfs /tmp tmpfs x\nnas:/x /nas nfs x\n//nas/x /nas cifs x\n/dev/sr0 /cd udf,iso9660 x\n/swap none swap x\n"
        b"/home /home none bind\n"
    )
    folders = {f"{name}/hidden": b"" for name in ("scratch", "srv", "twin", "again", "tmp", "nas", "cd")}
    root = ext4(tmp_path, "root", {**ROOT, **folders, "etc/fstab": fstab}, "-L", "root")
    twin, alone = (ext4(tmp_path, name, {"x": b""}, "-L", name) for name in ("twin", "alone"))
    blank = disks.make_empty(tmp_path / "blank", MIB)
    left_out = Excluded("blank", "ext4", "scratch", ("/scratch/",), "!/scratch", (Extent(0, MIB),))
    with opened({"a": root, "b": twin, "c": twin, "d": alone, "blank": blank}, left_out) as contents:

        def told(path: str) -> dict[str, str]:
            contents.notes.clear()
            contents.find(guestpath.parse(f"c0ffee:{path}"))
            split = (
                note.removeprefix("fstab mounts ").partition(", and only the directory") for note in contents.notes
            )
            return {mounted: why.partition(": ")[2] for mounted, _, why in split}

        reasons = {
            "/dev/mapper/home at /home": "which volume that is, is not known ('headstart ls SNAPSHOT:' lists all)",
            "LABEL=scratch at /scratch": "volume blank was left out of the backup by !/scratch",
            "/scratch/srv at /srv": "it is shown only where it lies itself",
            "LABEL=twin at /twin": "several volumes are called so: b, c",
            "LABEL=root at /again": "volume a is shown at /",
            "LABEL=alone at /none": "there is no such directory, for volume d",
        }
        assert told("/") == reasons
        assert told("/home/hidden") == dict([next(iter(reasons.items()))])
        assert told("/etc") == {}
        with pytest.raises(errors.NotFound) as caught:
            read(contents, "/scratch/file")
        assert "left out of the backup by !/scratch" in caught.value.__notes__[0]
        with pytest.raises(errors.Usage, match="Several volumes are called 'LABEL=twin': b, c"):
            read(contents, "LABEL=twin:/x")
        assert {each.volume.name: each.mounted for each in contents.seen()} == {"a": "/", "b": "", "c": "", "d": ""}


def test_links_stay_within_the_guest(tmp_path: Path) -> None:
    tree = tmp_path / "tree of root"
    tree.mkdir()
    (tree / "absolute").symlink_to("/etc")
    (tree / "up").symlink_to("../../../../etc/hosts")
    (tree / "loop").symlink_to("loop")
    (tree / "broken").symlink_to("/nowhere")
    with opened({"a": ext4(tmp_path, "root", ROOT)}) as contents:
        assert read(contents, "/absolute/hosts") == b"of the root"
        assert read(contents, "/up") == b"of the root"
        assert read(contents, "/etc/../../etc/./hosts") == b"of the root"
        for path in ("/loop", "/broken", "/etc/hosts/x", "/nope"):
            with pytest.raises(errors.NotFound):
                read(contents, path)


def test_what_cannot_be_told_is_asked_for(tmp_path: Path) -> None:
    one, two = (ext4(tmp_path, name, ROOT) for name in ("one", "two"))
    data = ext4(tmp_path, "data", {"file": b"of a disk without a system"})
    with opened({"1": data, "2": data, "a": one, "b": two}) as contents:
        with pytest.raises(errors.NotFound, match=r"Several volumes .*a \(ext4\), b \(ext4\)"):
            read(contents, "/etc/hosts")
        assert read(contents, "1:/file") == b"of a disk without a system"
        process = contents.system(contents.volume("1"))._parser._process
        assert [each.mounted for each in contents.seen()] == [""] * 4
        assert contents.system(contents.volume("1"))._parser._process is process, "it was ended while it was in use"
        with pytest.raises(errors.NotFound, match=r"There is no volume 'vdc'"):
            read(contents, "vdc:/x")
        with pytest.raises(errors.NotFound, match=r"neither a path"):
            contents.find(guestpath.parse("c0ffee:etc/hosts"))
        with pytest.raises(errors.NotFound, match=r"D: is not known"):
            contents.find(guestpath.parse("c0ffee:D:\\x"))


def test_an_old_system_is_not_the_guests(tmp_path: Path) -> None:
    """The one that runs is on what cannot be read."""
    old = ext4(tmp_path, "old", {**ROOT, "etc/fstab": b"UUID=c0ffee / btrfs subvol=@ 0 0\n"})
    with opened({"a": old}) as contents:
        with pytest.raises(errors.NotFound, match=r"on volume a, .*\(UUID=c0ffee\): .* There are: a \(ext4\)"):
            read(contents, "/etc/hosts")
        assert read(contents, "a:/etc/hosts") == b"of the root"
        assert [each.mounted for each in contents.seen()] == [""]


def test_disks_of_windows_have_drive_letters(tmp_path: Path) -> None:
    system = filetrees.make("ntfs", tmp_path / "system", 32 * MIB)
    data = filetrees.make("ntfs", tmp_path / "data", 32 * MIB)
    with filetrees.served("ntfs-3g", system, tmp_path / "mnt") as mnt:
        (mnt / "Windows/System32").mkdir(parents=True)
        (mnt / "Users/ann").mkdir(parents=True)
        (mnt / "Users/ann/letter.txt").write_bytes(b"dear")
    with opened({"sda": data, "sdb": system}) as contents:
        assert read(contents, "C:\\Users\\Ann\\letter.txt") == b"dear"
        assert read(contents, "/users/ann/letter.txt") == b"dear"
        with pytest.raises(errors.NotFound, match=r"D: is not known"):
            read(contents, "D:\\x")


@pytest.mark.parametrize(
    ("mark", "place", "told"),
    [(b"LUKS\xba\xbe\0\2", 0, "cryptsetup open --readonly"), (b"-FVE-FS-", 3, "--type bitlk")],
)
def test_an_encrypted_volume_is_told(tmp_path: Path, mark: bytes, place: int, told: str) -> None:
    image = bytearray(disks.make_empty(tmp_path / "disk", 8 * MIB).read_bytes())
    image[place : place + len(mark)] = mark
    (tmp_path / "disk").write_bytes(image)
    with opened({"vda": tmp_path / "disk"}) as contents:
        with pytest.raises(errors.NotFound, match=told):
            read(contents, "/etc/hosts")
        with pytest.raises(errors.Unsupported, match=told):
            read(contents, "vda:/etc/hosts")


def test_real_luks(tmp_path: Path) -> None:
    image = disks.make_empty(tmp_path / "disk", 32 * MIB)
    made = subprocess.run(
        ["cryptsetup", "-q", "luksFormat", "--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000", image, "-"],
        input=b"secret",
        capture_output=True,
    )
    if made.returncode != 0:
        pytest.skip(f"no cryptsetup here: {made.stderr!r}")
    with opened({"vda": image}) as contents:
        assert [each.content for each in contents.volumes] == ["crypto_LUKS"]


def test_a_blank_disk_has_no_files(tmp_path: Path) -> None:
    blank = disks.make_empty(tmp_path / "disk", 8 * MIB)
    with opened({"vda": blank}) as contents, pytest.raises(errors.NotFound, match="Nothing that is known"):
        read(contents, "/etc/hosts")


def test_a_volume_group_that_makes_no_sense_spoils_nothing_else(tmp_path: Path) -> None:
    """Here it says that it lies far outside of its disk."""
    told = metadata.TEXT.replace('"pv0", 10', '"pv0", 100000').replace("segment_count = 2", "segment_count = 1")
    (tmp_path / "lvm").write_bytes(metadata.on_disk(told.encode(), 8192, 512))
    with opened({"vda": ext4(tmp_path, "root", ROOT), "vdb": tmp_path / "lvm"}) as contents:
        assert read(contents, "/etc/hosts") == b"of the root"
        assert {each.name for each in contents.volumes} == {"vda", "vdb", "vg0/root", "vg0/fast", "vg0/small"}
        with pytest.raises(errors.Unsupported, match="on no disk of this snapshot"):
            read(contents, "vg0/fast:/x")
        with pytest.raises(errors.Unsupported, match="makes no sense"):
            read(contents, "vg0/root:/x")
        with pytest.raises(errors.Unsupported, match="thin"):
            read(contents, "vg0/small:/x")
