"""A guest that is an appliance: the test guest, with this machine's root over virtiofs, and Headstart from there.

::

    the guest   /host              this machine's /, read-only (Python, Headstart, its libraries)
                /host/REPOSITORY   the repository
                eth0               QEMU's user network; its port 10810 is a port of this machine
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from headstart.appliance import keys, messages
from tests.kit import guest, packages
from tests.kit.cli import Cli
from tests.kit.vm import Vm

VIRTIOFSD = Path("/usr/lib/qemu/virtiofsd")
MODULES = ("virtiofs", "virtio_net")
MEMORY_MIB = 768
START_SECONDS = 120.0


def missing() -> str:
    """Why there cannot be such a guest here; empty if there can."""
    if not VIRTIOFSD.exists():
        return f"there is no {VIRTIOFSD} (Debian 12's package qemu-system-common)"
    return "" if os.geteuid() == 0 else "virtiofsd needs root"


class ApplianceVm(Vm):
    """``address`` is where hosts find the appliance that runs in it after ``serve``. ``controller``: it has one for
    SCSI disks."""

    def __init__(self, folder: Path, repository: Path, port: int, *, controller: bool = True) -> None:
        self._keys = folder / "keys"
        if not self._keys.exists():
            keys.make(self._keys)
        self._port_number = port
        self._shares = {"host": Path("/"), "repository": repository}
        # The path of a unix socket is short.
        self._sockets = Path(tempfile.mkdtemp(prefix="headstart-fs-", dir="/tmp"))
        self._servers: list[subprocess.Popen[bytes]] = []
        extra = [
            "-object",
            f"memory-backend-memfd,id=shared,size={MEMORY_MIB}M,share=on",
            "-numa",
            "node,memdev=shared",
        ]
        for tag in self._shares:
            extra += ["-chardev", f"socket,id=fs-{tag},path={self._sockets / tag}"]
            extra += ["-device", f"vhost-user-fs-pci,chardev=fs-{tag},tag={tag}"]
        forward = f"hostfwd=tcp:127.0.0.1:{port}-:{messages.PORT}"
        extra += ["-netdev", f"user,id=net,restrict=on,{forward}", "-device", "virtio-net-pci,netdev=net"]
        if controller:
            extra += ["-device", "virtio-scsi-pci"]
        super().__init__([], memory_mib=MEMORY_MIB, cpus=2, extra=extra, boots=True)

    def __enter__(self) -> ApplianceVm:
        super().__enter__()
        return self

    @property
    def address(self) -> str:
        return f"tcp:127.0.0.1:{self._port_number},monitor={self.qmp_socket},keys={self._keys / keys.HOST}"

    def start(self) -> None:
        for tag, source in self._shares.items():
            command = ["setpriv", "--pdeathsig", "KILL", str(VIRTIOFSD), f"--socket-path={self._sockets / tag}", "-f"]
            server = subprocess.Popen(
                [*command, "-o", f"source={source},cache=auto,sandbox=chroot"], stderr=subprocess.DEVNULL
            )
            self._servers.append(server)
        while not all((self._sockets / tag).exists() for tag in self._shares):
            time.sleep(0.01)
        super().start()

    def _command(self) -> list[str]:
        command = super()._command()
        place = command.index("-initrd") + 1
        command[place] = str(_with_modules(Path(command[place]), self._sockets))
        return command

    def serve(self) -> None:
        """``headstart appliance`` runs in it, and is there."""
        repository = self._shares["repository"]
        self.guest.run("for each in $(cat /more/order); do insmod /more/$each; done", timeout=60)
        self.guest.run("ifconfig lo up; ifconfig eth0 10.0.2.15 up; mkdir -p /host")
        for what in (
            "-t virtiofs -o ro host /host",
            "-t proc proc /host/proc",
            "-t sysfs sys /host/sys",
            "-t devtmpfs dev /host/dev",
            "-t tmpfs tmp /host/mnt",
            f"-t virtiofs repository /host{repository}",
        ):
            self.guest.run(f"mount {what}")
        self.start_appliance()

    def start_appliance(self) -> None:
        environment = {
            **Cli(self._sockets).environment,
            "HEADSTART_REPOSITORY": str(self._shares["repository"]),
            **{f"HEADSTART_{name}": f"/mnt/{name}" for name in ("STATE", "SCRATCH", "CACHE")},
            "PYTHONDONTWRITEBYTECODE": "1",
            "TMPDIR": "/mnt",
        }
        words = " ".join(f"{name}='{value}'" for name, value in environment.items())
        program = f"{sys.executable} -m headstart --json appliance --keys {self._keys / keys.APPLIANCE}"
        self.guest.run(f"chroot /host env -i {words} {program} > /host/mnt/out 2> /host/mnt/log < /dev/null &")
        deadline = time.monotonic() + START_SECONDS
        while '"port"' not in self.guest.run("cat /host/mnt/out", check=False).output:
            if time.monotonic() > deadline:
                raise RuntimeError(f"the appliance does not start: {self.appliance_log}")
            time.sleep(0.3)

    def kill_appliance(self) -> None:
        self.guest.run("kill -9 $(pidof python); rm -f /host/mnt/out", check=False)

    @property
    def appliance_log(self) -> str:
        return self.guest.run("cat /host/mnt/log", check=False).output

    def close(self) -> None:
        super().close()
        for server in self._servers:
            server.kill()
            server.wait()
        shutil.rmtree(self._sockets, ignore_errors=True)


def _with_modules(initrd: Path, folder: Path) -> Path:
    """The kernel takes one archive after the other."""
    kernel = packages.unpacked(guest._kernel_package(), guest.CACHE)
    files = {path.stem.replace("-", "_"): path for path in kernel.glob("lib/modules/**/*.ko")}
    root = folder / "root"
    (root / "more").mkdir(parents=True)
    order = list(guest._load_order(MODULES, files))
    for name in order:
        shutil.copy(files[name], root / "more" / f"{name}.ko")
    (root / "more/order").write_text("".join(f"{name}.ko\n" for name in order))
    guest._pack(root, folder / "more")
    whole = folder / "initrd"
    first = initrd.read_bytes()
    whole.write_bytes(first + bytes(-len(first) % 4) + (folder / "more").read_bytes())
    return whole
