"""Somebody else's work on the disks, which a point in time has to wait for."""

from __future__ import annotations

import time
from collections.abc import Callable

from headstart import errors
from headstart.hypervisor import names
from headstart.hypervisor.qemu.graph import LASTING_FILTERS
from headstart.hypervisor.qemu.inventory import Look
from headstart.wire.qmp import Qmp

#: Foreign jobs often end by themselves; a backup at a given time cannot wait for long.
PATIENCE_SECONDS = 30.0
#: Jobs that move a disk's root or content about, while they are not over.
_MOVERS = frozenset({"mirror", "commit", "stream", "backup"})
_OVER = frozenset({"concluded", "null", "undefined"})


def wait_until_clear(look: Callable[[], Look], qmp: Qmp) -> Look:
    """A look at the VM with nothing in the way; raises ``Busy`` with what it is."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        seen = look()
        found = find(seen, qmp)
        if not found:
            return seen
        if time.monotonic() >= deadline:
            raise errors.Busy(
                f"Somebody else works on the VM's disks: {found}. Wait until it is done, or end it, and try again.",
                obstacle=found,
            )
        time.sleep(0.5)


def find(seen: Look, qmp: Qmp) -> str:
    for attachment in seen.attachments:
        for node in seen.graph.filters(attachment.root):
            if node.driver not in LASTING_FILTERS:
                whose = ", ".join(filter(None, (node.name, names.owner(node.name))))
                return f"a filter '{node.driver}' ({whose}) stands on disk {attachment.disk.name}"
    for job in qmp.execute("query-jobs"):
        if job["type"] in _MOVERS and job["status"] not in _OVER:
            whose = names.owner(job["id"])
            return f"a {job['type']} job '{job['id']}'{f' ({whose})' if whose else ''} is {job['status']}"
    return ""
