"""Where the spool of a VM's completion is."""

from __future__ import annotations

from headstart.backup.context import Context
from headstart.transfer.spool import Spool


def spool_of(context: Context, vm: str, base_mark: str) -> Spool:
    """``base_mark`` is every completion's own, also among several of one draft or of several installations."""
    return Spool(context.scratch / "spool" / vm, base_mark)
