"""``headstart vm prepare``: what a VM needs so that our agent can talk from inside."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from headstart import errors
from headstart.agentd import messages
from headstart.cli import arguments
from headstart.cli.session import Session
from headstart.state.values import Domain, Vm

#: Where sockets of a VM are proposed that nobody has named yet.
_FOLDER = Path("/run/headstart")


def add(group: arguments.Verbs) -> None:
    parser = arguments.add_verb(
        group, "prepare", run, "Tell what to add to a VM for the agent: devices for libvirt, options for QEMU."
    )
    parser.add_argument("name", metavar="NAME", help="a VM of libvirt's that is added; or any name, for plain QEMU")
    parser.add_argument("--apply", action="store_true", help="put the device into the VM (libvirt)")


def run(session: Session, given: argparse.Namespace) -> None:
    with session.journal() as journal:
        known = next((vm for vm in journal.vms() if vm.name == given.name), None)
    if known is not None and known.domain is not None:
        _run_libvirt(session, known.name, known.domain, apply=given.apply)
        return
    if known is not None and known.guest_only:
        raise errors.Usage(f"{known.name} has no hypervisor that helps: docs/guest-only.md tells what its guest needs.")
    if given.apply:
        raise errors.Usage("QEMU's options can only be given at its start: --apply is for VMs of libvirt's.")
    _run_qemu(session, given.name, known)


def _run_libvirt(session: Session, name: str, domain: Domain, *, apply: bool) -> None:
    from headstart.hypervisor.libvirt import domains

    done = domains.prepare(domain.uri, domain.name, apply=apply)
    xml = domains.channel_xml()
    values = {
        "name": name,
        "xml": xml,
        "options": [],
        "defined": done.defined,
        "running": done.running,
        "applied": list(done.applied),
    }
    session.output.result(values, _said(name, domain, xml, values))
    if done.failure:
        raise errors.Incomplete(done.failure)


def _said(name: str, domain: Domain, xml: str, values: dict[str, Any]) -> str:
    install = f"Next: headstart agent install {name}"
    if values["applied"]:
        return f"The agent's channel was added to the {' and to the '.join(values['applied'])}. {install}"
    if values["running"]:
        return f"The running VM has the agent's channel. {install}"
    if values["defined"]:
        return "The VM's definition has the agent's channel: it is there from the next start on."
    return (
        f"{xml}\n\nThis device is missing. 'headstart vm prepare {name} --apply' adds it, as does, with it in a file:\n"
        f"    virsh -c {domain.uri} attach-device {domain.name} FILE --config --live"
    )


def _run_qemu(session: Session, name: str, known: Vm | None) -> None:
    monitor = known.monitor if known is not None and known.monitor else _FOLDER / f"{name}-qmp.sock"
    given = known.agent if known is not None else ""
    agent = given if given.startswith("/") else str(_FOLDER / f"{name}-agent.sock")
    options = [
        f"-qmp unix:{monitor},server=on,wait=off",
        "-device virtio-serial-pci,id=headstart",
        f"-chardev socket,id=headstart-agent,path={agent},server=on,wait=off",
        f"-device virtserialport,bus=headstart.0,chardev=headstart-agent,id=headstart-agent,name={messages.PORT}",
    ]
    values = {"name": name, "xml": "", "options": options, "defined": False, "running": False, "applied": []}
    lines = [
        "Options to add to QEMU's (the folder of the sockets must be there):",
        *(f"    {each}" for each in options),
    ]
    if known is None:
        lines.append(f"Then: headstart vm add {name} --qmp {monitor} --agent {agent}")
    session.output.result(values, "\n".join(lines))
