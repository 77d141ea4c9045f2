"""Letting a VM be migrated whose disks overlays of ours record: none of them comes or goes until it has arrived."""

from __future__ import annotations

from headstart.backup.context import Context
from headstart.backup.cycle import running
from headstart.backup.meeting import meet


def move(context: Context, name: str) -> tuple[bool, list[str]]:
    """Whether anything of ours kept it from being migrated, and what the user should know."""
    with running(context, name, "move"), meet(context, context.journal.vm(name)) as contact:
        return contact.machine.let_move(), contact.notes


def stay(context: Context, name: str) -> list[str]:
    """It was not migrated after all."""
    with running(context, name, "stay"), meet(context, context.journal.vm(name)) as contact:
        contact.machine.let_stay()
        return contact.notes
