"""``headstart vm``: the VMs that this host backs up."""

from __future__ import annotations

import argparse
import contextlib
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from headstart import errors, plain, units
from headstart.backup import inspection, leaving, moving
from headstart.backup.inspection import Inspection
from headstart.cli import arguments, discover, prepare, text
from headstart.cli.session import Session
from headstart.guest import links
from headstart.state.values import Domain, Vm
from headstart.tracking.choice import Wish
from headstart.volumes import selection

#: As files and lock files are named after it, and as ``NAME@latest`` takes it apart.
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_OTHER_DEFINITION = "Name another file with --definition, or none: then what the hypervisor tells is kept."


def add(verbs: arguments.Verbs) -> None:
    group = arguments.add_group(verbs, "vm", "Add, list, show, remove and release VMs.")
    adding = arguments.add_verb(group, "add", run_add, "Look at a running VM and remember it.")
    _add_name(adding)
    place = adding.add_mutually_exclusive_group(required=True)
    place.add_argument("--qmp", metavar="SOCKET", type=Path, help="plain QEMU: a QMP monitor that nobody else uses")
    place.add_argument(
        "--libvirt", metavar=("URI", "DOMAIN"), nargs=2, help="a VM of libvirt's: usually qemu:///system, and its name"
    )
    place.add_argument(
        "--guest-only", action="store_true", help="no hypervisor helps: filters in the guest, by its agent (--agent)"
    )
    adding.add_argument(
        "--agent", metavar="ADDRESS", default="", help="where Headstart's agent in the guest answers: a socket"
    )
    adding.add_argument("--qga", metavar="SOCKET", type=Path, help="QEMU's guest agent, which freezes the file systems")
    adding.add_argument(
        "--exclude-disk", metavar="DISK", action="append", default=[], help="leave it out; may be repeated"
    )
    _add_track(adding, Wish.AUTO)
    adding.add_argument(
        "--volume",
        metavar="VOLUME",
        action="append",
        default=[],
        type=_volume,
        help="back up this alone: a mount point, GROUP/VOLUME, DISK/PARTITION or label:NAME; may be repeated",
    )
    adding.add_argument(
        "--definition", metavar="FILE", type=Path, help="kept with each backup; else libvirt's XML, or QEMU's options"
    )
    discover.add(group)
    prepare.add(group)
    setting = arguments.add_verb(group, "set", run_set, "Change how a VM is backed up.")
    _add_name(setting)
    _add_track(setting, None)
    arguments.add_verb(group, "list", run_list, "List the VMs.")
    _add_name(arguments.add_verb(group, "show", run_show, "Look at a VM: what is backed up and what is left out."))
    _add_leaving(arguments.add_verb(group, "remove", run_remove, "Forget a VM. Its snapshots stay."))
    _add_leaving(arguments.add_verb(group, "release", run_release, "Take everything of ours out of a VM."))
    _add_name(arguments.add_verb(group, "move", run_move, "Let a VM be migrated that overlays record."))
    _add_name(arguments.add_verb(group, "stay", run_stay, "It is not migrated after all: rounds begin again."))


def _add_leaving(parser: arguments.Parser) -> None:
    _add_name(parser)
    parser.add_argument(
        "--discard-unpublished", action="store_true", help="lose a backup that is complete, but not yet published"
    )


def _add_track(parser: arguments.Parser, usual: Wish | None) -> None:
    parser.add_argument(
        "--track",
        choices=[each.value for each in Wish],
        default=usual.value if usual else None,
        required=usual is None,
        help="how changes are learned: by bitmaps, for raw disks also by overlays, or by reading and comparing all;"
        " auto (the default) takes the best for each disk",
    )


def _add_name(parser: arguments.Parser) -> None:
    parser.add_argument("name", metavar="NAME")


def run_add(session: Session, given: argparse.Namespace) -> None:
    vm = _vm(given)
    with session.local() as context:
        for known in context.journal.vms():
            _refuse_twin(vm, known)
        seen = inspection.inspect(context, vm)
        _check_excluded(vm, seen)
        context.journal.add_vm(vm)
    session.output.result(_values(vm) | seen.json(), "\n".join([f"Added {vm.name}.", *_lines(seen)]))


def _vm(given: argparse.Namespace) -> Vm:
    if not NAME.fullmatch(given.name):
        raise errors.Usage(
            f"{given.name!r} cannot be the name of a VM: it takes letters, digits, '.', '_' and '-', "
            "64 at most, and begins with a letter or a digit."
        )
    if given.libvirt and given.qga:
        raise errors.Usage("libvirt knows its VMs' guest agent (qga): leave --qga out.")
    if given.guest_only and not given.agent:
        raise errors.Usage("Of a guest without a hypervisor the agent is all there is: name it with --agent.")
    if given.guest_only and given.qga:
        raise errors.Usage("The agent freezes the guest's file systems: leave --qga out.")
    return Vm(
        given.name,
        given.qmp.absolute() if given.qmp else None,
        _agent(given.agent) if given.agent else "",
        given.qga.absolute() if given.qga else None,
        tuple(dict.fromkeys(given.exclude_disk)),
        _definition(given.definition) if given.definition else "",
        domain=Domain(*given.libvirt) if given.libvirt else None,
        track=Wish(given.track),
        volumes=tuple(dict.fromkeys(given.volume)),
    )


def _volume(told: str) -> str:
    """Raises ``Usage``."""
    if told.startswith("!") or not selection.names_volumes(told):
        raise errors.Usage(
            f"--volume takes a mount point (/srv), GROUP/VOLUME, DISK/PARTITION or label:NAME, not {told!r}. "
            "To leave volumes out, write a policy; to leave out a disk, use --exclude-disk."
        )
    return told


def _agent(address: str) -> str:
    """The same from any directory. Raises ``Usage``."""
    links.parse(address)
    return address if address.startswith(("tcp:", "vsock:")) else str(Path(address.removeprefix("unix:")).absolute())


def _definition(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise errors.Usage(f"The definition {path} cannot be read: {error.strerror}. {_OTHER_DEFINITION}") from error
    except UnicodeDecodeError:
        raise errors.Usage(f"The definition {path} is not text in UTF-8. {_OTHER_DEFINITION}") from None


def _refuse_twin(vm: Vm, known: Vm) -> None:
    if vm.name == known.name:
        raise errors.Usage(
            f"There is a VM {vm.name!r} already. Take another name, or 'headstart vm remove {vm.name}' first."
        )
    if _same(vm, known):
        what = "the monitor" if vm.monitor else "the domain" if vm.domain else "that"
        raise errors.Usage(
            f"{vm.where} is {what} of {known.name!r}, which is added already. "
            f"Name another VM, or 'headstart vm remove {known.name}' first."
        )


def _same(vm: Vm, known: Vm) -> bool:
    if vm.monitor is not None and known.monitor is not None:
        return vm.monitor.resolve() == known.monitor.resolve()
    if vm.guest_only and known.guest_only:
        return vm.agent == known.agent
    if vm.domain is None or known.domain is None:
        return False
    from headstart.hypervisor.libvirt import domains

    # By name or by UUID; one that is gone is no twin.
    with contextlib.suppress(errors.HeadstartError):
        return domains.uuid_of(vm.domain.uri, vm.domain.name) == domains.uuid_of(known.domain.uri, known.domain.name)
    return False


def _check_excluded(vm: Vm, seen: Inspection) -> None:
    names = [each["name"] for each in (*seen.disks, *seen.left_out)]
    for name in vm.excluded:
        if name not in names:
            raise errors.NotFound(f"The VM has no disk {name!r} to exclude. It has: {', '.join(names)}.", disk=name)


def run_set(session: Session, given: argparse.Namespace) -> None:
    with session.local() as context, context.journal.lock(given.name, "vm set"):
        wished = replace(context.journal.vm(given.name), track=Wish(given.track))
        seen = inspection.inspect(context, wished)
        context.journal.track(given.name, wished.track)
    session.output.result(_values(wished) | seen.json(), "\n".join([f"Changed {given.name}.", *_lines(seen)]))


def run_list(session: Session, given: argparse.Namespace) -> None:
    with session.journal() as journal:
        vms = journal.vms()
    rows = [(vm.name, vm.where, ", ".join(vm.excluded), ", ".join(vm.volumes)) for vm in vms]
    headings = ("VM", "WHERE", "EXCLUDED", "ONLY VOLUMES")
    session.output.result({"vms": [_values(vm) for vm in vms]}, text.table(headings, rows))


def run_show(session: Session, given: argparse.Namespace) -> None:
    with session.local() as context:
        vm = context.journal.vm(given.name)
        with context.journal.lock(vm.name, "vm show"):
            seen = inspection.inspect(context, vm)
    session.output.result(_values(vm) | seen.json(), "\n".join([f"{vm.name} at {vm.where}", *_lines(seen)]))


def run_remove(session: Session, given: argparse.Namespace) -> None:
    with session.local() as context:
        notes = leaving.remove(context, given.name, discard=given.discard_unpublished)
    _tell_left(session, given.name, notes, f"Removed {given.name}. Its snapshots stay.")


def run_release(session: Session, given: argparse.Namespace) -> None:
    with session.local() as context:
        notes = leaving.release(context, given.name, discard=given.discard_unpublished)
    said = f"Nothing of ours is left in {given.name}. The next backup reads all of its disks."
    _tell_left(session, given.name, notes, said)


def run_move(session: Session, given: argparse.Namespace) -> None:
    with session.local() as context:
        kept, notes = moving.move(context, given.name)
    said = f"Nothing of ours keeps {given.name} from being migrated."
    if kept:
        said = (
            f"{given.name} may be migrated now. Start the QEMU that it goes to after this. No round and no backup"
            f" begins until it has arrived, or 'headstart vm stay {given.name}'."
        )
    _tell_left(session, given.name, notes, said)


def run_stay(session: Session, given: argparse.Namespace) -> None:
    with session.local() as context:
        notes = moving.stay(context, given.name)
    _tell_left(session, given.name, notes, f"{given.name} stays: rounds and backups begin again.")


def _tell_left(session: Session, name: str, notes: Sequence[str], said: str) -> None:
    session.output.result({"name": name, "notes": notes}, said)
    for note in notes:
        session.output.note(note)


def _values(vm: Vm) -> dict[str, Any]:
    return {
        "name": vm.name,
        "qmp": str(vm.monitor) if vm.monitor else None,
        "libvirt": {"uri": vm.domain.uri, "domain": vm.domain.name} if vm.domain else None,
        "guest_only": vm.guest_only,
        "agent": vm.agent or None,
        "qga": str(vm.qga) if vm.qga else None,
        "excluded": list(vm.excluded),
        "track": vm.track.value,
        "only_volumes": list(vm.volumes),
    }


def _lines(seen: Inspection) -> list[str]:
    rows = [
        (each["name"], units.format_bytes(each["size"]), each["format"], each["interface"], each["path"])
        for each in seen.disks
    ]
    lines = [text.table(("DISK", "SIZE", "FORMAT", "DEVICE", "IMAGE"), rows)]
    inside = [row for each in seen.disks if each["device"] for row in _inside(each)]
    if inside:
        lines.append(text.table(("DISK", "IN THE GUEST", "KIND", "SIZE", "MOUNTED AT"), inside))
    said = [f"{each['name']} is tracked by {each['tracking']}: {each['tracking_reason']}" for each in seen.disks]
    said += [f"{each['name']}: {each['note']}" for each in seen.disks if each["note"]]
    said += [f"left out: {each['name']} ({each['reason']})" for each in seen.left_out]
    said += [f"of another installation, left alone: {name}" for name in seen.foreign]
    said += [f"note: {note}" for note in seen.notes]
    return [*lines, *map(plain.joined, said)]


def _inside(disk: dict[str, Any]) -> list[tuple[str, ...]]:
    """What the guest has of a disk: the disk itself, then what lies on it."""
    whole = (disk["name"], disk["device"], "disk", units.format_bytes(disk["size"]), _mounted(disk))
    parts = [
        ("", each["name"], each["kind"], units.format_bytes(each["size"]), _mounted(each)) for each in disk["volumes"]
    ]
    return [whole, *parts]


def _mounted(each: dict[str, Any]) -> str:
    return ", ".join(f"{mount['path']} ({mount['type']})" for mount in each["mounted"])
