"""Where the spool of a VM's completion is."""

from __future__ import annotations

from headstart.backup.context import Context
from headstart.transfer.spool import Spool


def spool_of(context: Context, vm: str) -> Spool:
    return Spool(context.scratch / "spool" / vm)
