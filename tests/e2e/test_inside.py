"""What the guest tells of itself: where its volumes lie, and how busy it is."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from headstart import errors
from headstart.backup import inspection
from headstart.guest import agent
from headstart.state.values import Vm as Entry
from tests.e2e.agents import wait_for_agentd
from tests.e2e.rig import NAME, Rig
from tests.kit import disks
from tests.kit.cli import Cli
from tests.kit.vm import Vm

pytestmark = pytest.mark.vm

MIB = disks.MIB


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    folder = tmp_path_factory.mktemp("inside")
    chosen = (
        disks.Disk(disks.make_ext4(folder / "system.qcow2", 48 * MIB, "qcow2"), "qcow2", "system"),
        disks.Disk(disks.make_filled(folder / "data.raw", 64 * MIB), "raw", "data", interface="virtio-scsi", serial=""),
    )
    with Vm(chosen) as vm:
        vm.guest.mount(vm.device("system") + "1", "/mnt")
        wait_for_agentd(vm)
        yield Rig(folder / "rig", vm, agent=True)


def test_a_path_in_the_guest_is_told_as_extents_of_a_disk(rig: Rig) -> None:
    """The partition of ``make_ext4`` begins at 1 MiB."""
    with rig.context() as context:
        found = inspection.locate(context, NAME, "/mnt/some/file")
    assert (found.kind, found.mounted) == ("partition", "/mnt")
    (disk,) = found.disks
    assert disk["name"] == "dev-system" and disk["extents"] == [[disks.PARTITION_OFFSET, found.bytes]]
    # The superblock's magic number, at the place that was told, in the image.
    raw = rig.folder / "system.raw"
    subprocess.run(["qemu-img", "convert", "-U", "-O", "raw", rig.vm.disk("system").path, raw], check=True)
    assert raw.read_bytes()[disk["extents"][0][0] + 1024 + 56 :][:2] == b"\x53\xef"


@pytest.mark.parametrize("what", ["/dev/sda", "sda"])
def test_a_whole_disk_is_a_volume_too(rig: Rig, what: str) -> None:
    """It has no serial number: its place on the PCI bus and its content tell it."""
    with rig.context() as context:
        found = inspection.locate(context, NAME, what)
    assert found.disks == ({"name": "dev-data", "device": "sda", "extents": [[0, 64 * MIB]]},)


def test_what_the_guest_does_not_have(rig: Rig) -> None:
    with rig.context() as context:
        for what in ("/dev/nothing", "/proc", ""):
            with pytest.raises(errors.NotFound):
                inspection.locate(context, NAME, what)


def test_the_command_line_shows_the_map(rig: Rig) -> None:
    cli = Cli(rig.folder)
    shown = cli.run("vm", "show", NAME).json
    system = next(disk for disk in shown["disks"] if disk["name"] == "dev-system")
    (volume,) = system["volumes"]
    assert system["device"] == "vda" and volume["mounted"] == [{"path": "/mnt", "type": "ext4"}]
    told = cli.run("identify", NAME, "--volume", "/mnt").json
    assert told["disks"][0]["name"] == "dev-system"


def test_without_an_agent_the_disks_are_shown_all_the_same(rig: Rig, tmp_path: Path) -> None:
    with rig.context() as context:
        entry = Entry("other", rig.folder / "qmp", str(tmp_path / "nowhere"))
        seen = inspection.inspect(context, entry)
    assert len(seen.disks) == 2 and any("from inside" in note for note in seen.notes)


def test_figures_once_a_second(rig: Rig) -> None:
    with agent.connect(str(rig.folder / "agent")) as connected:

        def following() -> dict[str, Any]:
            while (found := connected.latest()) is None:
                connected.pump(0.05)
            return found

        assert connected.latest() is None
        for _ in range(2):
            connected.watch(0.3)
        first, second = following(), following()
        rig.vm.guest.read("/dev/sda", 0, 8 * MIB)
        third = following()
        assert 0.2 < second["time"] - first["time"] < 3
        assert third["disks"]["sda"]["read_bytes"] - second["disks"]["sda"]["read_bytes"] >= 8 * MIB
        assert {"cpu", "memory", "network", "pressure"} <= set(first)
        assert first["memory"]["available"] < first["memory"]["total"]
        assert third["own"]["cpu_seconds"] > 0
        assert connected.map().disks
