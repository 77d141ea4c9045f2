"""A guest with a whole Debian in it: systemd, udev, qemu-guest-agent, sshd. For what the small guest has not got.

Its root file system is made by debootstrap once (about a minute, as root) and cached under ``build/debian``; each VM
writes into an overlay of its own.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from headstart import errors
from headstart.wire.qga import Qga
from tests.kit import guest, packages
from tests.kit.disks import Disk
from tests.kit.vm import Vm

CACHE = Path(__file__).parents[2] / "build" / "debian"
MIRROR = "http://deb.debian.org/debian"
PACKAGES = ("systemd-sysv", "udev", "dbus", "kmod", "python3", "qemu-guest-agent", "openssh-server", "sudo")
SIZE = "2G"
MODULES = ("virtio_pci", "virtio_blk", "virtio_console", "virtio_net")
BOOT_SECONDS = 180.0

#: Switches to the disk as soon as there is one.
INIT = """\
#!/bin/sh
export PATH=/bin
mount -t devtmpfs dev /dev
mount -t proc proc /proc
for module in $(cat /modules/order); do insmod /modules/$module; done
while ! mount -t ext4 /dev/vda /root; do sleep 0.1; done
mount --move /dev /root/dev
umount /proc
exec switch_root /root /sbin/init
"""

#: The network card gets what QEMU's user network expects.
PREPARE = """
set -e
mkdir -p etc/systemd/network
printf '[Match]\\nType=ether\\n[Network]\\nAddress=10.0.2.15/24\\n' > etc/systemd/network/all.network
ln -sf /lib/systemd/system/systemd-networkd.service etc/systemd/system/multi-user.target.wants/
for each in apt-daily.timer apt-daily-upgrade.timer e2scrub_all.timer fstrim.timer dpkg-db-backup.timer; do
    ln -sf /dev/null etc/systemd/system/$each
done
rm -rf var/cache/apt/archives/*.deb var/lib/apt/lists/* usr/share/doc usr/share/locale usr/share/man
echo guest > etc/hostname
"""


def missing() -> str:
    """Why there cannot be such a guest here; empty if there can."""
    if _target().is_dir() or os.geteuid() == 0:
        return ""
    return "debootstrap needs root, and build/debian holds no image that was made before"


def _target() -> Path:
    return CACHE / f"image-{key()}"


def build() -> Path:
    """The folder with ``root.raw``, the root file system, and ``initrd``."""
    target = _target()
    if not target.is_dir():
        CACHE.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".image-", dir=CACHE) as temporary:
            tree, image = Path(temporary, "tree"), Path(temporary, "image")
            image.mkdir()
            bootstrap(tree)
            subprocess.run(["truncate", "-s", SIZE, image / "root.raw"], check=True)
            subprocess.run(["mkfs.ext4", "-q", "-d", tree, image / "root.raw"], check=True)
            shutil.rmtree(tree)
            _build_initrd(Path(temporary, "initrd"), image / "initrd")
            packages.put_in_place(image, target)
    return target


def key(*more: str) -> str:
    """Of an image, or of what is made of it with ``more``."""
    parts = (MIRROR, SIZE, INIT, PREPARE, *PACKAGES, *MODULES, guest._kernel_package(), *more)
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


def bootstrap(tree: Path) -> None:
    command = ["debootstrap", "--variant=minbase", f"--include={','.join(PACKAGES)}", "bookworm", str(tree), MIRROR]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"debootstrap failed:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    subprocess.run(["sh", "-c", PREPARE], cwd=tree, check=True)


def _build_initrd(root: Path, target: Path) -> None:
    for folder in ("bin", "dev", "proc", "root"):
        (root / folder).mkdir(parents=True)
    (root / "init").write_text(INIT)
    (root / "init").chmod(0o755)
    guest._add_busybox(root)
    kernel = packages.unpacked(guest._kernel_package(), guest.CACHE)
    files = {path.stem.replace("-", "_"): path for path in kernel.glob("lib/modules/**/*.ko")}
    (root / "modules").mkdir()
    order = list(guest._load_order(MODULES, files))
    for name in order:
        shutil.copy(files[name], root / "modules" / f"{name}.ko")
    (root / "modules/order").write_text("".join(f"{name}.ko\n" for name in order))
    guest._pack(root, target)


class DebianVm(Vm):
    """As ``Vm``, but for ``guest``: there is no control program. Ready when qga answers."""

    def __init__(self, folder: Path, more: Sequence[Disk] = (), *, extra: Sequence[str] = ()) -> None:
        self._image = build()
        overlay = folder / "root.qcow2"
        base = self._image / "root.raw"
        subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", "-b", base, "-F", "raw", overlay], check=True)
        super().__init__([Disk(overlay, "qcow2", "root"), *more], memory_mib=512, cpus=2, extra=extra, boots=True)

    def _command(self) -> list[str]:
        command = super()._command()
        words = {
            "-initrd": str(self._image / "initrd"),
            "-append": "console=ttyS0 quiet root=/dev/vda rw mitigations=off random.trust_cpu=on",
        }
        for option, value in words.items():
            command[command.index(option) + 1] = value
        return command

    def wait_ready(self, timeout: float = BOOT_SECONDS) -> None:
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            with contextlib.suppress(errors.Unreachable), Qga(self.qga_socket) as qga:
                qga.execute("guest-ping", 5)
                return
            time.sleep(0.2)
        raise RuntimeError(f"the guest does not answer; it said:\n{self.log[-4000:]}")
