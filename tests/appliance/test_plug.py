"""Disks plugged into a QEMU that has no guest: what is ours there, and who takes it away."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from headstart import errors
from headstart.appliance.plug import Plug
from headstart.wire import nbd
from tests.hypervisor.qemu import bare
from tests.hypervisor.qemu.bare import Bare
from tests.kit.nbd import SIZE, WRITTEN, qemu_nbd, sparse

WAIT_SECONDS = 20.0
ANOTHER = """\
import sys, time
from pathlib import Path
from headstart.appliance.plug import Plug
with Plug(Path(sys.argv[1]), sys.argv[2]):
    print("plugged", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def export(tmp_path: Path) -> Iterator[nbd.Export]:
    sparse(tmp_path / "image", SIZE, WRITTEN)
    with qemu_nbd(tmp_path / "image") as found:
        yield found


@pytest.fixture
def guest() -> Iterator[Bare]:
    with bare.running("-device", "virtio-scsi-pci") as found:
        yield found


def ours(guest: Bare) -> tuple[list[str], list[str]]:
    """Nodes, and devices that have one."""
    nodes = [node["node-name"] for node in guest.qmp("query-named-block-nodes", flat=True)]
    devices = [each.get("qdev", "") for each in guest.qmp("query-block")]
    return [name for name in nodes if "hsplug" in name], [name for name in devices if "hsplug" in name]


def test_it_is_there_read_only_and_then_gone(guest: Bare, export: nbd.Export) -> None:
    with Plug(guest.monitor, export.uri) as one, Plug(guest.monitor, export.uri) as other:
        assert one.serial != other.serial
        nodes, devices = ours(guest)
        assert len(nodes) == len(devices) == 2
        found = [node for node in guest.qmp("query-named-block-nodes", flat=True) if node["node-name"] in nodes]
        assert all(node["ro"] and node["cache"]["direct"] for node in found)
    assert ours(guest) == ([], [])


def test_what_a_killed_process_left_the_next_one_takes_away(guest: Bare, export: nbd.Export) -> None:
    """And nothing else: what belongs to somebody who lives stays."""
    mine = Plug(guest.monitor, export.uri)
    process = subprocess.Popen(
        [sys.executable, "-c", ANOTHER, str(guest.monitor), export.uri], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None and process.stdout.readline() == "plugged\n"
    with Plug(guest.monitor, export.uri):
        assert len(ours(guest)[0]) == 3
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert [len(each) for each in ours(guest)] == [2, 2]
    with Plug(guest.monitor, export.uri):
        assert [len(each) for each in ours(guest)] == [2, 2]
    mine.close()
    assert ours(guest) == ([], [])


def test_a_server_that_is_gone_does_not_keep_it(guest: Bare, tmp_path: Path) -> None:
    sparse(tmp_path / "image", SIZE, WRITTEN)
    with qemu_nbd(tmp_path / "image") as export:
        plug = Plug(guest.monitor, export.uri)
    began = time.monotonic()
    plug.close()
    assert ours(guest) == ([], []) and time.monotonic() < began + WAIT_SECONDS / 4


@pytest.mark.parametrize("what", ["the server", "the place"])
def test_what_cannot_be_plugged_in_leaves_nothing(export: nbd.Export, tmp_path: Path, what: str) -> None:
    machine = ["-machine", "q35"] if what == "the place" else ["-device", "virtio-scsi-pci"]
    uri = nbd.Export(tmp_path / "none", "").uri if what == "the server" else export.uri
    told = "cannot open" if what == "the server" else "virtio-scsi controller"
    with bare.running(*machine) as guest:
        with pytest.raises(errors.Unsupported, match=told):
            Plug(guest.monitor, uri)
        assert ours(guest) == ([], [])
