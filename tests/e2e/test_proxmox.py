"""Plain QEMU, started with the words that Proxmox VE starts it with: its names, its throttle nodes, its monitors.

Proxmox's own QEMU was not run. What only it understands is left out here: ``-id``, machine types with ``+pve``, its
backup jobs. ``docs/proxmox.md`` says where the words are from.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from headstart.units import MIB
from tests.kit import compare, disks
from tests.kit.cli import Cli
from tests.kit.qmp import Qmp

pytestmark = pytest.mark.vm

SIZE = 16 * MIB
#: That of the UEFI variables of a 4 MiB firmware; QEMU wants multiples of 4 KiB.
VARIABLES = 540672


class Node:
    """VM 100 of a Proxmox host in a folder: a qcow2 disk of a directory, a raw one as of LVM-thin, UEFI variables, an
    empty CD drive. ``words``: ``drive`` up to machine version 9.x, ``blockdev`` from 10.0 on. ``iothread``: the
    controller virtio-scsi-single with the option that the web page sets for it."""

    def __init__(self, folder: Path, words: str, *, iothread: bool) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="headstart-", dir="/tmp"))
        self.monitor = self.folder / "100.qmp"
        self.own = self.folder / "100.headstart"
        self.iothread = iothread
        self._blockdev = words == "blockdev"
        self.images = {
            "scsi0": (disks.make_filled(folder / "vm-100-disk-0.qcow2", SIZE, "qcow2"), "qcow2"),
            "scsi1": (disks.make_filled(folder / "vm-100-disk-1", SIZE + 512, "raw", seed=2), "raw"),
        }
        self._code, self.variables = folder / "OVMF_CODE_4M.fd", folder / "vm-100-disk-2"
        self._code.write_bytes(bytes(64 << 10))
        self.variables.write_bytes(b"variables".ljust(VARIABLES, b"\xff"))
        self.start()

    def start(self) -> None:
        with (self.folder / "log").open("wb") as log:
            command = ["setpriv", "--pdeathsig", "KILL", *self._words()]
            self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        deadline = time.monotonic() + 20
        while True:
            try:
                #: As Proxmox's daemons are connected to it for as long as a command of theirs takes.
                self.pve = Qmp(self.monitor)
                return
            except (FileNotFoundError, ConnectionError):
                assert self._process.poll() is None, (self.folder / "log").read_text()
                assert time.monotonic() < deadline
                time.sleep(0.01)

    def _words(self) -> Iterator[str]:
        yield from ("qemu-system-x86_64", "-name", "web", "-no-shutdown", "-S", "-display", "none", "-nodefaults")
        yield from ("-chardev", f"socket,id=qmp,path={self.monitor},server=on,wait=off")
        yield from ("-mon", "chardev=qmp,mode=control")
        yield from self._flash()
        yield from ("-m", "32", "-device", "ide-cd,bus=ide.1,unit=0,id=ide2")
        for number, name in enumerate(self.images):
            if self.iothread:
                yield from ("-object", f"iothread,id=iothread-virtioscsi{number}")
                yield "-device"
                yield f"virtio-scsi-pci,id=virtioscsi{number},iothread=iothread-virtioscsi{number}"
            elif number == 0:
                yield from ("-device", "virtio-scsi-pci,id=scsihw0")
            bus = f"virtioscsi{number}" if self.iothread else "scsihw0"
            yield from self._disk(name)
            yield "-device"
            yield f"scsi-hd,bus={bus}.0,channel=0,scsi-id=0,lun={number},drive=drive-{name},id={name},write-cache=on"
        # The last words are those of the VM's option "args".
        yield from ("-qmp", f"unix:{self.own},server=on,wait=off")

    def _flash(self) -> Iterator[str]:
        if not self._blockdev:
            yield from ("-drive", f"if=pflash,unit=0,format=raw,readonly=on,file={self._code}")
            yield from (
                "-drive",
                f"if=pflash,unit=1,id=drive-efidisk0,format=raw,file={self.variables},size={VARIABLES}",
            )
            return
        code = {"driver": "raw", "file": {"driver": "file", "filename": str(self._code)}}
        yield from ("-blockdev", json.dumps(code | {"node-name": "pflash0", "read-only": True}))
        yield from self._throttled("efidisk0", "raw", self.variables, {"size": VARIABLES})
        yield from ("-machine", "pflash0=pflash0,pflash1=drive-efidisk0,type=pc")

    def _disk(self, name: str) -> Iterator[str]:
        path, form = self.images[name]
        if self._blockdev:
            yield from self._throttled(name, form, path, {"detect-zeroes": "unmap", "discard": "unmap"})
        else:
            yield "-drive"
            yield f"file={path},if=none,id=drive-{name},discard=on,format={form},cache=none,detect-zeroes=unmap"

    @staticmethod
    def _throttled(name: str, form: str, path: Path, options: Mapping[str, Any]) -> Iterator[str]:
        """Three nodes, the topmost called as the drive was; the names of the others are made of a hash."""
        plain = {key: value for key, value in options.items() if key != "size"}
        common = {"read-only": False, **plain}
        digest = f"{abs(hash(name)):030x}"[:30]
        file = {"driver": "file", "filename": str(path), "node-name": f"e{digest}", **common}
        image = {"driver": form, "file": file, "node-name": f"f{digest}", "read-only": False, **options}
        group = f"throttle-drive-{name}"
        top = {"driver": "throttle", "file": image, "node-name": f"drive-{name}", "throttle-group": group, **common}
        yield from ("-object", json.dumps({"id": group, "limits": {}, "qom-type": "throttle-group"}))
        yield from ("-blockdev", json.dumps(top))

    def write(self, disk: str, offset: int, length: int, pattern: int) -> None:
        """As the guest's own device does it, through everything that stands on the disk."""
        device = next(each["qdev"] for each in self.pve.execute("query-block") if disk in each["qdev"].split("/"))
        for command in (f"write -P {pattern} {offset} {length}", "flush"):
            said = self.pve.execute("human-monitor-command", command_line=f'qemu-io -d {device} "{command}"')
            assert not said or said.startswith("wrote "), said

    @property
    def lethal(self) -> bool:
        """This QEMU is too old for Proxmox's words, and would end."""
        version = self.pve.execute("query-version")["qemu"]
        return self.iothread and self._blockdev and version["major"] < 10

    def bitmaps(self) -> dict[str, int]:
        """How many each node has."""
        nodes = self.pve.execute("query-named-block-nodes", flat=True)
        return {node["node-name"]: len(node["dirty-bitmaps"]) for node in nodes if node.get("dirty-bitmaps")}

    def stop(self) -> None:
        self.pve.execute("quit")
        self._process.wait(20)
        self.pve.close()

    def close(self) -> None:
        self._process.kill()
        self._process.wait()


@pytest.fixture(params=["drive", "blockdev", "drive, iothread", "blockdev, iothread"])
def node(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Node]:
    words, _, iothread = request.param.partition(", ")
    with contextlib.closing(Node(tmp_path, words, iothread=bool(iothread))) as made:
        yield made


def exact(cli: Cli, node: Node, tmp_path: Path, name: str) -> dict[str, Any]:
    """The report of a backup that gives back, by restore, what QEMU leaves when it ends; and starts it again."""
    report: dict[str, Any] = cli.run("backup", "web", "--no-freeze").json
    node.stop()
    cli.run("restore", "web@latest", tmp_path / name, "--format", "raw")
    for disk, (path, form) in node.images.items():
        left = path if form == "raw" else disks.to_raw(path, tmp_path / f"{name}-{disk}", "qcow2")
        compare.assert_identical(tmp_path / name / f"{disk}.raw", left)
    [variables] = (tmp_path / name).glob("uefi-variables*")
    assert variables.read_bytes() == node.variables.read_bytes()
    node.start()
    return report


def test_backup_head_start_and_restore(node: Node, tmp_path: Path) -> None:
    cli = Cli(tmp_path / "headstart")
    cli.run("init")
    # Proxmox's own monitor serves one client, and is Proxmox's.
    refused = cli.run("vm", "add", "web", "--qmp", node.monitor, expect=20)
    assert "Give QEMU a monitor of our own" in refused.stderr
    cli.run("vm", "add", "web", "--qmp", node.own)
    if node.lethal:
        refused = cli.run("backup", "web", "--no-freeze", expect=14)
        assert "a throttle node in an iothread: scsi0, scsi1. Update QEMU" in refused.stderr
        assert node.pve.execute("query-status")["status"] == "prelaunch"
        return
    cli.run("backup", "web", "--no-freeze")
    assert set(node.bitmaps().values()) == {2}, "a base and a round on each disk, and on nothing else"
    node.write("scsi0", MIB, 2 * MIB, 0x11)
    node.write("scsi1", 3 * MIB, MIB, 0x22)
    # In an iothread a raw image is read as the file that it is, another one in slices that QEMU pushes.
    ahead = cli.run("precopy", "web").json
    assert (ahead["transport"], ahead["copied_bytes"]) == ("host", 3 * MIB)
    node.write("scsi0", 9 * MIB, 128 << 10, 0x33)
    node.write("scsi1", SIZE, 512, 0x44)
    told = {disk["name"]: disk for disk in exact(cli, node, tmp_path, "first")["disks"]}
    assert {name: disk["changed_bytes"] for name, disk in told.items()} == {
        "scsi0": 2 * MIB + (128 << 10),
        "scsi1": MIB + 512,
    }
    assert not any(disk["compared"] for disk in told.values())
    assert told["scsi0"]["precopied_bytes"] >= 2 * MIB
    # The bitmaps of the qcow2 disk are still there, whatever QEMU calls its node in this process.
    node.write("scsi0", 0, 64 << 10, 0x55)
    told = {disk["name"]: disk for disk in exact(cli, node, tmp_path, "second")["disks"]}
    assert told["scsi0"]["changed_bytes"] == 64 << 10 and not told["scsi0"]["compared"]
    assert told["scsi1"]["compared"], "raw keeps no bitmaps"
