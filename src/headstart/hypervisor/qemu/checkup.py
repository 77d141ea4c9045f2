"""A look at a running QEMU for ``doctor``, by queries alone."""

from __future__ import annotations

import re
from collections.abc import Container, Iterator
from pathlib import Path
from typing import Any

from headstart.hypervisor import names
from headstart.hypervisor.checkup import Checkup, Trace
from headstart.hypervisor.qemu import anchor, inventory, obstacles, versions
from headstart.hypervisor.qemu.graph import Devices
from headstart.hypervisor.qemu.inventory import Attachment, Look
from headstart.hypervisor.qemu.migration import STILL
from headstart.hypervisor.recording import Recording
from headstart.wire.qmp import Qmp

#: Whoever has the monitor for longer is told instead of waited for.
GREETING_SECONDS = 1.0

NO_IMAGE_BELOW = "it has sunk below somebody's overlay (an external snapshot?), where it sees no writes"
INCONSISTENT = "it is inconsistent: QEMU did not end in good order"
OTHER_GRANULARITY = "it has another granularity"


def look(monitor: Path, recording: Recording, excluded: Container[str], block_size: int) -> Checkup:
    """Raises ``Unreachable``, with who else is connected."""
    with Qmp(monitor, greeting_seconds=GREETING_SECONDS) as qmp:
        return read(qmp, recording, excluded, block_size)


def read(qmp: Qmp, recording: Recording, excluded: Container[str], block_size: int) -> Checkup:
    installation = recording.installation
    seen = inventory.look(qmp, Devices(qmp), excluded, recording)
    work = _Work(qmp, installation, seen)
    release = versions.ask(qmp)
    return Checkup(
        release=release,
        status=qmp.execute("query-status")["status"],
        inventory=inventory.inventory(qmp, seen),
        iothreads=tuple(each.disk.name for each in seen.attachments if each.iothread),
        traces=tuple(trace for each in seen.attachments for trace in _traces(seen, each, block_size)),
        faults=tuple(versions.faults(release, seen.traits())),
        works=tuple(work.under_way()),
        leftovers=tuple(work.found(mine=True)),
        others=tuple(work.found(mine=False)),
        owner=_owner(qmp.peer_pid),
    )


def _traces(seen: Look, attachment: Attachment, block_size: int) -> Iterator[Trace]:
    stack = attachment.stack
    for mark in stack.names if stack is not None else ():
        yield Trace(attachment.disk.name, mark, stack is not None and mark in stack.recording, persistent=True)
    for node in seen.graph.chain(attachment.root):
        for found in (bitmap for bitmap in node.bitmaps if "name" in bitmap):
            fault = ""
            if found.get("inconsistent", False):
                fault = INCONSISTENT
            elif node.name != attachment.tracked:
                fault = NO_IMAGE_BELOW
            elif found["granularity"] != block_size and names.parse(found["name"]) is not None:
                fault = OTHER_GRANULARITY
            yield Trace(attachment.disk.name, found["name"], found["recording"], found["persistent"], fault)


class _Work:
    """What stands and moves in QEMU's block layer."""

    def __init__(self, qmp: Qmp, installation: str, seen: Look) -> None:
        self._qmp = qmp
        self._installation = installation
        self._seen = seen
        self._exports: list[dict[str, Any]] = qmp.execute("query-block-exports")

    def under_way(self) -> Iterator[str]:
        obstacle = obstacles.find(self._seen, self._qmp)
        if obstacle and not self._is_mine(obstacle):
            yield obstacle
        status = self._qmp.execute("query-migrate").get("status", "")
        if status not in STILL:
            yield f"the VM is being migrated ({status})"
        if anchor.free_node(self._installation) in self._seen.graph.nodes:
            yield "the VM was made ready to be migrated ('headstart vm move'), and 'headstart vm stay' ends that"
        for export in self._exports:
            if not names.is_any_node(export["id"]):
                yield f"somebody exports {export['node-name']} by QEMU's {export['type']} server ({export['id']})"

    def _is_mine(self, said: str) -> bool:
        return re.search(rf"\bhs-{self._installation}-", said) is not None

    def found(self, *, mine: bool) -> Iterator[str]:
        """What Headstart made, this installation or another one: exports, jobs, nodes."""
        named = [
            *(f"export {each['id']}" for each in self._exports),
            *(f"job {each['id']}" for each in self._qmp.execute("query-jobs")),
            *(f"node {name}" for name in sorted(self._seen.graph.nodes)),
        ]
        for each in named:
            name = each.partition(" ")[2]
            if names.is_any_node(name) and names.is_node_of(self._installation, name) is mine:
                yield each


def _owner(pid: int | None) -> tuple[int, int] | None:
    """User and group that the process opens files as (proc(5), ``status``: real, effective, saved, file system)."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return None
    fields = {name: value.split() for name, _, value in (line.partition(":") for line in lines)}
    return int(fields["Uid"][3]), int(fields["Gid"][3])
