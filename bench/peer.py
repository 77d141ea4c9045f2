"""A domain of libvirt's, backed up by Headstart and by virtnbdbackup in turn.

virtnbdbackup reads from a pull-mode job of libvirt's, for as long as the job stands, into a file of extents: no
encryption, no checksums, no compression, no fsync. It refuses a domain with checkpoints that are not its own, so each
of the two takes its checkpoints out of the domain when it has had its turn, and begins its next with a full backup.
"""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import libvirt

from bench import day, figure, measure, realdisk, scene
from bench.figure import Figure
from headstart.units import MIB
from tests.kit import workloads
from tests.kit.cli import Cli
from tests.kit.disks import Disk
from tests.kit.domain import Domain, open_up
from tests.kit.libvirtd import Libvirtd
from tests.kit.workloads import Churn, Region

VM_NAME = "bench"
DISK_NAME = "files"
PEER = "virtnbdbackup 1.9.15"
REWRITTEN_BYTES = 100 * MIB
#: Of the disk, where the guest rewrites it: within what the files take up.
OFFSET = 512 * MIB

Say = Callable[[str], None]


class Tool(Protocol):
    """A backup tool that has a domain, and a folder that it finds empty. Results are seconds of whole commands."""

    def full(self) -> float: ...

    def incremental(self) -> float: ...

    def restore(self) -> float:
        """Of the newest backup."""

    def copy_ahead(self) -> None:
        """Something to do while the guest works."""

    def window(self) -> float:
        """An incremental backup; seconds of the point in time that it needs."""

    def leave(self) -> None:
        """The domain has nothing of the tool's any more."""


class Headstart:
    def __init__(self, domain: Domain, folder: Path) -> None:
        self._domain = domain
        self._target = folder / "restored"
        self._cli = Cli(folder)
        open_up(self._cli.scratch)
        self._cli.run("init")
        self._cli.run("vm", "add", VM_NAME, "--libvirt", domain.daemon.uri, domain.name)

    def full(self) -> float:
        return self._timed("backup", VM_NAME)

    def incremental(self) -> float:
        return self._timed("backup", VM_NAME)

    def restore(self) -> float:
        return self._timed("restore", f"{VM_NAME}@latest", str(self._target), "--format", "qcow2")

    def copy_ahead(self) -> None:
        """By the host: the writes keep the only processor of the domain busy, and the agent gives way to them."""
        self._cli.run("precopy", VM_NAME, "--transport", "host", timeout=scene.COMMAND_SECONDS)

    def window(self) -> float:
        report: dict[str, Any] = self._cli.run("backup", VM_NAME, timeout=scene.COMMAND_SECONDS).json
        return float(report["window_seconds"])

    def leave(self) -> None:
        self._cli.run("vm", "release", VM_NAME)

    def _timed(self, *arguments: str) -> float:
        command = [sys.executable, "-m", "headstart.cli.main", "--json", *arguments]
        return measure.run(command, env=self._cli.environment, beside=self._domain.pid).seconds


class Virtnbdbackup:
    def __init__(self, domain: Domain, folder: Path) -> None:
        self._domain = domain
        self._backups = folder / "backups"
        self._target = folder / "restored"
        self._scratch = folder / "scratch"
        for each in (self._target, self._scratch):
            each.mkdir(parents=True)
        open_up(self._scratch / "any")

    def full(self) -> float:
        return self._backup("full")

    def incremental(self) -> float:
        return self._backup("inc")

    def restore(self) -> float:
        return self._timed("virtnbdrestore", "-n", *_connection(self._domain), "-i", self._backups, "-o", self._target)

    def copy_ahead(self) -> None:
        """It cannot."""

    def window(self) -> float:
        """As long as libvirt says that its job stood: the freezing before it is not in it."""
        self._backup("inc")
        milliseconds: int = self._domain.virt.jobStats(libvirt.VIR_DOMAIN_JOB_STATS_COMPLETED)["time_elapsed"]
        return milliseconds / 1000

    def leave(self) -> None:
        for checkpoint in self._domain.virt.listAllCheckpoints():
            checkpoint.delete()

    def _backup(self, level: str) -> float:
        addressed = (*_connection(self._domain), "-d", self._domain.name)
        return self._timed("virtnbdbackup", "-n", *addressed, "-l", level, "-S", self._scratch, "-o", self._backups)

    def _timed(self, *command: str | Path) -> float:
        return measure.run(command, beside=self._domain.pid).seconds


def _connection(domain: Domain) -> tuple[str, ...]:
    """It wants a user and a password with every URI that names a transport; no one asks for them here."""
    return "-U", domain.daemon.uri, "--user", "nobody", "--password", "none"


@dataclass(slots=True)
class Seconds:
    """Of one tool; one entry for each run."""

    full: list[float] = field(default_factory=list)
    incremental: list[float] = field(default_factory=list)
    restore: list[float] = field(default_factory=list)
    window: list[float] = field(default_factory=list)


def run(folder: Path, runs: int, say: Say) -> list[Figure]:
    """``folder`` is made."""
    say("making a disk with real files, or taking the one that is there")
    source = realdisk.image()
    folder.mkdir(parents=True)
    ours, peer = Seconds(), Seconds()
    say("starting libvirt's daemon, as soon as nobody else on this machine has one")
    with Libvirtd() as daemon:
        for number in range(runs):
            say(f"a domain of libvirt's, by Headstart and by virtnbdbackup: run {number + 1} of {runs}")
            image = Path(shutil.copyfile(source, folder / "disk.qcow2"))
            with Domain(daemon, VM_NAME, [Disk(image, "qcow2", DISK_NAME)]) as domain:
                _run(domain, folder / "run", 4 * number, {Headstart: ours, Virtnbdbackup: peer})
    return _figures(ours, peer)


def _run(domain: Domain, folder: Path, seed: int, tools: Mapping[Callable[[Domain, Path], Tool], Seconds]) -> None:
    """The days come last: they change most of what the others read."""
    for measured in (_plainly, _at_the_end_of_a_day):
        for make, seconds in tools.items():
            seed += 1
            folder.mkdir()
            tool = make(domain, folder)
            measured(domain, tool, seed, seconds)
            tool.leave()
            shutil.rmtree(folder)


def _plainly(domain: Domain, tool: Tool, seed: int, seconds: Seconds) -> None:
    seconds.full.append(tool.full())
    region = Region(domain.device(DISK_NAME), OFFSET, REWRITTEN_BYTES)
    with workloads.churn(domain.guest, [region], hot_share=0.05, sync_every=16, seed=seed) as churn:
        churn.wait_changed(REWRITTEN_BYTES)
    seconds.incremental.append(tool.incremental())
    seconds.restore.append(tool.restore())


def _at_the_end_of_a_day(domain: Domain, tool: Tool, seed: int, seconds: Seconds) -> None:
    """The guest goes on writing while it is backed up."""
    tool.full()
    with _churn(domain, seed) as churn:
        began = time.monotonic()
        following = began + day.UNDISTURBED
        while churn.stats(time.monotonic() - 5.0).distinct < day.TOTAL:
            if time.monotonic() > began + day.PATIENCE:
                raise RuntimeError(f"the guest did not change {day.TOTAL} bytes in {day.PATIENCE:.0f} s")
            if time.monotonic() > following:
                following += day.ROUND_EVERY
                tool.copy_ahead()
            time.sleep(0.5)
        # As in the day of ``bench.day``, the last round may come after the last change.
        tool.copy_ahead()
        seconds.window.append(tool.window())


def _churn(domain: Domain, seed: int) -> Churn:
    """The writes of ``bench.scene``, on one disk."""
    return workloads.churn(
        domain.guest,
        [Region(domain.device(DISK_NAME), OFFSET, day.TOTAL)],
        rate=scene.RATE,
        write_size=scene.WRITE_SIZE,
        hot=scene.HOT,
        hot_share=scene.HOT_SHARE,
        compressible=scene.COMPRESSIBLE,
        seed=seed,
    )


def _figures(ours: Seconds, peer: Seconds) -> list[Figure]:
    libvirts = "of a libvirt VM"
    files = f"{realdisk.SIZE >> 30} GiB disk with {realdisk.FILES_BYTES >> 30} GiB of files"
    return [
        figure.of(f"full backup {libvirts}, {files}", ours.full, peer.full, PEER, "s"),
        figure.of(
            f"incremental backup {libvirts}, {REWRITTEN_BYTES >> 20} MiB rewritten",
            ours.incremental,
            peer.incremental,
            PEER,
            "s",
        ),
        figure.of(f"restore {libvirts} to qcow2", ours.restore, peer.restore, PEER, "s"),
        figure.of(f"backup window {libvirts}", ours.window, peer.window, PEER, "s"),
    ]
