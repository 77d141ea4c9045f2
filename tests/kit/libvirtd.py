"""A real libvirtd of the tests' own, without systemd.

libvirt keeps its domains in fixed places: only one can run on a machine. The settings of its QEMU driver are
put over the machine's in a mount namespace of its own; everything else of the machine's configuration stays
as it is.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import fcntl
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

import libvirt
import pytest

from tests.kit.guest import GuestImage
from tests.kit.vm import ACCELERATOR

START_SECONDS = 30.0
#: Of the names of domains that tests make.
PREFIX = "headstart-test-"
LOCK = Path("/tmp/headstart-libvirtd.lock")

#: For a container: no cgroups, namespaces or security labels of the hypervisor's.
QEMU_CONF = """
user = "{user}"
group = "{group}"
dynamic_ownership = 1
remember_owner = 0
security_driver = "none"
cgroup_controllers = []
namespaces = []
seccomp_sandbox = 0
stdio_handler = "file"
max_core = 0
"""

LIBVIRTD_CONF = """
unix_sock_dir = "{folder}"
auth_unix_rw = "none"
auth_unix_ro = "none"
log_outputs = "3:file:{folder}/libvirtd.log"
"""


def undefine(domain: Any) -> None:
    """End a domain, and let libvirt forget all of it."""
    flags = libvirt.VIR_DOMAIN_UNDEFINE_CHECKPOINTS_METADATA | libvirt.VIR_DOMAIN_UNDEFINE_SNAPSHOTS_METADATA
    if domain.isActive():
        domain.destroy()
    with contextlib.suppress(libvirt.libvirtError):  # a transient one is gone with its end
        domain.undefineFlags(flags | libvirt.VIR_DOMAIN_UNDEFINE_MANAGED_SAVE)


class Libvirtd:
    """A context manager: it is running inside. Domains outlive it, as they do in life; QEMU runs as ``user``."""

    def __init__(self, user: str = "libvirt-qemu", within: Sequence[str] = ()) -> None:
        """``within``: a command that runs it elsewhere (``apart.Apart``)."""
        self._within = within
        libvirt.registerErrorHandler(lambda _context, _error: None, None)
        self._folder = Path(tempfile.mkdtemp(prefix="headstart-libvirtd-", dir="/tmp"))
        self._folder.chmod(0o755)
        self._pid_file = self._folder / "pid"
        self._started = False
        self._lock: IO[str] | None = None
        # It ends with the thread that started it: that one has to live as long as the tests.
        self._starter = concurrent.futures.ThreadPoolExecutor(1)
        self._process: subprocess.Popen[bytes] | None = None
        (self._folder / "qemu.conf").write_text(QEMU_CONF.format(user=user, group=user))
        (self._folder / "nothing").touch(0o000)
        (self._folder / "libvirtd.conf").write_text(LIBVIRTD_CONF.format(folder=self._folder))

    @property
    def uri(self) -> str:
        return f"qemu+unix:///system?socket={self._folder / 'libvirt-sock'}"

    @property
    def log(self) -> str:
        path = self._folder / "libvirtd.log"
        return path.read_text(errors="replace") if path.exists() else ""

    def guest_image(self, image: GuestImage) -> tuple[Path, Path]:
        """Kernel and initrd where QEMU's user can read them."""
        copies = (self._folder / "kernel", self._folder / "initrd")
        for source, copy in zip((image.kernel, image.initrd), copies, strict=True):
            if not copy.exists():
                shutil.copyfile(source, copy)
        return copies

    def start(self) -> None:
        """It answers when this returns. Waits until no other test run has one."""
        if os.geteuid() != 0:
            pytest.skip("a libvirtd of the tests' own has to run as root")
        if self._lock is None:
            self._lock = LOCK.open("w")
            fcntl.flock(self._lock, fcntl.LOCK_EX)
        mine = [f"mount --bind {self._folder}/qemu.conf /etc/libvirt/qemu.conf"]
        if ACCELERATOR != "kvm" and Path("/dev/kvm").exists():
            # One that opens and does not work makes libvirt ask QEMU again and again what it can do.
            mine.append(f"mount --bind {self._folder}/nothing /dev/kvm")
        run = f"exec libvirtd -f {self._folder}/libvirtd.conf -p {self._pid_file}"
        script = " && ".join([*mine, run])
        command = ["setpriv", "--pdeathsig", "TERM", *self._within, "unshare", "--mount", "sh", "-c", script]
        self._process = self._starter.submit(self._spawn, command).result()
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                libvirt.open(self.uri).close()
            except libvirt.libvirtError:
                if self._process.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError(f"libvirtd did not start: {(self._folder / 'output').read_text()}") from None
                time.sleep(0.05)
            else:
                self._clean_up()
                return

    def _spawn(self, command: list[str]) -> subprocess.Popen[bytes]:
        with (self._folder / "output").open("ab") as output:
            return subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
            )

    def _clean_up(self) -> None:
        """Domains of tests that were killed. After a restart there are some that live, and stay."""
        if self._started:
            return
        self._started = True
        connection = libvirt.open(self.uri)
        for domain in connection.listAllDomains():
            if domain.name().startswith(PREFIX):
                undefine(domain)
        connection.close()

    def stop(self, number: int = signal.SIGTERM) -> None:
        if self._process is not None:
            os.kill(self._process.pid, number)
            self._process.wait(START_SECONDS)
            self._process = None

    def restart(self, number: int = signal.SIGTERM) -> None:
        self.stop(number)
        self.start()

    def __enter__(self) -> Libvirtd:
        self.start()
        return self

    def __exit__(self, *details: object) -> None:
        self.stop()
        if self._lock is not None:
            self._lock.close()
        shutil.rmtree(self._folder, ignore_errors=True)
