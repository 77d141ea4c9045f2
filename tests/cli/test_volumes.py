"""A VM of which one volume is backed up, from its command to its restore; and what the commands refuse."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli import console
from tests.e2e import bare
from tests.kit import layouts
from tests.kit.cli import Cli
from tests.kit.vm import Vm

pytestmark = pytest.mark.vm

MIB = 1 << 20
FSTAB = "LABEL=system / ext4 defaults 0 1\nLABEL=scratch /srv ext4 defaults 0 0\n"


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Vm]:
    folder = tmp_path / "images"
    folder.mkdir()
    with bare.started([layouts.as_disk(layouts.system(folder, FSTAB), "system")]) as vm:
        yield vm


def test_a_volume_as_the_unit_of_a_job(cli: Cli, machine: Vm, tmp_path: Path) -> None:
    cli.run("init")
    added = cli.run("vm", "add", "web", "--qmp", machine.qmp_socket, "--volume", "/srv").json
    assert added["only_volumes"] == ["/srv"] and added["notes"] == []
    first = cli.run("backup", "web").json
    [disk] = first["disks"]
    assert disk["excluded_bytes"] == (layouts.ROOT[1] + layouts.SWAP[1]) * MIB
    start, length = layouts.SCRATCH
    bare.write(machine, "system", (start + length - 1) * MIB, 65536, 0x77)
    said = console.run(cli, "backup", "web").stdout
    # The fstab is on what is left out: the report has the mount point all the same, as of the point in time.
    assert "dev-system/3  /srv" in said and "left out" in said
    status = cli.run("status", "web").json["vms"][0]
    told = {each["name"]: each for each in status["volumes"]}
    assert told["dev-system/3"]["mounted"] == ["/srv"] and told["dev-system/3"]["remaining_bytes"] == 0
    assert status["remaining_bytes"] == 0, "what is left out does not remain"
    assert "mostly in /srv" in console.run(cli, "history", "web").stdout
    [*_, run] = cli.run("history", "web").json["runs"]
    assert {each["name"]: each["changed_bytes"] for each in run["volumes"]}["dev-system/3"] == 65536

    done = cli.run("restore", "web@latest", tmp_path / "out", "--volume", "label:scratch").json
    content = Path(done["disks"][0]["path"]).read_bytes()
    assert len(content) == length * MIB and content[(length - 1) * MIB :][:65536] == b"\x77" * 65536
    error = cli.run("restore", "web@latest", tmp_path / "out", "--volume", "/", expect=15).error["error"]
    assert "it was left out because only others were to be backed up" in error["message"]
    whole = cli.run("restore", "web@latest", tmp_path / "all").json
    assert sum("the backup was made without it" in note for note in whole["notes"]) == 2


def test_what_is_refused(cli: Cli, machine: Vm, tmp_path: Path) -> None:
    words = ("vm", "add", "web", "--qmp", machine.qmp_socket)
    for wrong in ("data", "!/srv", "!swap"):
        assert "--volume takes a mount point" in cli.run(*words, "--volume", wrong, expect=2).error["error"]["message"]
    added = cli.run(*words, "--volume", "/nowhere").json
    assert added["notes"] == ["there is no volume /nowhere, which is to be backed up: all that is not excluded is"]
    cli.run("init")
    cli.run("backup", "web")
    for more in (("--disk", "dev-system"), ("--format", "qcow2"), ("--lost-as-zeroes",)):
        cli.run("restore", "web@latest", tmp_path / "out", "--volume", "/", *more, expect=2)
    assert "without --agent and --qga" in cli.run("trim", "web", expect=2).error["error"]["message"]
