"""One VM from inside: Headstart's agent and QEMU's (qga). Neither is made to do anything."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

from headstart import errors, units
from headstart.agentd import release
from headstart.guest import links, renewal
from headstart.guest.channel import Channel, Lost
from headstart.guest.filters import Filters
from headstart.host.doctor import machine
from headstart.host.doctor.finding import Finding, Level, of_error
from headstart.host.policy import Consistency, Policy
from headstart.hypervisor.checkup import Channels
from headstart.state.values import Vm
from headstart.wire import peers
from headstart.wire.qga import Qga

#: Whoever waits for the VM's lock waits longer than we ask for.
ASK_SECONDS = 1.5
#: A guest's clock may be off by so much without anybody noticing in its logs.
DRIFT_SECONDS = 10.0
#: Shares: of a filter's metadata that may be used; of a disk that its companion should have room for.
FULL, ROOM = 0.8, 0.05
_NANO = 1e-9
#: There is no other way to change what a VM was added with.
MOVED = (
    "If the path is wrong, let a link there lead to the right one; or 'vm remove' and 'vm add' it again: its snapshots"
    " stay, its next backup compares."
)
_CORRECT = f"Is the VM running? {MOVED}"
_FREEZING = ("guest-fsfreeze-freeze", "guest-fsfreeze-thaw", "guest-fsfreeze-status")


def address(vm: Vm, channels: Channels | None) -> str:
    """Where the agent answers; empty if it has no place. ``channels`` are libvirt's."""
    return vm.agent or (channels.agent_address if channels is not None else "")


def agent(vm: Vm, channels: Channels | None) -> Iterator[Finding]:
    """Raises ``Unreachable`` where nobody answers."""
    check, where = "agent", address(vm, channels)
    if not where:
        advice = f"Without it the host reads ahead. 'headstart vm prepare {vm.name}' tells what it needs."
        yield Finding(check, Level.NOTE, "the VM has no agent of ours", advice)
        return
    if channels is not None and not vm.agent and not channels.agent:
        said = "the guest has not opened the agent's channel: it is not installed, or does not run"
        yield Finding(check, Level.WARNING, said, f"headstart agent install {vm.name}")
        return
    if where.startswith("/"):
        wrong = list(machine.socket(check, Path(where), _CORRECT, _level(vm)))
        if wrong:
            yield from wrong
            return
    yield from _asked(check, vm, where)


def _level(vm: Vm) -> Level:
    """Of an agent that cannot be talked to: there are backups without, where a hypervisor helps."""
    return Level.PROBLEM if vm.guest_only else Level.WARNING


def _asked(check: str, vm: Vm, where: str) -> Iterator[Finding]:
    place = links.parse(where)
    # Not by ``agent.connect``, which replaces an older one.
    with Channel(place.connect(), secret=place.secret, seconds=ASK_SECONDS, any_protocol=True) as channel:
        yield from _welcome(check, vm, channel)


def filters(vm: Vm, channels: Channels | None) -> Iterator[Finding]:
    """Of a guest that no hypervisor helps. Raises ``Unreachable`` where nobody answers."""
    check, place = "filters", links.parse(vm.agent)
    with Channel(place.connect(), secret=place.secret, seconds=ASK_SECONDS) as channel:
        seen = Filters(channel).look()
    if seen.unreadable:
        said = f"what is recorded cannot be read, and nothing can be backed up: {seen.unreadable}"
        yield Finding(check, Level.PROBLEM, said, "era_invalidate of thin-provisioning-tools reads it.")
    if seen.forgets:
        said = "after a crash the guest's kernel forgets what was recorded: all is read after every boot"
        yield Finding(check, Level.WARNING, said, "Linux 5.12, or a kernel that a distribution has built since 2022.")
    for name, why in seen.missing.items():
        advice = "'headstart-agentd filter up' there, before anything is mounted (docs/guest-only.md)."
        yield Finding(check, Level.PROBLEM, f"{name} does not stand, and cannot be backed up: {why}", advice)
    if not seen.filters and not seen.missing:
        advice = "'headstart-agentd filter add NAME DISK COMPANION' there makes one (docs/guest-only.md)."
        yield Finding(check, Level.PROBLEM, "the guest has no filter: nothing of it can be backed up", advice)
    for each in seen.filters:
        used, total = each.metadata
        if used > total * FULL:
            said = f"{each.name}: {used} of {total} blocks of its metadata are used: when they are full, writes fail"
            yield Finding(check, Level.PROBLEM, said, "Remove the filter, and add it with a larger companion.")
        if each.cow_bytes < each.size * ROOM:
            said = f"{each.name}: {units.format_bytes(each.cow_bytes)} for old content while it is backed up"
            advice = "If the guest writes more in the window, the backup fails. A larger companion has more."
            yield Finding(check, Level.NOTE, said, advice)
        left_out = " (left out)" if each.name in vm.excluded else ""
        said = f"{each.name} records {each.origin} ({units.format_bytes(each.size)}), era {each.era}{left_out}"
        yield Finding(check, Level.OK, said)


def silent(check: str, vm: Vm, error: errors.Unreachable) -> Finding:
    """Nobody answered, also when asked again."""
    where = str(vm.qga or "") if check == "qga" else vm.agent
    busy = ", ".join(peers.clients(Path(where))) if where.startswith("/") else ""
    level = _level(vm)
    found = of_error(check, error, level)
    said = f"{where}: {found.what}" if where and where not in found.what else found.what
    return Finding(check, level, f"{said} (connected: {busy})" if busy else said, found.advice)


def _welcome(check: str, vm: Vm, channel: Channel) -> Iterator[Finding]:
    told = channel.welcome
    running = f"release {told.get('release')}, Python {told.get('python')}, kernel {told.get('kernel')}"
    try:
        channel.require_protocol()
    except Lost as error:
        yield of_error(check, error, _level(vm))
        return
    if renewal.due(told):
        said = f"it is not the one of this host ({running}; here is {release.RELEASE})"
        yield Finding(check, Level.NOTE, said, "Nothing has to be done: the next round replaces it.")
    try:
        devices = channel.ask("map", ASK_SECONDS)["disks"]
    except (errors.HeadstartError, KeyError) as error:
        said = f"it answers, and cannot tell the guest's disks: {error}"
        yield Finding(check, Level.WARNING, said, "See what it says in the guest ('journalctl -u headstart-agentd').")
        return
    yield Finding(check, Level.OK, f"it answers ({running}), and sees {len(devices)} disks")


def qga(vm: Vm, channels: Channels | None) -> Iterator[Finding]:
    """Raises ``Unreachable`` where nobody answers."""
    check = "qga"
    if vm.domain is not None:
        yield from _qga_of_libvirt(check, vm, channels)
        return
    if vm.qga is None:
        advice = "QEMU's guest agent freezes file systems: 'vm add --qga SOCKET'. Our agent can do it, too."
        yield Finding(check, Level.NOTE, "the VM was added without qga", advice)
        return
    wrong = list(machine.socket(check, vm.qga, _CORRECT, Level.WARNING))
    if wrong:
        yield from wrong
        return
    with Qga(vm.qga, sync_seconds=ASK_SECONDS) as talk:
        yield from _spoken(check, talk)


def _spoken(check: str, talk: Qga) -> Iterator[Finding]:
    told = talk.execute("guest-info", ASK_SECONDS)
    info = told if isinstance(told, dict) else {}
    version, commands = str(info.get("version", "?"))[:40], info.get("supported_commands")
    listed = [each for each in commands if isinstance(each, dict)] if isinstance(commands, list) else []
    allowed = [each.get("name") for each in listed if each.get("enabled")]
    lacking = [name for name in _FREEZING if name not in allowed]
    if lacking:
        said = f"qga {version} answers, and does not do {', '.join(lacking)}"
        advice = (
            "Allow them in the guest (block-rpcs or allow-rpcs of /etc/qemu/qemu-ga.conf or /etc/sysconfig/qemu-ga)."
        )
        yield Finding(check, Level.WARNING, said, advice)
    elif talk.execute("guest-fsfreeze-status", ASK_SECONDS) == "frozen":
        said = "the guest's file systems are frozen, and no run of ours is at work"
        yield Finding(check, Level.PROBLEM, said, "Who froze them? 'guest-fsfreeze-thaw' thaws them.")
    else:
        yield Finding(check, Level.OK, f"qga {version} answers, and can freeze")
    if "guest-get-time" in allowed:
        moment = talk.execute("guest-get-time", ASK_SECONDS)
        # The guest's word, and not always a number.
        if isinstance(moment, int) and 0 <= moment < 1 << 63:
            yield from drift(moment * _NANO, time.time())


def drift(guest: float, host: float) -> Iterator[Finding]:
    if abs(guest - host) > DRIFT_SECONDS:
        which = "ahead of" if guest > host else "behind"
        said = f"the guest's clock is {units.format_seconds(abs(guest - host))} {which} the host's"
        yield Finding("guest's clock", Level.NOTE, said, "Schedules go by the host's. Let the guest's be kept in step.")


def _qga_of_libvirt(check: str, vm: Vm, channels: Channels | None) -> Iterator[Finding]:
    from headstart.hypervisor.libvirt import domains

    assert vm.domain is not None
    if channels is None:
        return
    if channels.qga is None:
        advice = "'virsh edit': a channel of type unix with target org.qemu.guest_agent.0. Our agent can freeze, too."
        yield Finding(check, Level.NOTE, "the domain has no channel for qga", advice)
    elif not channels.qga:
        said = "the guest has not opened qga's channel: it is not installed, or does not run"
        yield Finding(check, Level.WARNING, said, "Install and start qemu-guest-agent in the guest.")
    else:
        # By a call of libvirt's own: a command handed through would mark the domain as tainted.
        moment = domains.guest_time(vm.domain.uri, vm.domain.name)
        yield Finding(check, Level.OK, "it answers through libvirt")
        yield from drift(moment, time.time())


def freeze(findings: list[Finding], policy: Policy | None) -> Iterator[Finding]:
    """What follows for the consistency of backups, from what was found of both agents."""
    able = sorted({each.check for each in findings if each.check in ("qga", "agent") and each.level is Level.OK})
    check = "freeze"
    if able:
        yield Finding(check, Level.OK, f"backups are consistent for file systems, by {' or '.join(able)}")
    elif policy is not None and policy.consistency is Consistency.FILESYSTEM:
        said = f"nobody can freeze the guest, and policy {policy.name} fails backups that are not frozen"
        yield Finding(check, Level.PROBLEM, said, 'Install qga or our agent, or set consistency = "best".')
    elif policy is None or policy.consistency is Consistency.BEST:
        said = "nobody can freeze the guest: backups are as after a power cut"
        yield Finding(check, Level.WARNING, said, "Install qga or our agent in the guest.")
