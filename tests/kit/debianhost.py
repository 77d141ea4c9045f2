"""A Debian with systemd that is a hypervisor: with QEMU and libvirt, nothing of ours, and no network. A container of
systemd-nspawn's, as root: what units may and may not do is the same there as on a machine, and nothing is emulated.

In apt's cache lies what our packages need and recommend, so that ``apt install ./headstart.deb`` works there.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.kit import debian, packages

#: As somebody has them before Headstart comes.
INSTALLED = (
    *("libvirt-daemon-system", "libvirt-daemon-driver-qemu", "libvirt-clients", "qemu-system-x86"),
    *("man-db", "debconf", "apt-utils"),
)
#: What the packages depend on and recommend.
CACHED = ("python3-libnbd", "qemu-utils", "nbdkit", "nbdkit-plugin-python", "python3-libvirt", "fuse3")
BOOT_SECONDS = 120.0
RUN_SECONDS = 300.0
ENVIRONMENT = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "DEBIAN_FRONTEND": "noninteractive", "LC_ALL": "C.UTF-8"}


def missing() -> str:
    """Why there cannot be such a machine here; empty if there can."""
    if os.geteuid() != 0:
        return "systemd-nspawn needs root"
    return "" if shutil.which("systemd-nspawn") else "needs Debian's package systemd-container"


def build() -> Path:
    """Its root file system, from the cache if it is there."""
    target = debian.CACHE / f"host-{debian.key(*INSTALLED, *CACHED, 'recommends')}"
    if not target.is_dir():
        debian.CACHE.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".host-", dir=debian.CACHE) as temporary:
            tree = Path(temporary, "tree")
            debian.bootstrap(tree)
            _extend(tree)
            packages.put_in_place(tree, target)
    return target


def _extend(tree: Path) -> None:
    shutil.copy("/etc/resolv.conf", tree / "etc/resolv.conf")
    install = ["apt-get", "-qy", "--no-install-recommends", "install"]
    _within(tree, "apt-get", "-q", "update")
    _within(tree, *install, *INSTALLED)
    _within(tree, "apt-get", "clean")
    # With what they recommend in their turn, as apt will want it.
    _within(tree, "apt-get", "-qy", "--install-recommends", "--download-only", "install", *CACHED)


def _within(tree: Path, *command: str) -> None:
    done = subprocess.run(
        ["chroot", tree, *command], env=ENVIRONMENT, stdin=subprocess.DEVNULL, capture_output=True, text=True
    )
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)} failed:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")


class DebianHost:
    """A context manager: it runs inside, on a copy. What lies in ``brought`` is in ``/mnt`` there."""

    def __init__(self, folder: Path, brought: Path) -> None:
        self._root = folder / "root"
        self._log = folder / "console.log"
        self._brought = brought
        self._process: subprocess.Popen[bytes] | None = None
        self._leader = 0

    def __enter__(self) -> Self:
        subprocess.run(["cp", "-a", "--reflink=auto", build(), self._root], check=True)
        command = ["systemd-nspawn", "--quiet", "--boot", "--directory", str(self._root), "--private-network"]
        command += ["--register=no", "--keep-unit", "--console=read-only", f"--bind-ro={self._brought}:/mnt"]
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [*command, f"--machine=headstart-{os.getpid()}"],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        try:
            self._await()
        except BaseException:
            self.close()
            raise
        return self

    def _await(self) -> None:
        assert self._process is not None
        deadline = time.monotonic() + BOOT_SECONDS
        children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children")
        while True:
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"it has not started:\n{self._log.read_text(errors='replace')[-3000:]}")
            self._leader = next((int(word) for word in children.read_text().split()), 0)
            if self._leader:
                asked = "systemctl is-system-running --wait"
                said = self.attempt(asked, BOOT_SECONDS).stdout.strip()
                if said in ("running", "degraded"):
                    return
            time.sleep(0.2)

    def run(self, script: str, seconds: float = RUN_SECONDS) -> str:
        """What a script of ``sh``, as root, said on stdout. One that fails is an error."""
        ended = self.attempt(script, seconds)
        assert ended.returncode == 0, f"{script}\n{ended.stdout[-6000:]}\n{ended.stderr[-3000:]}"
        return ended.stdout

    def attempt(self, script: str, seconds: float = RUN_SECONDS) -> subprocess.CompletedProcess[str]:
        command = ["nsenter", f"--target={self._leader}", "--all", "/bin/sh", "-c", script]
        return subprocess.run(
            command,
            env=ENVIRONMENT,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=seconds,
        )

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        if self._process is not None and self._process.poll() is None:
            # Its first process is what holds all others.
            os.kill(self._leader or self._process.pid, signal.SIGKILL)
            self._process.wait(60)
        shutil.rmtree(self._root, ignore_errors=True)
