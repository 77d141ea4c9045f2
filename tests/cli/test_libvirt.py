"""What the verbs for libvirt say where there is no domain to talk to."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.kit.cli import Cli


def test_options_for_plain_qemu(cli: Cli, tmp_path: Path) -> None:
    told = cli.run("vm", "prepare", "web").json
    assert told["name"] == "web" and told["xml"] == "" and not told["running"]
    assert told["options"][0] == "-qmp unix:/run/headstart/web-qmp.sock,server=on,wait=off"
    assert "name=org.headstart.agent.0" in told["options"][-1]


def test_devices_cannot_be_put_into_plain_qemu(cli: Cli) -> None:
    refused = cli.run("vm", "prepare", "web", "--apply", expect=2).error
    assert "only be given at its start" in refused["error"]["message"]


@pytest.mark.parametrize(
    ("uri", "status", "said"),
    [
        ("qemu+unix:///system?socket=/nowhere", 20, "Is libvirtd (or virtqemud) running?"),
        ("nonsense", 2, "is no URI of libvirt's"),
    ],
)
def test_a_libvirt_that_cannot_be_reached(cli: Cli, uri: str, status: int, said: str) -> None:
    for words in (("vm", "discover", uri), ("vm", "add", "web", "--libvirt", uri, "web")):
        assert said in cli.run(*words, expect=status).error["error"]["message"]


def test_only_one_kind_of_vm_at_a_time(cli: Cli) -> None:
    cli.run("vm", "add", "web", expect=2)
    cli.run("vm", "add", "web", "--qmp", "/run/qmp", "--libvirt", "qemu:///system", "web", expect=2)
    refused = cli.run("vm", "add", "web", "--libvirt", "qemu:///system", "web", "--qga", "/run/qga", expect=2).error
    assert "leave --qga out" in refused["error"]["message"]
