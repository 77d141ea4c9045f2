"""VMs of libvirt's that run the test guest, with the same handles as ``vm.Vm``."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import libvirt
import libvirt_qemu

from tests.kit import control, disks, guest, libvirtd
from tests.kit.libvirtd import Libvirtd
from tests.kit.vm import ACCELERATOR, BOOT_TIMEOUT, EXIT_TIMEOUT, KERNEL_COMMAND_LINE

AGENT = "org.headstart.agent.0"
QGA = "org.qemu.guest_agent.0"


class Domain:
    """A domain; as a context manager its guest is running and answering inside the ``with``.

    Persistent unless ``transient``. ``ports`` are virtio-serial ports whose sockets libvirt places."""

    def __init__(
        self,
        daemon: Libvirtd,
        name: str,
        vm_disks: Sequence[disks.Disk],
        *,
        transient: bool = False,
        ports: Sequence[str] = (QGA, AGENT),
        extra: str = "",
    ) -> None:
        self.daemon = daemon
        self.name = f"{libvirtd.PREFIX}{name}"
        self.disks = tuple(vm_disks)
        self.transient = transient
        self.boot_id = ""
        self._ports = ports
        self._extra = extra
        self._folder = Path(tempfile.mkdtemp(prefix="headstart-domain-", dir="/tmp"))
        # QEMU is another user.
        self._folder.chmod(0o777)
        for disk in self.disks:
            open_up(disk.path)
        self._control_socket = self._folder / "control"
        self._control: control.Control | None = None
        self._connection: Any = None

    def __enter__(self) -> Domain:
        try:
            self.start()
            self.wait_ready()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *details: object) -> None:
        self.close()

    # -- what tests talk to

    @property
    def connection(self) -> Any:
        """The tests' own."""
        with contextlib.suppress(libvirt.libvirtError):
            if self._connection is not None and self._connection.listDomainsID() is not None:
                return self._connection
        # The daemon was restarted.
        self._connection = libvirt.open(self.daemon.uri)
        return self._connection

    @property
    def virt(self) -> Any:
        """libvirt's own handle."""
        return self.connection.lookupByName(self.name)

    @property
    def guest(self) -> control.Control:
        assert self._control is not None, "the guest is not running"
        return self._control

    def qmp(self, command: str, **arguments: Any) -> Any:
        """A command that libvirt hands to QEMU."""
        order = json.dumps({"execute": command, "arguments": {k.replace("_", "-"): v for k, v in arguments.items()}})
        answer = json.loads(libvirt_qemu.qemuMonitorCommand(self.virt, order, 0))
        if "error" in answer:
            raise RuntimeError(answer["error"]["desc"])
        return answer["return"]

    def disk(self, name: str) -> disks.Disk:
        return next(disk for disk in self.disks if disk.name == name)

    def device(self, name: str) -> str:
        """The guest's device of the disk of this name."""
        return self.guest.device(self.disk(name).serial_number)

    def target(self, name: str) -> str:
        """libvirt's name of the disk of this name."""
        return dict(zip((disk.name for disk in self.disks), self._targets(), strict=True))[name]

    def _targets(self) -> Iterator[str]:
        numbers = {"vd": 0, "sd": 0}
        for disk in self.disks:
            kind = "vd" if disk.interface == "virtio-blk" else "sd"
            yield f"{kind}{'abcdefgh'[numbers[kind]]}"
            numbers[kind] += 1

    @property
    def pid(self) -> int:
        return int(Path(f"/run/libvirt/qemu/{self.name}.pid").read_text())

    @property
    def state(self) -> int:
        return int(self.virt.state()[0])

    @property
    def running(self) -> bool:
        with contextlib.suppress(libvirt.libvirtError):
            return bool(self.virt.isActive())
        return False

    @property
    def log(self) -> str:
        paths = (self._folder / "console.log", Path(f"/var/log/libvirt/qemu/{self.name}.log"))
        return "".join(path.read_text(errors="replace") for path in paths if path.exists())

    # -- its life

    def define(self) -> None:
        self.connection.defineXML(self.xml())

    def start(self) -> None:
        self._disconnect()
        (self._folder / "control").unlink(missing_ok=True)
        if self.transient:
            self.connection.createXML(self.xml(), 0)
        else:
            self.define()
            self.virt.create()
        self._control = control.Control(self._control_socket)

    def wait_ready(self, timeout: float = BOOT_TIMEOUT) -> None:
        try:
            self.boot_id = self.guest.wait_ready(timeout, not_boot=self.boot_id)
        except control.NoAnswer as error:
            raise RuntimeError(f"the guest does not answer; it said:\n{self.log[-4000:]}") from error
        if AGENT in self._ports:
            # A port that opens while a job stands keeps libvirt from seeing the job's end for 30 s.
            self.wait_connected(AGENT)

    def wait_connected(self, port: str, timeout: float = 30.0) -> None:
        """Until the guest has opened a port, and libvirt knows."""
        deadline = time.monotonic() + timeout
        path = f"devices/channel/target[@name='{port}'][@state='connected']"
        while ElementTree.fromstring(self.virt.XMLDesc(0)).find(path) is None:
            assert time.monotonic() < deadline, f"the guest does not open {port}"
            time.sleep(0.05)

    def follow(self) -> None:
        """The domain was started by somebody else: talk to its guest."""
        self._disconnect()
        self._control = control.Control(self._control_socket)
        self.wait_ready()

    def resume_contact(self) -> None:
        """The guest goes on where it was: its control program says nothing of itself."""
        self._disconnect()
        self._control = control.Control(self._control_socket)

    def restart(self) -> None:
        if self.running:
            self.shut_off()
        self.start()
        self.wait_ready()

    def shut_off(self) -> None:
        """A power cut for the guest, and a clean end of QEMU."""
        self.virt.destroyFlags(libvirt.VIR_DOMAIN_DESTROY_GRACEFUL)
        self._disconnect()

    def power_off(self) -> None:
        """The guest shuts down in good order."""
        with contextlib.suppress(control.NoAnswer):
            self.guest.run("umount -a -r; sync; poweroff -f", timeout=10)
        self.wait_off()

    def kill(self) -> None:
        """SIGKILL to QEMU."""
        os.kill(self.pid, signal.SIGKILL)
        self.wait_off()

    def wait_off(self) -> None:
        deadline = time.monotonic() + EXIT_TIMEOUT
        while self.running:
            assert time.monotonic() < deadline, "QEMU does not end"
            time.sleep(0.02)
        self._disconnect()

    def close(self) -> None:
        with contextlib.suppress(libvirt.libvirtError):
            libvirtd.undefine(self.virt)
        self._disconnect()
        if self._connection is not None:
            with contextlib.suppress(libvirt.libvirtError):
                self._connection.close()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _disconnect(self) -> None:
        if self._control is not None:
            self._control.close()
            self._control = None

    # -- how

    def xml(self) -> str:
        kernel, initrd = self.daemon.guest_image(guest.build())
        kind = "kvm" if ACCELERATOR == "kvm" else "qemu"
        iothreads = sum(disk.iothread for disk in self.disks)
        each = "".join(self.disk_xml(*pair) for pair in zip(self.disks, self._targets(), strict=True))
        ports = "".join(f"<channel type='unix'><target type='virtio' name='{port}'/></channel>" for port in self._ports)
        return f"""
<domain type='{kind}'>
  <name>{self.name}</name>
  <memory unit='MiB'>256</memory>
  <vcpu>1</vcpu>
  {f"<iothreads>{iothreads}</iothreads>" if iothreads else ""}
  <os>
    <type arch='x86_64' machine='pc'>hvm</type>
    <kernel>{kernel}</kernel><initrd>{initrd}</initrd><cmdline>{KERNEL_COMMAND_LINE}</cmdline>
  </os>
  <features><acpi/></features>
  <cpu mode='custom' match='exact' check='none'><model>qemu64</model><feature policy='require' name='rdrand'/></cpu>
  <on_poweroff>destroy</on_poweroff>
  <devices>
    <emulator>/usr/bin/qemu-system-x86_64</emulator>
    {each}
    <controller type='scsi' model='virtio-scsi'/>
    <controller type='usb' model='none'/>
    <memballoon model='none'/>
    <serial type='file'><source path='{self._folder}/console.log'/></serial>
    <channel type='unix'>
      <source mode='bind' path='{self._control_socket}'/><target type='virtio' name='org.headstart.test.0'/>
    </channel>
    {ports}
    {self._extra}
  </devices>
</domain>"""

    def disk_xml(self, disk: disks.Disk, target: str) -> str:
        bus = "virtio" if disk.interface == "virtio-blk" else "scsi"
        iothread = " iothread='1'" if disk.iothread else ""
        serial = f"<serial>{disk.serial_number}</serial>" if disk.serial_number else ""
        return f"""
    <disk type='file' device='disk'>
      <driver name='qemu' type='{disk.format}' discard='unmap'{iothread}/>
      <source file='{disk.path}'/>
      <target dev='{target}' bus='{bus}'/>
      {serial}{"<readonly/>" if disk.read_only else ""}
    </disk>"""


def open_up(path: Path) -> None:
    """Let QEMU's user pass through the folders that lead to a file of the tests'."""
    for folder in path.parents:
        facts = folder.stat()
        if facts.st_uid == os.geteuid() and not facts.st_mode & 0o001:
            folder.chmod(facts.st_mode | 0o011)
