"""Taking what is ours out of a VM."""

from __future__ import annotations

from headstart import errors
from headstart.backup import identify
from headstart.backup.context import Context
from headstart.backup.cycle import running
from headstart.backup.meeting import Asleep, meet
from headstart.backup.spooling import spool_of

AGENT_STAYS = (
    "an agent that was put into the guest stays there: 'headstart agent remove' takes it out while the VM is known,"
    " else it goes by hand (docs/install.md, Removing)"
)


def release(context: Context, name: str, *, discard: bool = False) -> tuple[str, ...]:
    """Take everything of ours out of a VM. The next backup compares. Returns what the user should know.

    A backup that waits to be published would be lost: raises ``Usage``, unless it is to be discarded."""
    with running(context, name, "release"):
        notes = _unpublished(context, name, "release", discard)
        notes += _let_go(context, name)[0]
        spool_of(context, name, "").remove()
        return tuple(notes)


def remove(context: Context, name: str, *, discard: bool = False) -> tuple[str, ...]:
    """Forget a VM; what is ours is taken out of it if it answers. Else like ``release``."""
    with running(context, name, "remove"):
        notes = _unpublished(context, name, "remove", discard)
        try:
            told, agent = _let_go(context, name)
            notes += told + ([AGENT_STAYS] if agent else [])
        except (errors.Unreachable, errors.Busy, errors.NotFound) as error:
            notes.append(f"bitmaps of ours may be left in the VM's disks: {error}")
        spool_of(context, name, "").remove()
        context.journal.remove_vm(name)
        return tuple(notes)


def _unpublished(context: Context, name: str, verb: str, discard: bool) -> list[str]:
    waiting = context.journal.completion(name)
    if waiting is None:
        return []
    if discard:
        return [f"the backup {waiting.id}, which was not published yet, was discarded"]
    raise errors.Usage(
        f"The backup {waiting.id} of VM '{name}' waits in the spool: it is complete, but not yet in the repository. "
        f"'headstart precopy {name}' publishes it, also if the VM does not answer. "
        f"To lose it, use 'headstart vm {verb} {name} --discard-unpublished'.",
        vm=name,
        snapshot=waiting.id,
    )


def _let_go(context: Context, name: str) -> tuple[list[str], bool]:
    """What the user should know, and whether the VM has a hypervisor and a way to an agent in the guest."""
    with meet(context, context.journal.vm(name), Asleep.AWAKEN) as contact:
        # What keeps marks from being removed is told before anything is forgotten.
        standing = contact.tracker.standing()
        contact.tracker.drop([(disk, mark) for disk in standing for mark in standing[disk]])
        context.journal.forget_tracking(name)
        identify.sweep(contact)
        return contact.notes, contact.inside.expected and not contact.vm.guest_only
