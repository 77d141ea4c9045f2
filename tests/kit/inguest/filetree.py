"""A tree of files of every kind, and what its files are like. Runs in the guest and on the host."""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from pathlib import Path
from typing import Any

MIB = 1 << 20
#: A capability as ``setcap cap_net_bind_service=ep`` stores it, and an access control list with a user of its own.
CAPABILITY = bytes.fromhex("0100000200040000000000000000000000000000")
ACL = bytes.fromhex("0200000001000600ffffffff02000400e803000004000400ffffffff10000400ffffffff20000400ffffffff")
WHEN = 1_577_934_245_123_456_789


def fill(root: Path, *, posix: bool = True) -> None:
    """``posix``: with all that Linux knows of files, which needs root."""
    (root / "etc").mkdir()
    (root / "usr").mkdir()
    (root / "etc/hosts").write_bytes(b"127.0.0.1 localhost\n")
    (root / "empty").touch()
    (root / "large").write_bytes(os.urandom(3 * MIB + 12345))
    (root / "with space").write_bytes(b"a" * 5000)
    deep = root
    for level in range(60):
        deep /= f"level{level}"
    deep.mkdir(parents=True)
    (deep / "bottom").write_bytes(b"deep down")
    many = root / "many"
    many.mkdir()
    for number in range(700):
        (many / f"file-{number:04}-with-a-name-that-fills-the-directory").write_bytes(b"%d" % number)
    with (root / "sparse").open("wb") as file:
        file.truncate(40 * MIB)
        for at in (0, 5 * MIB + 7, 20 * MIB, 40 * MIB - 3):
            file.seek(at)
            file.write(b"one")
    if posix:
        _fill_posix(root)
    os.utime(root / "large", ns=(WHEN, WHEN))


def _fill_posix(root: Path) -> None:
    (root / "link").symlink_to("etc/hosts")
    (root / "long link").symlink_to("x/" * 150 + "end")
    (root / "out").symlink_to("/etc")
    os.link(root / "large", root / "large too")
    os.mkfifo(root / "fifo", 0o640)
    os.mknod(root / "console", stat.S_IFCHR | 0o600, os.makedev(5, 1))
    os.mknod(root / "disk", stat.S_IFBLK | 0o660, os.makedev(259, 70000))
    (root / os.fsdecode(b"no utf-8 \xff\xfe")).write_bytes(b"bytes")
    (root / "program").write_bytes(b"#!")
    (root / "program").chmod(0o4755)
    os.chown(root / "etc", 1000, 70_000)
    (root / "etc").chmod(0o2770)
    os.setxattr(root / "program", "security.capability", CAPABILITY)
    os.setxattr(root / "etc/hosts", "user.comment", b"short")
    os.setxattr(root / "etc", "user.binary", bytes(range(200)))
    os.setxattr(root / "etc/hosts", "system.posix_acl_access", ACL)
    with (root / "reserved").open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, 2 * MIB)
        file.seek(MIB)
        file.write(b"written")
    with (root / "fragments").open("wb") as file:
        for number in range(300):
            file.seek(number * 3 * 4096)
            file.write(b"%d" % number)
    for name in ("old", "far"):
        (root / name).touch()
    os.utime(root / "old", ns=(-(10**9), -(5 * 10**9) + 1))
    os.utime(root / "far", ns=(0, 5_000_000_000 * 10**9 + 999_999_999))


def describe(root: str | Path) -> dict[str, dict[str, Any]]:
    """Of all files below, by path. Directories have no size and no count of links: those are the file system's."""
    found: dict[str, dict[str, Any]] = {}
    names: dict[tuple[int, int], list[str]] = {}
    for folder, folders, files in os.walk(root):
        here = Path(folder)
        for name in [".", *files, *(name for name in folders if (here / name).is_symlink())]:
            path = here / name
            key = os.path.relpath(path, root)
            found[key] = _described(path)
            status = path.lstat()
            if name != "." and status.st_nlink > 1:
                names.setdefault((status.st_dev, status.st_ino), []).append(key)
    for same in names.values():
        for key in same:
            found[key]["names"] = sorted(same)
    found.pop("lost+found", None)
    return found


def _described(path: Path) -> dict[str, Any]:
    status = path.lstat()
    told: dict[str, Any] = {
        "mode": status.st_mode,
        "owner": [status.st_uid, status.st_gid],
        "mtime": status.st_mtime_ns,
        "xattrs": _xattrs(path),
    }
    if stat.S_ISREG(status.st_mode):
        content = path.read_bytes()
        told |= {"size": status.st_size, "digest": hashlib.sha256(content).hexdigest()}
    if stat.S_ISLNK(status.st_mode):
        told["target"] = str(path.readlink())
    if stat.S_ISCHR(status.st_mode) or stat.S_ISBLK(status.st_mode):
        told["device"] = status.st_rdev
    return told


def _xattrs(path: Path) -> dict[str, str]:
    """In hexadecimal. None where the file system has none. XFS tells access lists twice."""
    try:
        names = os.listxattr(path, follow_symlinks=False)
    except OSError as error:
        assert error.errno == errno.EOPNOTSUPP
        return {}
    told = [name for name in names if name != "security.selinux" and not name.startswith("trusted.SGI_ACL")]
    return {name: os.getxattr(path, name, follow_symlinks=False).hex() for name in told}
