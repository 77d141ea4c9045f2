"""``headstart agent``: the program that runs in a guest."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path

from headstart import errors, units
from headstart.agentd import messages, release
from headstart.backup import opening
from headstart.cli import arguments
from headstart.cli.session import Session
from headstart.guest import install, keys, links, package, renewal
from headstart.guest.shells import QgaShell, Shell, SshShell
from headstart.state.values import Vm

#: A guest that has just been told to start it may be slow.
_ANSWER_SECONDS = 60.0


def add(verbs: arguments.Verbs) -> None:
    group = arguments.add_group(verbs, "agent", "Make the agent that runs in a guest, and put it there.")
    building = arguments.add_verb(group, "build", run_build, "Write the agent, one file for Python 3.6 or newer.")
    building.add_argument("file", metavar="FILE", type=Path, help="an older one is replaced, anything else is not")
    installing = arguments.add_verb(group, "install", run_install, "Put the agent into a running guest, and start it.")
    installing.add_argument("name", metavar="NAME", help="the VM")
    installing.add_argument("--ssh", metavar="[USER@]HOST", help="through SSH; else through QEMU's guest agent")
    removing = arguments.add_verb(group, "remove", run_remove, "Stop the agent in a running guest, and take it out.")
    removing.add_argument("name", metavar="NAME", help="the VM")
    removing.add_argument("--ssh", metavar="[USER@]HOST", help="through SSH; else through QEMU's guest agent")
    trusting = arguments.add_verb(
        group, "trust", run_trust, "Use an agent again that had delivered false blocks, and was not used since."
    )
    trusting.add_argument("name", metavar="NAME", help="the VM")
    making = arguments.add_verb(group, "keys", run_keys, "Make keys for an agent that is reached over TCP.")
    making.add_argument("folder", metavar="DIR", type=Path, help="keep it: the address of the agent names it")


def run_keys(session: Session, given: argparse.Namespace) -> None:
    keys.make(given.folder)
    ours, theirs = [str(given.folder / links.HOST_FILE)], [str(given.folder / name) for name in keys.FOR_GUEST]
    session.output.result(
        {"path": str(given.folder), "guest": theirs, "host": [*ours, str(given.folder / links.SECRET_FILE)]},
        f"Made keys in {given.folder}. Into a folder of the guest's that only root can read go: {' and '.join(theirs)}."
        " Its agent is started by: python3 FILE --tcp ADDRESS:PORT --keys FOLDER. "
        f"Here it is then known as: tcp:HOST:PORT,keys={given.folder.absolute()}",
    )


def run_trust(session: Session, given: argparse.Namespace) -> None:
    with session.journal() as journal:
        journal.vm(given.name)
        found = journal.trust(given.name)
    values = {"name": given.name, "distrusted": asdict(found) if found else None}
    said = f"The agent in {given.name} is used again." if found else f"The agent in {given.name} was trusted already."
    session.output.result(values, said)


def run_build(session: Session, given: argparse.Namespace) -> None:
    content = package.write(given.file)
    digest = package.digest(package.sources())
    session.output.result(
        {"path": str(given.file), "release": release.RELEASE, "sources": digest, "size": len(content)},
        f"Wrote {given.file}: release {release.RELEASE}, {units.format_bytes(len(content))}. "
        "It is started in the guest, as root, by: python3 FILE",
    )


def run_install(session: Session, given: argparse.Namespace) -> None:
    with session.local() as context:
        vm = context.journal.vm(given.name)
        with context.journal.lock(vm.name, "agent install"):
            with _shell(vm, given.ssh) as shell:
                done = install.install(shell)
            answers = _await(vm)
    values = {"name": vm.name, "way": done.way, "python": done.python, "init": done.init, "release": release.RELEASE}
    said = f"Installed the agent in {vm.name}, release {release.RELEASE}, started by {done.init}"
    session.output.result(values | {"answers": answers}, f"{said}. It answers." if answers else f"{said}.")
    if not answers:
        prepare = f"'headstart vm prepare {vm.name} --apply' adds one, and" if vm.domain else "add the VM with --agent:"
        session.output.note(f"no channel to it is known: {prepare} then it is used.")


def run_remove(session: Session, given: argparse.Namespace) -> None:
    with session.local() as context:
        vm = context.journal.vm(given.name)
        if vm.guest_only:
            raise errors.Usage(f"The agent in {vm.name} is all that it has: docs/guest-only.md tells how it goes.")
        with context.journal.lock(vm.name, "agent remove"), _shell(vm, given.ssh) as shell:
            way, removed = shell.way, install.remove(shell)
        address = opening.agent_address(vm)
    said = f"Removed the agent from {vm.name}." if removed else f"There was no agent of ours in {vm.name}."
    session.output.result({"name": vm.name, "way": way, "removed": list(removed), "channel": address}, said)
    if address:
        session.output.note(_stays(vm, address))


def _stays(vm: Vm, address: str) -> str:
    """The way to it is no part of the guest."""
    if vm.domain is None:
        return (
            f"each round still looks for it at {address}, and the host reads: 'headstart vm remove {vm.name}', and 'vm"
            " add' without --agent. Leave the port out of QEMU's options at the next start."
        )
    return (
        f"the VM still has the channel {messages.PORT}: take that <channel> out of its definition with"
        f" 'virsh -c {vm.domain.uri} edit {vm.domain.name}'; it is gone with the next start."
    )


def _shell(vm: Vm, host: str | None) -> Shell:
    if host is not None:
        return SshShell(host)
    qga = opening.qga(vm)
    if qga is None:
        raise errors.Usage(f"{vm.name} was added without --qga: say with --ssh how to get into the guest.")
    return QgaShell(qga)


def _await(vm: Vm) -> bool:
    """Until what was installed answers; False if nobody knows where."""
    given = opening.agent_address(vm)
    if not given:
        return False
    address = links.parse(given)
    try:
        renewal.await_ours(address.connect, secret=address.secret, seconds=_ANSWER_SECONDS)
    except errors.Unreachable as error:
        raise errors.Unreachable(
            f"The agent is installed in the guest and was started, but does not answer at {given}: {error}"
            " Has the VM a virtio-serial port named org.headstart.agent.0 there?"
        ) from error
    return True
