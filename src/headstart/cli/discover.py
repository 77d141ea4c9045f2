"""``headstart vm discover``: the VMs that a libvirt has."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from headstart import plain, units
from headstart.cli import arguments, text
from headstart.cli.session import Session
from headstart.state.values import Vm

if TYPE_CHECKING:
    from headstart.hypervisor.libvirt.domains import Found


def add(group: arguments.Verbs) -> None:
    parser = arguments.add_verb(group, "discover", run, "List the VMs of a libvirt, and which of them are added.")
    parser.add_argument("uri", metavar="URI", help="of libvirt, usually qemu:///system")


def run(session: Session, given: argparse.Namespace) -> None:
    from headstart.hypervisor.libvirt import domains

    with session.journal() as journal:
        known = {vm.domain.name: vm for vm in journal.vms() if vm.domain is not None and vm.domain.uri == given.uri}
    found = [_values(each, known.get(each.name) or known.get(each.uuid)) for each in domains.discover(given.uri)]
    session.output.result({"uri": given.uri, "domains": found}, _table(found))


def _values(found: Found, vm: Vm | None) -> dict[str, Any]:
    return {
        "name": found.name,
        "uuid": found.uuid,
        "state": found.state,
        "persistent": found.persistent,
        "qga": found.qga,
        "agent": found.agent,
        "added": vm.name if vm is not None else None,
        "disks": [
            {"name": disk.name, "size": disk.size, "format": disk.format, "note": disk.unreadable or disk.untracked}
            for disk in found.disks
        ],
        "left_out": [{"name": each.name, "reason": each.reason} for each in found.left_out],
    }


def _table(found: list[dict[str, Any]]) -> str:
    rows = [
        (
            each["name"],
            each["state"],
            ", ".join(
                f"{disk['name']} ({units.format_bytes(disk['size'])} {disk['format']})" for disk in each["disks"]
            ),
            "yes" if each["qga"] else "no",
            "yes" if each["agent"] else "no",
            each["added"] or "",
        )
        for each in found
    ]
    notes = [
        plain.joined(f"{each['name']}, {disk['name']}: {disk['note']}")
        for each in found
        for disk in each["disks"]
        if disk["note"]
    ]
    return "\n".join([text.table(("DOMAIN", "STATE", "DISKS", "QGA", "AGENT", "ADDED AS"), rows), *notes])
