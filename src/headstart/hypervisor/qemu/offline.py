"""A QEMU that does not run: nobody tells where its images are, so that is kept from when it ran."""

from __future__ import annotations

import dataclasses
import json
import socket as sockets
from collections.abc import Container, Mapping
from pathlib import Path
from typing import Any

from headstart.hypervisor import overlays
from headstart.hypervisor.inventory import Disk, ImageFile, Inventory, LeftOut, Recorder
from headstart.hypervisor.offline import OfflineMachine

#: Of what is kept of a VM.
KEY = "inventory"
#: A monitor that listens takes a connection at once.
PROBE_SECONDS = 5.0


def keep(inventory: Inventory) -> str:
    """``inventory`` as text."""
    values = dataclasses.asdict(inventory)
    return json.dumps(
        values | {"files": [[kind, str(path)] for kind, path in inventory.files]}, sort_keys=True, default=_value
    )


def _value(told: object) -> object:
    return told.value if isinstance(told, Recorder) else str(told)


def kept(text: str) -> Inventory:
    values = json.loads(text)
    return Inventory(
        tuple(_disk(each) for each in values["disks"]),
        tuple(LeftOut(**each) for each in values["left_out"]),
        values["definition"],
        tuple((kind, Path(path)) for kind, path in values["files"]),
    )


def _disk(values: Mapping[str, Any]) -> Disk:
    layers = tuple(ImageFile(**layer) for layer in values["layers"])
    recorder = Recorder(values.get("recorder", Recorder.BITMAP.value))
    return Disk(**{**values, "layers": layers, "recorder": recorder})


def at_rest(
    monitor: Path, keepsakes: Mapping[str, str], *, socket: Path, excluded: Container[str], block_size: int
) -> OfflineMachine | None:
    """The VM's images as they were when it ran last; None if it runs, or nothing is known of it. Raises
    ``Unreachable`` if it is off and they cannot be read."""
    if KEY not in keepsakes or listens(monitor):
        return None
    known = kept(keepsakes[KEY])
    chosen = tuple(_on_its_overlays(disk) for disk in known.disks if disk.name not in excluded)
    if not chosen:
        return None
    left_out = (*known.left_out, *(LeftOut(disk.name, "excluded") for disk in known.disks if disk.name in excluded))
    wanted = dataclasses.replace(known, disks=chosen, left_out=left_out)
    return OfflineMachine(wanted, socket, block_size, lambda: listens(monitor))


def _on_its_overlays(disk: Disk) -> Disk:
    """Those of ours have come and gone since; the topmost is opened by the name that leads to it."""
    if not disk.overlays:
        return disk
    files = overlays.files_of(Path(disk.layers[0].path))
    ours = [ImageFile(disk.layers[0].path, "qcow2"), *(ImageFile(str(path), "qcow2") for path in files[1:-1])]
    if len(files) < 2 or str(files[-1]) != disk.layers[disk.overlays].path:
        return disk
    return dataclasses.replace(disk, layers=(*ours, *disk.layers[disk.overlays :]), overlays=len(ours))


def listens(monitor: Path) -> bool:
    """A QEMU has the socket open; one that was killed leaves a file behind."""
    with sockets.socket(sockets.AF_UNIX, sockets.SOCK_STREAM) as probe:
        probe.settimeout(PROBE_SECONDS)
        try:
            probe.connect(str(monitor))
        except (FileNotFoundError, ConnectionRefusedError):
            return False
        except OSError:
            # Whatever it is, it is no sign that the VM is off.
            return True
        return True
