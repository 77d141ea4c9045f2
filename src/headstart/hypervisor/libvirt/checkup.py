"""A look at a domain of libvirt's for ``doctor``, by questions alone. One that is off stays off."""

from __future__ import annotations

from collections.abc import Container, Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import libvirt

from headstart.hypervisor.checkup import Channels, Checkup, Trace
from headstart.hypervisor.inventory import Inventory
from headstart.hypervisor.libvirt import emulator, inventory, layers, obstacles
from headstart.hypervisor.libvirt.inventory import AGENT_PORT, QGA_PORT, Look
from headstart.hypervisor.libvirt.place import require_local
from headstart.hypervisor.recording import Recording
from headstart.wire.libvirt import Domain, Failed

_PLAIN = libvirt.VIR_DOMAIN_CHECKPOINT_XML_NO_DOMAIN
_SIZED = _PLAIN | libvirt.VIR_DOMAIN_CHECKPOINT_XML_SIZE
UNSOUND = "libvirt cannot tell what it holds: it is inconsistent or gone (QEMU did not end in good order?)"


def look(uri: str, name: str, recording: Recording, excluded: Container[str]) -> Checkup:
    """Raises ``Unreachable``, ``NotFound``, ``Usage``."""
    require_local(uri)
    with Domain(uri, name) as domain:
        return read(domain, recording, excluded)


def read(domain: Domain, recording: Recording, excluded: Container[str]) -> Checkup:
    xml: str = domain.ask(lambda each: each.XMLDesc(0))
    seen = inventory.parse(xml, lambda target: _size(domain, target), excluded)
    tops = {each.disk.name: Path(each.disk.layers[0].path) for each in seen.attachments}
    seen = layers.find(seen, recording, lambda: layers.Conditions("", tops))
    root = ElementTree.fromstring(xml)
    release = emulator.version(root.findtext("name", ""), root.findtext("devices/emulator", ""))
    works = tuple(_works(domain, seen))
    traces = tuple(_traces(domain, seen, sized=not works and bool(domain.ask(lambda each: each.isActive()))))
    return Checkup(
        release=(release // 1_000_000, release // 1_000 % 1_000, release % 1_000),
        status=_status(domain),
        inventory=Inventory(tuple(each.disk for each in seen.attachments), seen.left_out, files=seen.files),
        iothreads=tuple(each.disk.name for each in seen.attachments if each.unsafe),
        traces=traces,
        works=works,
        owner=seen.owner,
        channels=Channels(_opened(seen, AGENT_PORT), _path(seen, AGENT_PORT), _opened(seen, QGA_PORT)),
        apparmor=confined(root),
    )


def confined(root: ElementTree.Element) -> bool:
    """By AppArmor. A domain that is off tells only what its owner has chosen for it."""
    labels = root.iterfind("seclabel[@model='apparmor']")
    return any(each.get("type") != "none" for each in labels)


def _size(domain: Domain, target: str) -> int:
    try:
        return int(domain.ask(lambda each: each.blockInfo(target, 0))[0])
    except Failed:
        return 0


def _works(domain: Domain, seen: Look) -> Iterator[str]:
    found = obstacles.find(domain, seen.targets) if domain.ask(lambda each: each.isActive()) else ""
    if found:
        yield found
    if domain.ask(lambda each: each.hasManagedSaveImage()):
        yield "the VM is off with its memory saved (virsh managedsave), which a start would use up"


def _status(domain: Domain) -> str:
    state, reason = domain.ask(lambda each: each.state())
    if state in (libvirt.VIR_DOMAIN_RUNNING, libvirt.VIR_DOMAIN_BLOCKED):
        return "running"
    if state == libvirt.VIR_DOMAIN_PAUSED:
        return "io-error" if reason == libvirt.VIR_DOMAIN_PAUSED_IOERROR else "paused"
    return "off"


def _traces(domain: Domain, seen: Look, *, sized: bool) -> Iterator[Trace]:
    def told(each: Any) -> dict[str, str]:
        return {found.getName(): found.getXMLDesc(_SIZED if sized else _PLAIN) for found in each.listAllCheckpoints()}

    known = {each.disk.name for each in seen.attachments}
    for name, text in domain.ask(told).items():
        for disk in ElementTree.fromstring(text).iterfind("disks/disk[@checkpoint='bitmap']"):
            if disk.get("name") in known:
                fault = UNSOUND if sized and disk.get("size") is None else ""
                yield Trace(disk.get("name", ""), disk.get("bitmap", name), persistent=True, fault=fault)


def _opened(seen: Look, port: str) -> bool | None:
    channel = seen.channels.get(port)
    return None if channel is None else channel.connected


def _path(seen: Look, port: str) -> str:
    channel = seen.channels.get(port)
    return channel.path if channel is not None else ""
