"""The domains of a libvirt, and what one needs so that our agent can talk from inside."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from xml.etree import ElementTree

import libvirt

from headstart import errors
from headstart.hypervisor.inventory import Disk, LeftOut
from headstart.hypervisor.libvirt import inventory
from headstart.hypervisor.libvirt.inventory import AGENT_PORT, QGA_PORT, Look
from headstart.hypervisor.libvirt.place import require_local
from headstart.wire import libvirt as wire
from headstart.wire.libvirt import Domain, DomainQga, Failed

#: Under this name the UUID is kept.
UUID = "uuid"
_STATES = {
    libvirt.VIR_DOMAIN_RUNNING: "running",
    libvirt.VIR_DOMAIN_BLOCKED: "running",
    libvirt.VIR_DOMAIN_PAUSED: "paused",
    libvirt.VIR_DOMAIN_SHUTDOWN: "shutting down",
    libvirt.VIR_DOMAIN_SHUTOFF: "off",
    libvirt.VIR_DOMAIN_CRASHED: "crashed",
    libvirt.VIR_DOMAIN_PMSUSPENDED: "suspended",
}


@dataclass(frozen=True, slots=True)
class Found:
    """``persistent``: it is defined, and there also when it is off."""

    name: str
    uuid: str
    state: str
    persistent: bool
    qga: bool
    agent: bool
    disks: tuple[Disk, ...]
    left_out: tuple[LeftOut, ...]


def discover(uri: str) -> Iterator[Found]:
    """Every domain, by name. Raises ``Unreachable``, ``Usage``."""
    require_local(uri)
    for domain in wire.domains(uri):
        # One that ends just now is left out.
        with contextlib.suppress(libvirt.libvirtError):
            yield _found(domain)


def _found(domain: Any) -> Found:
    seen = inventory.parse(domain.XMLDesc(0), lambda target: _size(domain, target), ())
    return Found(
        name=domain.name(),
        uuid=domain.UUIDString(),
        state=_STATES.get(domain.state()[0], "unknown"),
        persistent=bool(domain.isPersistent()),
        qga=_connected(seen, QGA_PORT),
        agent=_connected(seen, AGENT_PORT),
        disks=tuple(each.disk for each in seen.attachments),
        left_out=seen.left_out,
    )


def _size(domain: Any, target: str) -> int:
    """0 where libvirt cannot tell."""
    try:
        return int(domain.blockInfo(target, 0)[0])
    except libvirt.libvirtError:
        return 0


def _connected(seen: Look, port: str) -> bool:
    channel = seen.channels.get(port)
    return channel is not None and channel.connected


def uuid_of(uri: str, name: str) -> str:
    """Raises ``NotFound``, ``Unreachable``, ``Usage``."""
    with Domain(uri, name) as domain:
        return domain.uuid


def current_name(uri: str, name: str, uuid: str) -> str:
    """Of the domain of this name; else, as it was renamed, of that with the UUID. Raises as ``uuid_of``."""
    try:
        uuid_of(uri, name)
    except errors.NotFound:
        if not uuid:
            raise
        with Domain(uri, uuid) as domain:
            return str(domain.ask(lambda each: each.name()))
    return name


def qga(uri: str, name: str) -> DomainQga:
    """QEMU's guest agent of a running domain. Raises as ``Domain``."""
    return DomainQga(Domain(uri, name))


def channel_xml() -> str:
    """The device for our agent; libvirt chooses where its socket is."""
    channel = ElementTree.Element("channel", type="unix")
    ElementTree.SubElement(channel, "target", type="virtio", name=AGENT_PORT)
    ElementTree.indent(channel)
    return ElementTree.tostring(channel, encoding="unicode")


def channel_path(uri: str, name: str) -> str:
    """The socket of our agent's channel in a running domain; empty if it has none. Raises as ``Domain``."""
    with Domain(uri, name) as domain:
        root = ElementTree.fromstring(domain.ask(lambda running: running.XMLDesc(0)))
    channel = dict(inventory.channels(root)).get(AGENT_PORT)
    return channel.path if channel is not None else ""


@dataclass(frozen=True, slots=True)
class Prepared:
    """Where the channel is: in the definition, in the running domain; and where it was put now."""

    defined: bool
    running: bool
    applied: tuple[str, ...] = ()
    #: Why it could not be put into the running domain, although it is in the definition.
    failure: str = ""


def prepare(uri: str, name: str, *, apply: bool) -> Prepared:
    """Look for our agent's channel; ``apply`` puts it where it is missing. Raises ``Failed`` where libvirt refuses."""
    with Domain(uri, name) as domain:
        before = _look(domain)
        if not apply:
            return before
        places, failure = [], ""
        if domain.ask(lambda each: each.isPersistent()) and not before.defined:
            _attach(domain, libvirt.VIR_DOMAIN_AFFECT_CONFIG)
            places.append("definition")
        if domain.ask(lambda each: each.isActive()) and not before.running:
            try:
                _attach(domain, libvirt.VIR_DOMAIN_AFFECT_LIVE)
            except Failed as error:
                if not (before.defined or places):
                    raise
                failure = f"The channel comes with the next start. It cannot be put into the running VM: {error}"
            else:
                places.append("running VM")
        after = _look(domain)
        return Prepared(after.defined, after.running, tuple(places), failure)


def _look(domain: Domain) -> Prepared:
    defined = running = False
    if domain.ask(lambda each: each.isPersistent()):
        defined = _has_channel(domain, libvirt.VIR_DOMAIN_XML_INACTIVE)
    if domain.ask(lambda each: each.isActive()):
        running = _has_channel(domain, 0)
    return Prepared(defined, running)


def _has_channel(domain: Domain, flags: int) -> bool:
    root = ElementTree.fromstring(domain.ask(lambda each: each.XMLDesc(flags)))
    return AGENT_PORT in dict(inventory.channels(root))


def _attach(domain: Domain, where: int) -> None:
    domain.order(lambda each: each.attachDeviceFlags(channel_xml(), where))


def guest_time(uri: str, name: str) -> float:
    """The guest's clock, by qga: seconds since 1970. Raises as ``Domain``."""
    with Domain(uri, name) as domain:
        told = domain.ask(lambda each: each.getTime())
    return float(told["seconds"]) + float(told["nseconds"]) * 1e-9
