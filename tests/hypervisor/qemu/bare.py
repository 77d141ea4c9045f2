"""A QEMU without a guest: up in a third of a second. Writes come from the devices, by the monitor."""

from __future__ import annotations

import contextlib
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from headstart.hypervisor.qemu.machine import QemuMachine
from tests.hypervisor.subjects import INSTALLATION
from tests.kit import qmp

START_SECONDS = 20.0


class Bare:
    """Use ``running``. ``monitor`` is for the product, ``qmp`` is the test's own."""

    def __init__(self, folder: Path, arguments: Sequence[str]) -> None:
        self.folder = folder
        self.monitor = folder / "qmp"
        self.scratch = folder / "scratch"
        self.scratch.mkdir()
        own = folder / "test-qmp"
        # qemu-io tells its results on QEMU's standard output.
        command = ["setpriv", "--pdeathsig", "KILL", "stdbuf", "-oL", "qemu-system-x86_64"]
        command += ["-display", "none", "-nodefaults"]
        command += ["-m", "32", "-qmp", f"unix:{self.monitor},server=on,wait=off"]
        command += ["-qmp", f"unix:{own},server=on,wait=off", *arguments]
        self._log = folder / "log"
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                self._qmp = qmp.Qmp(own)
                return
            except (FileNotFoundError, ConnectionError):
                assert self.process.poll() is None, f"QEMU ended: {self._log.read_text()}"
                assert time.monotonic() < deadline
                time.sleep(0.01)

    def qmp(self, command: str, **arguments: Any) -> Any:
        return self._qmp.execute(command, **arguments)

    def wait_event(self, name: str, **data: Any) -> dict[str, Any]:
        return self._qmp.wait_event(name, **data)

    def machine(self, installation: str = INSTALLATION, **options: Any) -> QemuMachine:
        options = {"scratch": self.scratch, "label": "vm", **options}
        return QemuMachine(self.monitor, installation=installation, **options)

    def write(self, device: str, offset: int, length: int, pattern: int) -> None:
        """A write of the guest's, through whatever stands on the disk."""
        said = self._io(device, f"write -P {pattern} {offset} {length}")
        assert said.startswith("wrote "), said

    def read_is(self, device: str, offset: int, length: int, pattern: int) -> bool:
        said = self._io(device, f"read -P {pattern} {offset} {length}")
        return "verification failed" not in said and said.startswith("read ")

    def flush(self, device: str) -> None:
        """As the guest does: what it has written is there when QEMU is killed."""
        said = self._io(device, "flush")
        assert not said, said

    def _io(self, device: str, command: str) -> str:
        path = next(entry["qdev"] for entry in self.qmp("query-block") if device in entry["qdev"].split("/"))
        before = self._log.stat().st_size
        failed: str = self.qmp("human-monitor-command", command_line=f'qemu-io -d {path} "{command}"')
        with self._log.open() as log:
            log.seek(before)
            return failed or log.read()

    @property
    def status(self) -> str:
        status: str = self.qmp("query-status")["status"]
        return status

    def leftovers(self, prefix: str = "hs-") -> list[str]:
        """What of ours (or of an installation) stands in QEMU or lies in the scratch directory."""
        graph = self.qmp("x-debug-query-block-graph")
        found = [
            *(node["name"] for node in graph["nodes"]),
            *(export["id"] for export in self.qmp("query-block-exports")),
            *(job["id"] for job in self.qmp("query-jobs")),
        ]
        return [*(name for name in found if name.startswith(prefix)), *(path.name for path in self.scratch.iterdir())]

    def roots(self) -> dict[str, str]:
        """The node that each device stands on."""
        return {entry["qdev"]: entry["inserted"]["node-name"] for entry in self.qmp("query-block")}

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        self._qmp.close()


@contextlib.contextmanager
def running(*arguments: str) -> Iterator[Bare]:
    with tempfile.TemporaryDirectory(prefix="headstart-") as folder:
        bare = Bare(Path(folder), arguments)
        try:
            yield bare
        finally:
            bare.close()


def image(path: Path, size: str, kind: str = "qcow2", *options: str) -> Path:
    command = ["qemu-img", "create", "-q", "-f", kind, *options, str(path), size]
    subprocess.run(command, check=True)
    return path


def disk(name: str, path: Path, kind: str, *device: str) -> list[str]:
    """A ``-blockdev`` with its ``-device dev-NAME``."""
    file = f"driver=file,filename={path},node-name=file-{name}"
    node = f"driver={kind},file=file-{name},node-name={name}"
    word = ",".join([*(device or ("virtio-blk-pci",)), f"drive={name}", f"id=dev-{name}"])
    return ["-blockdev", file, "-blockdev", node, "-device", word]


def two(folder: Path, *, iothread: bool = False) -> list[str]:
    """``dev-one``: qcow2 on virtio-blk (in an iothread); ``dev-two``: raw and odd, on virtio-scsi."""
    one, other = image(folder / "one.qcow2", "8M"), image(folder / "two.raw", str((4 << 20) + 1536), "raw")
    thread = ["-object", "iothread,id=thread"] if iothread else []
    device = ["virtio-blk-pci", "iothread=thread"] if iothread else []
    return [
        *thread,
        *disk("one", one, "qcow2", *device),
        *("-device", "virtio-scsi-pci,id=scsi"),
        *disk("two", other, "raw", "scsi-hd", "bus=scsi.0"),
    ]
