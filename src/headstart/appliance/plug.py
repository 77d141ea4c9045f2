"""A disk given to an appliance that is a guest of this host, as a device of it, read-only.

::

    QEMU that has the disk  <--unix socket, NBD--  QEMU of the appliance  --->  a disk with a serial number of ours

Never its image: a second reader of a qcow2 that is in use sees stale data. The device is found by its number in the
guest, and taken away after the round. What a host that died has left in the appliance's QEMU, the next one that uses
the appliance takes away: names tell which process made them.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Mapping
from pathlib import Path
from secrets import token_hex
from typing import Any

from headstart import errors
from headstart.hypervisor.names import NODE_LIMIT
from headstart.wire import nbd
from headstart.wire.qmp import CommandFailed, Qmp

#: A guest that does not let go of a device within this time keeps it until the next round.
UNPLUG_SECONDS = 15.0
_NAME = re.compile(r"hsplug-(\d+)-([0-9a-f]+)-[0-9a-f]{6}")
#: The first that the appliance has a place for.
_DEVICES = ("scsi-hd", "virtio-blk-pci")
#: Of those that live in this process.
_ours: set[str] = set()


class Plug:
    """As long as it is open the guest has the disk. A context manager."""

    def __init__(self, monitor: Path, uri: str) -> None:
        """``monitor``: QMP of the appliance's QEMU. Raises ``Unreachable``, ``Unsupported`` where it cannot be plugged
        in."""
        self._monitor = monitor
        self._name = f"hsplug-{os.getpid()}-{_start_time(os.getpid()):x}-{token_hex(3)}"
        assert len(self._name) <= NODE_LIMIT
        #: By which the guest knows the device.
        self.serial = token_hex(8)
        _ours.add(self._name)
        try:
            with Qmp(monitor) as qmp:
                put_right(qmp)
                self._add(qmp, nbd.Export.parse(uri))
        except BaseException:
            _ours.discard(self._name)
            raise

    def _add(self, qmp: Qmp, export: nbd.Export) -> None:
        server = {"type": "unix", "path": str(export.socket)}
        options = {"driver": "nbd", "node-name": self._name, "read-only": True, "cache": {"direct": True}}
        try:
            qmp.call("blockdev-add", {**options, "server": server, "export": export.name})
        except CommandFailed as error:
            raise errors.Unsupported(
                f"The appliance's QEMU cannot open {export.socket}: {error.text}. It has to run as a user who may."
            ) from error
        refused: list[str] = []
        for driver in _DEVICES:
            try:
                qmp.call("device_add", {"driver": driver, "id": self._name, "drive": self._name, "serial": self.serial})
            except CommandFailed as error:
                refused.append(error.text)
            else:
                break
        else:
            with contextlib.suppress(CommandFailed):
                qmp.execute("blockdev-del", node_name=self._name)
            raise errors.Unsupported(
                f"No disk can be plugged into the appliance: {'; '.join(refused)}. Give it a virtio-scsi controller."
            )

    def close(self) -> None:
        """Raises ``Busy`` when the guest does not let go of it, ``Unreachable``."""
        _ours.discard(self._name)
        with Qmp(self._monitor) as qmp:
            _take_away(qmp, self._name)

    def __enter__(self) -> Plug:
        return self

    def __exit__(self, *details: object) -> None:
        self.close()


def put_right(qmp: Qmp) -> tuple[str, ...]:
    """Take away what processes that are gone have left. Returns the names."""
    nodes = [node["node-name"] for node in qmp.execute("query-named-block-nodes", flat=True)]
    left = [name for name in nodes if _is_abandoned(name)]
    for name in left:
        with contextlib.suppress(errors.Busy):
            _take_away(qmp, name)
    return tuple(left)


def _is_abandoned(name: str) -> bool:
    found = _NAME.fullmatch(name)
    if found is None or name in _ours:
        return False
    pid, began = int(found[1]), int(found[2], 16)
    return pid == os.getpid() or _start_time(pid) != began


def _take_away(qmp: Qmp, name: str) -> None:
    """Gone already is fine."""
    mark = qmp.mark
    try:
        qmp.execute("device_del", id=name)
        gone = qmp.wait_event(lambda event: _is_deleted(event, name), UNPLUG_SECONDS, mark)
    except CommandFailed:  # there is none, or it is on its way
        gone = {}
    try:
        qmp.execute("blockdev-del", node_name=name)
    except CommandFailed as error:
        if gone is None or name in [node["node-name"] for node in qmp.execute("query-named-block-nodes", flat=True)]:
            raise errors.Busy(f"The appliance does not let go of a disk ({name}): {error.text}.") from error


def _is_deleted(event: Mapping[str, Any], name: str) -> bool:
    return bool(event["event"] == "DEVICE_DELETED" and event["data"].get("device") == name)


def _start_time(pid: int) -> int:
    """When a process began, in ticks since this host did (proc(5)); 0: there is none."""
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])
    except OSError:
        return 0
