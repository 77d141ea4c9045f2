"""A plain QEMU is started again as it was: its guest runs if it ran, and its disks are what they were made."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from headstart.hypervisor.qemu import offline
from headstart.hypervisor.qemu.power import QemuPower, Started, why_not
from headstart.wire.qmp import Qmp
from tests.kit.waiting import wait_until

pytestmark = pytest.mark.vm


@pytest.fixture
def monitor(tmp_path: Path) -> Iterator[Path]:
    """Of a QEMU that was started with -S."""
    path = tmp_path / "qmp"
    words = ["qemu-system-x86_64", "-M", "none", "-nodefaults", "-display", "none", "-S"]
    with subprocess.Popen([*words, "-qmp", f"unix:{path},server=on,wait=off"], stdin=subprocess.DEVNULL) as process:
        try:
            wait_until(lambda: offline.listens(path))
            yield path
        finally:
            with contextlib.suppress(Exception), Qmp(path) as qmp:
                qmp.execute("quit")
            process.kill()


@pytest.mark.parametrize(("ran", "status"), [(True, "running"), (False, "prelaunch")])
def test_a_guest_that_ran_runs_again_though_qemu_waits_for_it(monitor: Path, ran: bool, status: str) -> None:
    if ran:
        with Qmp(monitor) as qmp:
            qmp.execute("cont")
    first = QemuPower(monitor, None)
    memory = first.memory()
    first.shut_down(0.1, force=True)
    again = QemuPower(monitor, None)
    again.recall(memory)
    assert again.start() == ""
    with Qmp(monitor) as qmp:
        assert qmp.execute("query-status")["status"] == status


@pytest.mark.parametrize("words", [("-loadvm", "s1"), ("--loadvm", "s1"), ("-incoming", "defer"), ("-preconfig",)])
def test_what_would_not_be_the_same_is_left_to_its_owner(words: tuple[str, ...]) -> None:
    """With -loadvm QEMU puts the disks back to that moment."""
    started = Started(("qemu-system-x86_64", *words), "/", (), os.geteuid(), "")
    assert words[0].lstrip("-") in why_not(started)
    assert why_not(Started(("qemu-system-x86_64", "-S"), "/", (), os.geteuid(), "")) == ""
