"""The doctor looks at a domain of libvirt's."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import libvirt
import pytest

from tests.e2e.rig import NAME
from tests.e2e.virt import VirtRig
from tests.kit import disks
from tests.kit.cli import Cli
from tests.kit.domain import QGA, Domain
from tests.kit.libvirtd import Libvirtd

pytestmark = pytest.mark.vm

MIB = disks.MIB
THEIRS = """<domaincheckpoint><name>theirs</name><disks>{}</disks></domaincheckpoint>"""


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Domain]:
    chosen = [
        disks.Disk(disks.make_filled(tmp_path / "one.qcow2", 8 * MIB, "qcow2"), "qcow2", "one"),
        disks.Disk(disks.make_filled(tmp_path / "two.raw", 8 * MIB), "raw", "two"),
    ]
    with Libvirtd() as running, Domain(running, "doctor", chosen) as vm:
        yield vm


def findings(cli: Cli, expect: int = 0) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = cli.run("doctor", NAME, expect=expect).json["findings"]
    return found


def test_a_domain(machine: Domain, tmp_path: Path) -> None:
    rig = VirtRig(tmp_path / "rig", machine)
    cli = Cli(rig.folder)
    machine.wait_connected(QGA)
    rig.backup()
    one = machine.target("one")
    described = f"<disk name='{one}' checkpoint='bitmap'/><disk name='{machine.target('two')}' checkpoint='no'/>"
    machine.virt.checkpointCreateXML(THEIRS.format(described), 0)
    before = rig.checkpoints()
    said = {(each["check"], each["level"]): each["what"] for each in findings(cli)}
    assert rig.checkpoints() == before and not machine.virt.jobStats()["type"]
    assert "7." in said["monitor", "ok"] and "running" in said["monitor", "ok"]
    assert said["disks", "warning"].startswith(f"{machine.target('two')}: nothing records its changes")
    assert one in said["bitmaps", "ok"]
    assert "theirs" in said["other tools", "note"]
    assert said["qga", "ok"] == "it answers through libvirt"
    machine.virt.destroy()
    said = {(each["check"], each["level"]): each["what"] for each in findings(cli)}
    assert "off" in said["monitor", "ok"]
    assert machine.virt.state()[0] == libvirt.VIR_DOMAIN_SHUTOFF
    machine.virt.checkpointLookupByName("theirs").delete(libvirt.VIR_DOMAIN_CHECKPOINT_DELETE_METADATA_ONLY)
