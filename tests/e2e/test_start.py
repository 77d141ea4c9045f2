"""``docs/start.md`` word for word: a VM of plain QEMU and one of libvirt's come under protection, and back."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import libvirt
import libvirt_qemu
import pytest

from tests.kit import compare, debian, disks, guest
from tests.kit.apart import Apart
from tests.kit.cli import ROOT
from tests.kit.guest import GuestImage
from tests.kit.libvirtd import Libvirtd
from tests.kit.vm import ACCELERATOR, Vm
from tests.kit.waiting import wait_until
from tests.kit.words import shown

#: With the making of the image.
pytestmark = [pytest.mark.vm, pytest.mark.timeout(600)]

PAGE = (ROOT / "docs" / "start.md").read_text()
BEFORE = ("A place for the backups",)
AFTER = ("The first backup", "Get something back", "Every night, by itself", "The paper key")
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
#: What the page calls them.
SYSTEM, DATA = "/srv/vm/web.qcow2", "/srv/vm/data.qcow2"
DATA_SIZE = 24 * disks.MIB
COMMAND_LINE = "console=ttyS0 quiet root=/dev/vda rw mitigations=off random.trust_cpu=on"

#: In place of systemd: it starts what the unit starts, with nothing of the shell's environment, until it is ready.
SYSTEMCTL = """#!/bin/sh
[ "$*" = "enable --now headstart" ] || exit 1
setsid env -i PATH="$PATH" headstart run > /srv/daemon.log 2>&1 &
echo $! > /srv/daemon.pid
until [ -S /var/lib/headstart/daemon.sock ]; do sleep 0.1; done
"""


def section(heading: str) -> list[tuple[str, str]]:
    """The fenced blocks below a heading: what kind, and what stands in it."""
    _, _, rest = PAGE.partition(f"\n## {heading}\n")
    assert rest, f"there is no {heading!r}"
    return BLOCK.findall(rest.partition("\n## ")[0])


class Reader:
    """Somebody who types what stands in the page, in one shell."""

    def __init__(self, apart: Apart, folder: Path) -> None:
        self._apart = apart
        self._variables = folder / "variables"
        self._variables.touch()
        programs = folder / "bin"
        programs.mkdir()
        headstart = f'#!/bin/sh\nPYTHONPATH={ROOT}/src exec {sys.executable} -m headstart "$@"\n'
        for name, text in (("headstart", headstart), ("systemctl", SYSTEMCTL)):
            (programs / name).write_text(text)
            (programs / name).chmod(0o755)
        self._environment = {"PATH": f"{programs}:/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root"}

    def type(self, commands: str) -> str:
        """What is shown. What is exported holds for what is typed next."""
        script = f". {self._variables}\n{commands}\nexport -p > {self._variables}\n"
        done = subprocess.run(
            [*self._apart.within, "bash", "-euc", script],
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=200,
        )
        assert done.returncode == 0, f"{commands}\nended with {done.returncode}:\n{done.stdout}"
        return done.stdout

    def follow(self, *headings: str) -> None:
        for heading in headings:
            output = ""
            for kind, text in section(heading):
                if kind == "sh":
                    output = self.type(text)
                    print(f"$ {text}{output}", flush=True)
                elif kind == "text":
                    assert shown(text, output), f"the page shows\n{text}\nand there was\n{output}"


@pytest.fixture
def apart() -> Iterator[Apart]:
    if os.geteuid() != 0 or debian.missing():
        pytest.skip(debian.missing() or "places of the machine can only be replaced by root")
    with Apart() as made:
        yield made


@pytest.fixture
def reader(apart: Apart, tmp_path: Path) -> Iterator[Reader]:
    made = Reader(apart, tmp_path)
    make_images(apart, made)
    yield made
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        os.kill(int(apart.path("/srv/daemon.pid").read_text()), signal.SIGTERM)


def make_images(apart: Apart, reader: Reader) -> None:
    """The disks that the page names: a Debian, and data that nobody changes."""
    base = debian.build() / "root.raw"
    reader.type(
        "mkdir -p /srv/vm && touch /srv/vm/debian.raw\n"
        f"mount --bind {base} /srv/vm/debian.raw && mount -o remount,bind,ro /srv/vm/debian.raw\n"
        f"qemu-img create -q -f qcow2 -b /srv/vm/debian.raw -F raw {SYSTEM}"
    )
    disks.make_filled(apart.path(f"{DATA}.raw"), DATA_SIZE)
    reader.type(f"qemu-img convert -f raw -O qcow2 {DATA}.raw {DATA}")


def assert_restored(apart: Apart, system: str, data: str) -> None:
    """Byte by byte where nobody wrote, and as a file system where the guest lives."""
    place = apart.path("/srv/restored")
    assert (place / "hostname").read_text() == "guest\n"
    compare.assert_identical(apart.path(f"{DATA}.raw"), place / "web" / data, "raw", "qcow2")
    with compare.as_raw(place / "web" / system, "qcow2") as back:
        # 1: files that were open when they were deleted are put away.
        done = subprocess.run(["/sbin/e2fsck", "-fp", back], capture_output=True, text=True)
        assert done.returncode in (0, 1), done.stdout


# -- plain QEMU


class PlainVm(debian.DebianVm):
    """It is started with the page's options."""

    def __init__(self, apart: Apart, options: str) -> None:
        self._apart = apart
        self._options = options.split()
        self._image = debian.build()
        drives = (word for path in (SYSTEM, DATA) for word in ("-drive", f"file={path},if=virtio"))
        Vm.__init__(self, (), memory_mib=512, cpus=2, extra=tuple(drives), boots=True)
        self.qga_socket = apart.path("/run/web-qga.sock")

    def _for_the_product(self) -> list[str]:
        return self._options

    def _command(self) -> list[str]:
        return [*self._apart.within, *super()._command()]


def test_plain_qemu(apart: Apart, reader: Reader) -> None:
    [options] = [text for kind, text in section("Plain QEMU") if kind == "none"]
    with PlainVm(apart, options):
        reader.follow(*BEFORE, "Plain QEMU", *AFTER)
        assert_restored(apart, "virtio0.qcow2", "virtio1.qcow2")


# -- libvirt


DOMAIN = """
<domain type='{kind}'>
  <name>web</name>
  <memory unit='MiB'>512</memory>
  <vcpu>2</vcpu>
  <os>
    <type arch='x86_64' machine='pc'>hvm</type>
    <kernel>{kernel}</kernel><initrd>{initrd}</initrd><cmdline>{line}</cmdline>
  </os>
  <features><acpi/></features>
  <cpu mode='maximum'/>
  <devices>
    <emulator>/usr/bin/qemu-system-x86_64</emulator>
    <disk type='file' device='disk'>
      <driver name='qemu' type='qcow2'/><source file='{system}'/><target dev='vda' bus='virtio'/>
    </disk>
    <disk type='file' device='disk'>
      <driver name='qemu' type='qcow2'/><source file='{data}'/><target dev='vdb' bus='virtio'/>
    </disk>
    <controller type='usb' model='none'/>
    <memballoon model='none'/>
    <serial type='file'><source path='/srv/vm/console.log'/></serial>
    <channel type='unix'><target type='virtio' name='org.qemu.guest_agent.0'/></channel>
  </devices>
</domain>"""


@contextlib.contextmanager
def domain(apart: Apart) -> Iterator[None]:
    with Libvirtd(within=apart.within) as daemon:
        socket = daemon.uri.partition("socket=")[2]
        apart.path("/run/libvirt").mkdir(exist_ok=True)
        apart.path("/run/libvirt/libvirt-sock").symlink_to(socket)
        kernel, initrd = daemon.guest_image(GuestImage(guest.build().kernel, debian.build() / "initrd"))
        kind = "kvm" if ACCELERATOR == "kvm" else "qemu"
        text = DOMAIN.format(kind=kind, kernel=kernel, initrd=initrd, line=COMMAND_LINE, system=SYSTEM, data=DATA)
        connection = libvirt.open(daemon.uri)
        found = connection.defineXML(text)
        found.create()
        try:
            wait_until(lambda: answers(found), debian.BOOT_SECONDS)
            yield
        finally:
            found.destroy()
            connection.close()


def answers(found: libvirt.virDomain) -> bool:
    with contextlib.suppress(libvirt.libvirtError):
        return bool(libvirt_qemu.qemuAgentCommand(found, '{"execute": "guest-ping"}', 5, 0))
    return False


def test_libvirt(apart: Apart, reader: Reader) -> None:
    with domain(apart):
        reader.follow(*BEFORE, "libvirt", *AFTER)
        assert_restored(apart, "vda.qcow2", "vdb.qcow2")
