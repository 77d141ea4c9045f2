"""The test guest: Debian's cloud kernel, and an initramfs with busybox, Python and ``inguest``.

The image is built once and cached under ``build/guest``; its name is a hash of all that went into it.
"""

from __future__ import annotations

import compileall
import hashlib
import os
import py_compile
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from headstart.guest import package
from tests.kit import packages
from tests.kit.inguest import WITHOUT_DISKS

CACHE = Path(__file__).parents[2] / "build" / "guest"
INSIDE = Path(__file__).with_name("inguest")

PYTHON = Path("/usr/bin/python3.11")
STDLIB = Path("/usr/lib/python3.11")
BUSYBOX = Path("/bin/busybox")

#: Modules to load; those that they depend on come by themselves. ext4 and GPT are built into the kernel.
MODULES = ("virtio_pci", "virtio_console", "dm-mod", "vsock_loopback")
#: Loaded after those, or when ``inguest.control`` is told that there are disks now.
DISK_MODULES = ("virtio_blk", "virtio_scsi", "sd_mod")


#: Parts of the standard library that no program in the guest needs. Unpacking costs boot time under TCG.
PRUNED = (
    *("__pycache__", "config-3.11-*", "dist-packages", "test", "tests", "idlelib", "lib2to3", "ensurepip"),
    *("distutils", "tkinter", "turtledemo", "turtle.py", "pydoc_data", "pydoc.py", "unittest", "xmlrpc"),
    *("wsgiref", "curses", "dbm", "sqlite3", "venv", "_sqlite3*", "_ssl*", "_hashlib*", "_curses*", "_dbm*"),
    *("_test*", "_xx*", "xx*", "_codecs_*", "readline*", "nis*", "ossaudiodev*", "_crypt*", "_tkinter*"),
    *("audioop*", "_sysconfigdata*", "LICENSE.txt", "EXTERNALLY-MANAGED", "sitecustomize.py"),
)

INIT = f"""\
#!/bin/sh
export PATH=/bin:/sbin:/usr/bin:/usr/sbin
mount -t devtmpfs dev /dev
mount -t proc proc /proc
mount -t sysfs sys /sys
mkdir -p /run /tmp /mnt /var/run
for module in $(cat /modules/order); do insmod /modules/$module; done
grep -q {WITHOUT_DISKS} /proc/cmdline || sh /modules/disks/load
# Not for agentd: it has to find its port where there is no udev.
for port in /sys/class/virtio-ports/*; do
    mkdir -p /dev/virtio-ports
    name=$(cat $port/name)
    [ $name = org.headstart.agent.0 ] || ln -s /dev/${{port##*/}} /dev/virtio-ports/$name
done
while :; do
    [ -e /run/no-agentd ] || python3 -I -S /usr/lib/headstart-agentd
    sleep 1
done &
[ -e /dev/virtio-ports/org.qemu.guest_agent.0 ] && qemu-ga --daemonize
while :; do
    python3 -I -S -m inguest.control || sleep 1
done
"""


@dataclass(frozen=True, slots=True)
class GuestImage:
    """What QEMU's ``-kernel`` and ``-initrd`` take."""

    kernel: Path
    initrd: Path


def build() -> GuestImage:
    """The guest's image, from the cache if nothing that goes into it has changed."""
    kernel_package = _kernel_package()
    kernel = packages.unpacked(kernel_package, CACHE)
    agent = packages.unpacked("qemu-guest-agent", CACHE)
    target = CACHE / f"image-{_key(kernel_package)}"
    if not target.is_dir():
        with tempfile.TemporaryDirectory(prefix=".image-", dir=CACHE) as temporary:
            image = Path(temporary, "image")
            image.mkdir()
            shutil.copy(next(kernel.glob("boot/vmlinuz-*")), image / "vmlinuz")
            _build_root(Path(temporary, "root"), kernel, agent)
            _pack(Path(temporary, "root"), image / "initrd")
            packages.put_in_place(image, target)
    return GuestImage(target / "vmlinuz", target / "initrd")


def _kernel_package() -> str:
    """The kernel that is there already, else the distribution's current one: a cache needs no network."""
    pattern = r"linux-image-[\w.-]+-cloud-amd64"
    here = sorted(path.name for path in CACHE.glob("linux-image-*") if re.fullmatch(pattern, path.name))
    return here[-1] if here else packages.current_dependency("linux-image-cloud-amd64", pattern)


def _key(kernel_package: str) -> str:
    digest = hashlib.sha256(kernel_package.encode())
    for source in (Path(__file__), *sorted(INSIDE.glob("*.py"))):
        digest.update(source.name.encode() + b"\0" + source.read_bytes() + b"\0")
    digest.update(package.build())
    for program in (PYTHON, BUSYBOX):
        status = program.stat()
        digest.update(f"{program} {status.st_size} {status.st_mtime_ns}\0".encode())
    return digest.hexdigest()[:16]


def _build_root(root: Path, kernel: Path, agent: Path) -> None:
    for folder in ("bin", "dev", "proc", "sys", "usr/bin", "usr/sbin", "lib64", "etc"):
        (root / folder).mkdir(parents=True)
    (root / "init").write_text(INIT)
    (root / "init").chmod(0o755)
    (root / "etc/passwd").write_text("root::0:0:root:/:/bin/sh\n")
    _add_busybox(root)
    _add_modules(root / "modules", kernel)
    _add_python(root)
    shutil.copy(agent / "usr/sbin/qemu-ga", root / "usr/sbin/qemu-ga")
    (root / "usr/lib/headstart-agentd").write_bytes(package.build())
    _add_libraries(root)


def _add_busybox(root: Path) -> None:
    shutil.copy(BUSYBOX, root / "bin/busybox")
    applets = subprocess.run([BUSYBOX, "--list"], check=True, capture_output=True, text=True)
    for applet in applets.stdout.split():
        if applet != "busybox":
            (root / "bin" / applet).symlink_to("busybox")


def _add_modules(target: Path, kernel: Path) -> None:
    disks = target / "disks"
    disks.mkdir(parents=True)
    _copy_modules(target, kernel, MODULES)
    _copy_modules(disks, kernel, DISK_MODULES, there=(target / "order").read_text().split())
    (disks / "load").write_text("for module in $(cat /modules/disks/order); do insmod /modules/disks/$module; done\n")


def add_modules(target: Path, wanted: Iterable[str]) -> None:
    """Modules of the guest's kernel, with those that they need, and their ``order``, to be loaded from a disk."""
    _copy_modules(target, packages.unpacked(_kernel_package(), CACHE), wanted)


def _copy_modules(target: Path, kernel: Path, wanted: Iterable[str], there: Iterable[str] = ()) -> None:
    files = {path.stem.replace("-", "_"): path for path in kernel.glob("lib/modules/**/*.ko")}
    order = [name for name in _load_order(wanted, files) if f"{name}.ko" not in there]
    for name in order:
        shutil.copy(files[name], target / f"{name}.ko")
    (target / "order").write_text("".join(f"{name}.ko\n" for name in order))


def _load_order(wanted: Iterable[str], files: dict[str, Path]) -> Iterator[str]:
    """Every module after those that it depends on, as ``depends=`` in its ``.modinfo`` section says."""
    seen: set[str] = set()

    def visit(name: str) -> Iterator[str]:
        if name in seen:
            return
        seen.add(name)
        found = re.search(rb"\0depends=([^\0]*)\0", files[name].read_bytes())
        needed = found.group(1).decode() if found else ""
        for other in filter(None, needed.split(",")):
            yield from visit(other.replace("-", "_"))
        yield name

    for name in wanted:
        yield from visit(name.replace("-", "_"))


def _add_python(root: Path) -> None:
    """Python with its library as pycs only: compiling under TCG, and checking sources, takes seconds."""
    shutil.copy(PYTHON, root / "usr/bin/python3")
    library = root / STDLIB.relative_to("/")
    shutil.copytree(STDLIB, library, ignore=shutil.ignore_patterns(*PRUNED))
    shutil.copytree(INSIDE, library / "inguest", ignore=shutil.ignore_patterns("__pycache__"))
    unchecked = py_compile.PycInvalidationMode.UNCHECKED_HASH
    if not compileall.compile_dir(
        library,
        quiet=1,
        legacy=True,
        workers=os.cpu_count() or 1,
        stripdir=str(root),
        invalidation_mode=unchecked,
    ):
        raise RuntimeError("the guest's Python library does not compile")
    for source in library.rglob("*.py"):
        source.unlink()


def _add_libraries(root: Path) -> None:
    """The shared libraries of everything in the tree, at the places where the loader looks by default."""
    programs = [root / "usr/bin/python3", root / "usr/sbin/qemu-ga", *root.rglob("lib-dynload/*.so")]
    listing = subprocess.run(["ldd", *programs], check=True, capture_output=True, text=True)
    libraries = set(re.findall(r"=> (/\S+)", listing.stdout)) | {"/lib64/ld-linux-x86-64.so.2"}
    for library in libraries:
        # Debian's loader finds everything under /lib/x86_64-linux-gnu, wherever the host keeps it.
        folder = root / ("lib64" if "ld-linux" in library else "lib/x86_64-linux-gnu")
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(library, folder / Path(library).name)


def _pack(root: Path, target: Path) -> None:
    """Uncompressed: unpacking takes longer under TCG than reading."""
    names = "\n".join(sorted(str(path.relative_to(root)) for path in root.rglob("*")))
    command = ["cpio", "--quiet", "-o", "-H", "newc", "-R", "0:0"]
    with target.open("wb") as output:
        subprocess.run(command, cwd=root, input=names.encode(), stdout=output, check=True)
