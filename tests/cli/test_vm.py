"""The verbs of a VM, on a QEMU whose guest does not run."""

from __future__ import annotations

import json
import os
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cli import console
from tests.kit import compare, disks
from tests.kit.cli import ROOT, Cli
from tests.kit.vm import Vm

#: Starts a VM, if none that boots.
pytestmark = pytest.mark.vm
SIZE = 8 * disks.MIB


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Vm]:
    pair = (
        disks.Disk(disks.make_filled(tmp_path / "system.qcow2", SIZE, "qcow2"), "qcow2", "system"),
        disks.Disk(disks.make_filled(tmp_path / "data.raw", SIZE, seed=2), "raw", "data", "virtio-scsi"),
    )
    vm = Vm(pair, extra=("-S",))
    try:
        vm.start()
        yield vm
    finally:
        vm.close()


def test_add_list_show_remove(cli: Cli, machine: Vm, tmp_path: Path) -> None:
    (tmp_path / "definition.xml").write_text("<domain/>")
    words = ("vm", "add", "web", "--qmp", machine.qmp_socket, "--definition", tmp_path / "definition.xml")
    added = cli.run(*words, "--exclude-disk", "dev-data").json
    assert [disk["name"] for disk in added["disks"]] == ["dev-system"]
    assert {"name": "dev-data", "reason": "excluded"} in added["left_out"]
    [listed] = cli.run("vm", "list").json["vms"]
    assert listed == {
        "name": "web",
        "qmp": str(machine.qmp_socket),
        "libvirt": None,
        "guest_only": False,
        "agent": None,
        "qga": None,
        "excluded": ["dev-data"],
        "track": "auto",
        "only_volumes": [],
    }
    assert cli.run("vm", "show", "web").json["disks"] == added["disks"]
    assert "left out: dev-data (excluded)" in console.run(cli, "vm", "show", "web").stdout
    cli.run("vm", "remove", "web")
    assert cli.run("vm", "list").json == {"vms": []}


def test_how_changes_are_learned_is_chosen_and_told(cli: Cli, machine: Vm, tmp_path: Path) -> None:
    def ways(told: dict[str, Any]) -> list[str]:
        return [disk["tracking"] for disk in told["disks"]]

    cli.run("init")
    assert ways(cli.run("vm", "add", "web", "--qmp", machine.qmp_socket, "--track", "compare").json) == [
        "comparison",
        "comparison",
    ]
    assert cli.run("vm", "list").json["vms"][0]["track"] == "compare"
    cli.run("precopy", "web", "--transport", "host")
    made = cli.run("backup", "web", "--audit", "all").json
    assert ways(made) == ["comparison", "comparison"]
    # What was copied ahead is compared, and not read again.
    assert [disk["residue_bytes"] for disk in made["disks"]] == [0, 0]
    assert ways(cli.run("vm", "set", "web", "--track", "auto").json) == ["bitmap", "bitmap"]
    made = cli.run("backup", "web").json
    assert ways(made) == ["bitmap", "bitmap"]
    assert all(disk["compared"] and not disk["stored_bytes"] for disk in made["disks"])
    told = cli.run("vm", "set", "web", "--track", "overlay").json
    head = tmp_path / "data.raw.headstart"
    assert head.is_symlink()
    assert f"$(readlink -f {head})" in " ".join(told["notes"])
    assert (
        "started from the image itself" in next(d for d in told["disks"] if d["name"] == "dev-data")["tracking_reason"]
    )
    assert not cli.run("vm", "show", "web").json["notes"], "it is said once"
    assert "dev-data is tracked by bitmap: " in console.run(cli, "vm", "show", "web").stdout
    cli.run("vm", "set", "nobody", "--track", "auto", expect=15)
    cli.run("vm", "set", "web", expect=2)


def test_what_add_refuses(cli: Cli, machine: Vm, tmp_path: Path) -> None:
    words = ("vm", "add", "web", "--qmp", machine.qmp_socket)
    error = cli.run(*words, "--exclude-disk", "sda", expect=15).error["error"]
    assert "It has: dev-system, dev-data" in error["message"]
    assert cli.run("vm", "list").json == {"vms": []}
    cli.run(*words)
    assert "already" in cli.run(*words, expect=2).error["error"]["message"]
    (tmp_path / "link").symlink_to(machine.qmp_socket)
    error = cli.run("vm", "add", "other", "--qmp", tmp_path / "link", expect=2).error["error"]
    assert "is the monitor of 'web'" in error["message"]
    assert "or 'headstart vm remove web' first" in error["message"]
    cli.run("vm", "add", "third", "--qmp", tmp_path / "nowhere", expect=20)
    cli.run("vm", "add", "third", "--qmp", "x", "--definition", tmp_path / "nowhere", expect=2)
    (tmp_path / "binary").write_bytes(b"\xff")
    error = cli.run("vm", "add", "third", "--qmp", "x", "--definition", tmp_path / "binary", expect=2).error["error"]
    assert "Name another file with --definition, or none" in error["message"]
    assert [vm["name"] for vm in cli.run("vm", "list").json["vms"]] == ["web"]


def test_a_monitor_that_somebody_else_uses(cli: Cli, machine: Vm) -> None:
    with socket.socket(socket.AF_UNIX) as other:
        other.connect(str(machine.qmp_socket))
        error = cli.run("vm", "add", "web", "--qmp", machine.qmp_socket, expect=20).error["error"]
    assert "one client at a time" in error["message"]


def test_a_head_start_a_backup_and_a_restore(cli: Cli, machine: Vm, tmp_path: Path) -> None:
    cli.run("init")
    cli.run("vm", "add", "web", "--qmp", machine.qmp_socket)
    ahead = cli.run("precopy", "web", "--transport", "host").json
    assert {
        *("vm", "round", "transport", "identified_bytes", "copied_bytes", "stored_bytes"),
        *("remaining_bytes", "identify_seconds", "seconds", "halted"),
    } <= set(ahead)
    assert (ahead["vm"], ahead["transport"], ahead["remaining_bytes"]) == ("web", "host", 0)
    [status] = cli.run("status").json["vms"]
    assert (status["vm"], status["rounds"], status["snapshot"]) == ("web", 1, None)
    outcome = cli.run("backup", "web", "--audit", "all")
    made = outcome.json
    assert {
        *("snapshot", "vm", "base", "consistency", "freeze_seconds", "pause_seconds"),
        *("window_seconds", "seconds", "audit", "disks"),
    } <= set(made)
    assert set(made["audit"]) == {
        *("sampled_bytes", "mismatched_bytes", "agent_mismatched_bytes", "appliance_mismatched_bytes"),
    }
    assert {
        *("name", "size", "changed_bytes", "precopied_bytes", "residue_bytes"),
        *("stored_bytes", "compared", "reason"),
    } <= set(made["disks"][0])
    [status] = cli.run("status", "web").json["vms"]
    assert status["snapshot"] == made["snapshot"]
    cli.run("restore", "web@latest", tmp_path / "out", "--format", "raw")
    machine.close()
    compare.assert_identical(tmp_path / "out" / "dev-data.raw", tmp_path / "data.raw")
    with compare.as_raw(tmp_path / "system.qcow2", "qcow2") as raw:
        compare.assert_identical(tmp_path / "out" / "dev-system.raw", raw)
    assert "qemu-system" in (tmp_path / "out" / "definition.txt").read_text()


def test_text_of_the_verbs(cli: Cli, machine: Vm) -> None:
    console.run(cli, "init")
    assert "Added web." in console.run(cli, "vm", "add", "web", "--qmp", machine.qmp_socket).stdout
    assert "Round 1 of web" in console.run(cli, "precopy", "web").stdout
    assert "dev-system" in console.run(cli, "backup", "web").stdout
    assert "backup" in console.run(cli, "status").stdout
    assert str(machine.qmp_socket) in console.run(cli, "vm", "list").stdout
    assert "Nothing of ours" in console.run(cli, "vm", "release", "web").stdout


def test_a_failing_hook_after_the_backup_is_left_out_and_said(cli: Cli, machine: Vm) -> None:
    cli.run("init")
    cli.run("vm", "add", "web", "--qmp", machine.qmp_socket)
    outcome = cli.run("backup", "web", "--hook", "after-publish=exit 7", expect=3)
    assert outcome.json["snapshot"] in outcome.error["error"]["message"]
    assert "status 7" in outcome.error["error"]["message"]
    assert cli.run("backup", "web", "--hook", "before-freeze=exit 7", expect=26).stdout == ""
    assert len(cli.run("snapshots").json["snapshots"]) == 1


def test_an_interrupted_backup_leaves_the_vm_as_it_was(cli: Cli, machine: Vm, tmp_path: Path) -> None:
    """While the point in time stands."""
    cli.run("init")
    cli.run("vm", "add", "web", "--qmp", machine.qmp_socket)
    before = [node["node-name"] for node in machine.qmp("query-named-block-nodes", flat=True)]
    hook = f"before-release=touch {tmp_path}/standing; sleep 100"
    with cli.start("backup", "web", "--audit", "all", "--hook", hook) as process:
        while not (tmp_path / "standing").exists():
            assert process.poll() is None
            time.sleep(0.01)
        process.send_signal(signal.SIGTERM)
        stdout, stderr = process.communicate(timeout=console.SECONDS)
    assert process.returncode == 130
    assert stdout == ""
    assert json.loads(stderr.splitlines()[-1])["error"]["kind"] == "Interrupted"
    assert [node["node-name"] for node in machine.qmp("query-named-block-nodes", flat=True)] == before
    assert machine.qmp("query-block-exports") == []
    assert cli.run("snapshots").json["snapshots"] == []
    cli.run("backup", "web")


def test_hooks_get_facts_and_no_password(cli: Cli, machine: Vm, tmp_path: Path) -> None:
    cli.run("init")
    cli.run("vm", "add", "web", "--qmp", machine.qmp_socket)
    cli.run("backup", "web", "--audit", "all", "--hook", f"before-release=env > {tmp_path}/facts")
    facts = dict(line.split("=", 1) for line in (tmp_path / "facts").read_text().splitlines() if "=" in line)
    assert facts["HEADSTART_EVENT"] == "before-release"
    assert facts["HEADSTART_NBD_DEV_SYSTEM"].startswith("nbd+unix://")
    assert "HEADSTART_PASSWORD" not in facts


def test_removing_a_vm_that_is_gone_says_what_may_be_left(cli: Cli, machine: Vm) -> None:
    cli.run("vm", "add", "web", "--qmp", machine.qmp_socket)
    machine.close()
    removed = cli.run("vm", "remove", "web")
    assert "may be left" in removed.json["notes"][0]
    assert cli.run("vm", "list").json == {"vms": []}


@pytest.fixture
def unpublished(cli: Cli, machine: Vm) -> str:
    """The id of a backup whose repository was away when it was to be published."""
    cli.run("init")
    cli.run("vm", "add", "web", "--qmp", machine.qmp_socket)
    away = cli.repository.with_name("away")
    cli.run("backup", "web", "--hook", f"before-release=mv {cli.repository} {away}", expect=25)
    away.rename(cli.repository)
    [status] = cli.run("status").json["vms"]
    assert status["spooled"]
    assert list(cli.scratch.glob("spool/web/*"))
    return str(status["draft"])


@pytest.mark.parametrize("verb", ["remove", "release"])
def test_a_backup_that_waits_to_be_published_is_not_dropped(cli: Cli, machine: Vm, unpublished: str, verb: str) -> None:
    error = cli.run("vm", verb, "web", expect=2).error["error"]
    assert unpublished in error["message"]
    assert f"'headstart vm {verb} web --discard-unpublished'" in error["message"]
    assert error["facts"] == {"vm": "web", "snapshot": unpublished}
    cli.run("precopy", "web")
    assert [found["id"] for found in cli.run("snapshots").json["snapshots"]] == [unpublished]
    assert cli.run("vm", verb, "web").json["notes"] == []


def test_what_waits_is_published_without_the_vm(cli: Cli, machine: Vm, unpublished: str) -> None:
    machine.close()
    assert "'headstart precopy web'" in cli.run("vm", "remove", "web", expect=2).error["error"]["message"]
    message = cli.run("precopy", "web", expect=20).error["error"]["message"]
    assert f"Before that, the unfinished backup {unpublished} was published." in message
    assert [found["id"] for found in cli.run("snapshots").json["snapshots"]] == [unpublished]
    cli.run("vm", "remove", "web")


@pytest.mark.parametrize("verb", ["remove", "release"])
def test_what_waits_is_dropped_when_asked(cli: Cli, machine: Vm, unpublished: str, verb: str) -> None:
    [note] = cli.run("vm", verb, "web", "--discard-unpublished").json["notes"]
    assert unpublished in note and "discarded" in note
    assert not list(cli.scratch.glob("spool/*"))
    assert cli.run("snapshots").json["snapshots"] == []
    if verb == "release":
        cli.run("backup", "web")


def test_nothing_is_dropped_unless_the_vm_can_be_released(cli: Cli, machine: Vm, unpublished: str) -> None:
    machine.close()
    cli.run("vm", "release", "web", "--discard-unpublished", expect=20)
    cli.run("precopy", "web", expect=20)
    assert [found["id"] for found in cli.run("snapshots").json["snapshots"]] == [unpublished]


def test_relative_sockets_are_remembered_absolute(cli: Cli, machine: Vm, tmp_path: Path) -> None:
    (tmp_path / "monitor").symlink_to(machine.qmp_socket)
    relative = os.path.relpath(tmp_path / "monitor", ROOT)
    outcome = console.run(cli, "vm", "add", "web", "--json", "--qmp", relative)
    assert outcome.status == 0
    assert Path(json.loads(outcome.stdout)["qmp"]).is_absolute()
