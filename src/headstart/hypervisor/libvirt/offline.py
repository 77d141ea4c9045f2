"""A domain that is off: libvirt tells where its images are, and they are read without its help.

To start it without its guest would do as well, but for its owner, who could not start it meanwhile.
"""

from __future__ import annotations

from collections.abc import Container, Iterator
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import libvirt

from headstart import errors
from headstart.hypervisor import images
from headstart.hypervisor.inventory import Disk, ImageFile, Inventory
from headstart.hypervisor.libvirt import inventory, layers
from headstart.hypervisor.libvirt.place import require_local
from headstart.hypervisor.offline import CONSISTENCY, OfflineMachine
from headstart.wire import imageinfo
from headstart.wire.libvirt import Domain

OFF = (libvirt.VIR_DOMAIN_SHUTOFF, libvirt.VIR_DOMAIN_CRASHED)


def at_rest(
    uri: str,
    name: str,
    *,
    installation: str,
    folder: Path,
    socket: Path,
    excluded: Container[str],
    block_size: int,
) -> OfflineMachine | None:
    """None if it runs. ``folder``: of our overlays on devices. Raises ``NotFound``, ``Usage``, and ``Unreachable`` also
    where its images cannot be read."""
    require_local(uri)
    with Domain(uri, name) as domain:
        if not is_off(domain):
            return None
        text = domain.ask(lambda each: each.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE))
        # With its memory saved the guest is in the middle of something.
        saved = bool(domain.ask(lambda each: each.hasManagedSaveImage()))
        uuid = domain.uuid
    seen = inventory.parse(text, lambda _target: 0, excluded)
    root = ElementTree.fromstring(text)
    whole = [_whole(root, each.disk) for each in seen.attachments]
    disks = tuple(layers.covered(each, installation, folder).disk for each in whole)
    if not disks:
        return None
    known = Inventory(disks, seen.left_out, text, seen.files)
    consistency = "crash" if saved else CONSISTENCY
    return OfflineMachine(known, socket, block_size, lambda: _runs(uri, uuid), consistency)


def is_off(domain: Domain) -> bool:
    return domain.ask(lambda each: each.state())[0] in OFF


def _runs(uri: str, uuid: str) -> bool:
    with Domain(uri, uuid) as domain:
        return not is_off(domain)


def _whole(root: ElementTree.Element, disk: Disk) -> Disk:
    """With the backing files that libvirt would find in the images, unless the definition names them."""
    element = root.find(f"devices/disk/target[@dev='{disk.name}']/..")
    if element is None or element.find("backingStore") is not None:
        return disk
    return replace(disk, layers=(disk.layers[0], *_below(disk.layers[0])))


def _below(layer: ImageFile) -> Iterator[ImageFile]:
    if not Path(layer.path).exists():
        return
    info = imageinfo.look(layer.path, layer.driver)
    if not info.backing:
        return
    if not info.backing_format:
        raise errors.Unreachable(f"The image {layer.path} does not tell the format of its backing file {info.backing}.")
    found = images.image_file(Path(info.backing), info.backing_format, active=False)
    yield found
    yield from _below(found)
