"""What ``boot`` tells of every VM, be it of plain QEMU or of libvirt's."""

from __future__ import annotations

from typing import Any

from headstart import units
from headstart.restore.booting.boot import Wanted


def conditions(wanted: Wanted) -> list[str]:
    """Under which it runs."""
    writes = str(wanted.overlays) if wanted.kept else "are lost at the end (--overlay DIR keeps them)"
    return [
        f"network  {'connected' if wanted.network else 'not connected (--network connects it)'}",
        f"writes   {writes}",
        "It ends with this command: Ctrl-C, or when the guest powers off.",
    ]


def moved(values: dict[str, Any], runs: str, to_add: str) -> str:
    """``runs``: that it does, and how it is started again; ``to_add``: the command that makes it known to this host."""
    lines = [f"{each['name']}  {each['path']}" for each in values["disks"]]
    lines += [f"{runs} Moved in {units.format_seconds(values['seconds'])}."]
    if values["added"]:
        lines += [f"This host knows it as {values['added']}: its next backup reads what changed since the snapshot."]
    else:
        lines += [f"To back it up: {to_add}"]
    return "\n".join(lines)
