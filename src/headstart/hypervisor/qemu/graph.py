"""QEMU's block graph as QMP tells it: devices, nodes, filters, bitmaps."""

from __future__ import annotations

import graphlib
import re
from collections.abc import Container, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from headstart import errors
from headstart.wire.qmp import CommandFailed, Qmp

#: Drivers that pass requests through to one child (``BlockDriver.is_filter`` in QEMU's block/*.c).
FILTERS = frozenset(
    {
        "blkdebug",
        "blklogwrites",
        "blkreplay",
        "commit_top",
        "compress",
        "copy-before-write",
        "copy-on-read",
        "mirror_top",
        "preallocate",
        "throttle",
    }
)
#: Filters that an owner lets stand for good; the others belong to a job at work.
LASTING_FILTERS = frozenset({"throttle", "copy-on-read", "compress", "preallocate"})


@dataclass(frozen=True, slots=True)
class Drive:
    """A device of the guest with a medium in it."""

    device: str
    qdev: str
    root: str
    removable: bool


@dataclass(frozen=True, slots=True)
class Node:
    name: str
    driver: str
    file: str
    read_only: bool
    size: int
    bitmaps: tuple[Mapping[str, Any], ...]
    info: Mapping[str, Any]
    #: It goes past the host's cache.
    direct: bool = False


@dataclass(frozen=True, slots=True)
class Graph:
    """One look at QEMU. ``children`` maps a node to its children by role (``file``, ``backing``)."""

    drives: tuple[Drive, ...]
    empty: tuple[Drive, ...]
    nodes: Mapping[str, Node]
    children: Mapping[str, Mapping[str, str]] = field(default_factory=dict)

    def below_filters(self, root: str) -> str:
        """The topmost node that is no filter: the one whose bitmaps see all of the guest's writes."""
        name = root
        while self.nodes[name].driver in FILTERS:
            name = self.filtered(name)
        return name

    def filtered(self, name: str) -> str:
        roles = self.children.get(name, {})
        child = roles.get("file") or roles.get("backing")
        if child is None:
            raise errors.Unsupported(f"QEMU does not tell what the filter node {name} stands on.")
        return child

    def filters(self, root: str) -> list[Node]:
        found = []
        name = root
        while self.nodes[name].driver in FILTERS:
            found.append(self.nodes[name])
            name = self.filtered(name)
        return found

    def chain(self, top: str) -> Iterator[Node]:
        """``top`` and its backing nodes, downwards."""
        name: str | None = top
        while name is not None:
            node = self.nodes[name]
            yield node
            roles = self.children.get(name, {})
            name = roles.get("file") if node.driver in FILTERS else roles.get("backing")

    def file_node(self, name: str) -> Node | None:
        """The protocol node (``file``, ``host_device``, …) under a format node, or the node itself."""
        while "file" in self.children.get(name, {}):
            name = self.children[name]["file"]
        return self.nodes.get(name)


def look(qmp: Qmp) -> Graph:
    """Raises ``Unreachable`` for answers that no QEMU gives."""
    try:
        nodes = {node.name: node for node in map(_node, qmp.execute("query-named-block-nodes", flat=True))}
        drives: list[Drive] = []
        empty: list[Drive] = []
        for entry in qmp.execute("query-block"):
            drive = _drive(entry)
            (drives if drive.root else empty).append(drive)
        # The unnamed root of a device is not among the named nodes of QEMU before it got a generated name.
        known = tuple(drive for drive in drives if drive.root in nodes)
        return Graph(known, tuple(empty), nodes, _children(qmp, nodes))
    except (AttributeError, KeyError, TypeError, graphlib.CycleError) as error:
        raise errors.Unreachable(
            f"QEMU describes its disks in a way that makes no sense ({type(error).__name__}): is this a QMP monitor?"
        ) from error


def _drive(entry: Mapping[str, Any]) -> Drive:
    return Drive(
        _text(entry.get("device", "")),
        _text(entry.get("qdev", "")),
        _text(entry.get("inserted", {}).get("node-name", "")),
        bool(entry.get("removable")),
    )


def _node(entry: Mapping[str, Any]) -> Node:
    image, size = entry["image"], entry["image"]["virtual-size"]
    if not isinstance(size, int) or not isinstance(image.get("format-specific", {}).get("data", {}), dict):
        raise TypeError("no image")
    return Node(
        _text(entry["node-name"]),
        _text(entry["drv"]),
        _text(entry["file"]),
        bool(entry["ro"]),
        size,
        tuple(entry.get("dirty-bitmaps", ())),
        image,
        bool(entry.get("cache", {}).get("direct", False)),
    )


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError("no text")
    return value


def _children(qmp: Qmp, nodes: Container[str]) -> dict[str, dict[str, str]]:
    """Of ``nodes``: others have come or gone since those were asked for. A chain of them ends."""
    graph = qmp.execute("x-debug-query-block-graph")
    names = {node["id"]: _text(node["name"]) for node in graph["nodes"] if node["type"] == "block-driver"}
    children: dict[str, dict[str, str]] = {}
    for edge in graph["edges"]:
        parent, child = names.get(edge["parent"], ""), names.get(edge["child"], "")
        if parent in nodes and child in nodes:
            children.setdefault(parent, {})[_text(edge["name"])] = child
    graphlib.TopologicalSorter({parent: set(roles.values()) for parent, roles in children.items()}).prepare()
    return children


#: Buses and controllers between a disk and its PCI function.
_DEEPEST = 16
#: The first PCI bus of the machine types pc, q35 and virt.
_ROOT_BUS = re.compile(r"/pcie?\.0$")


@dataclass(frozen=True, slots=True)
class Device:
    """What does not change while a device is plugged in. ``iothread`` serves it, by itself (virtio-blk)
    or its controller (virtio-scsi)."""

    kind: str
    serial: str
    iothread: str
    wwn: str
    pci: str


class Devices:
    """The guest's block devices by their path, asked for once in a connection: a look at the VM is on
    the way of every step of a window."""

    def __init__(self, qmp: Qmp) -> None:
        self._qmp = qmp
        self._known: dict[str, Device] = {}
        self._mark = qmp.mark

    def of(self, drive: Drive) -> Device:
        self._forget_unplugged()
        path = drive.qdev
        if path not in self._known:
            kind, serial = self._property(path, "type"), self._property(path, "serial")
            self._known[path] = Device(kind, serial, self._iothread(path), self._wwn(path), self._pci(path))
        return self._known[path]

    def _forget_unplugged(self) -> None:
        """Another device may come by the same name: one in an iothread must not be taken for the old one."""
        mark = self._qmp.mark
        if any(event["event"] == "DEVICE_DELETED" for event in self._qmp.events_since(self._mark)):
            self._known.clear()
        self._mark = mark

    def _iothread(self, path: str) -> str:
        own = self._property(path, "iothread")
        bus = self._property(path, "parent_bus")
        while not own and bus.count("/") > 1:
            bus = bus.rpartition("/")[0]
            own = self._property(bus, "iothread")
        return own

    def _wwn(self, path: str) -> str:
        value = self._get(path, "wwn")
        return f"{value:016x}" if isinstance(value, int) and value else ""

    def _pci(self, path: str) -> str:
        """The address of the PCI function that the device, or its controller, is. Only the guest's firmware and
        kernel know the numbers of buses behind bridges: there it is not told."""
        for _ in range(_DEEPEST):
            if not path or path == "/machine":
                break
            function = self._get(path, "addr")
            bus = self._property(path, "parent_bus")
            if isinstance(function, int):
                return f"0000:00:{function >> 3:02x}.{function & 7}" if _ROOT_BUS.search(bus) else ""
            # A bus is a part of its controller.
            path = (bus or path).rpartition("/")[0]
        return ""

    def _property(self, path: str, name: str) -> str:
        """A property as text; empty if the device has none of that name."""
        value = self._get(path, name)
        return value if isinstance(value, str) else ""

    def _get(self, path: str, name: str) -> Any:
        """None if the device has no such property."""
        try:
            return self._qmp.execute("qom-get", path=path, property=name)
        except CommandFailed:
            return None
