"""Having a VM's guest give its free blocks back, by whoever of ours answers there."""

from __future__ import annotations

import contextlib

from headstart import errors
from headstart.backup import opening
from headstart.backup.context import Context
from headstart.guest import trimming
from headstart.guest.trimming import Trimmed


def trim(context: Context, name: str, seconds: float = trimming.SECONDS) -> tuple[str, list[Trimmed]]:
    """By whom (``agent`` or ``qga``), and what. The context's beat may end it. Raises ``Unreachable`` where nobody
    answers within ``seconds``, ``Unsupported``."""
    vm = opening.met(context, context.journal.vm(name))
    with context.journal.lock(name, "trim"):
        why = []
        if address := opening.agent_address(vm):
            try:
                with context.agent(address) as agent:
                    agent.attend(context.beat)
                    return "agent", agent.trim(seconds)
            except (errors.Unreachable, errors.Unsupported, errors.Usage) as error:
                why.append(str(error))
        qga = opening.qga(vm)
        if qga is not None:
            with contextlib.closing(qga):
                return "qga", trimming.through_qga(qga, seconds, context.beat)
        if why:
            raise errors.Unreachable(f"Nobody in the guest trims its file systems: {' '.join(why)}")
        raise errors.Usage(
            f"'{name}' was added without --agent and --qga: nobody in the guest can be asked to trim its file systems. "
            "'fstrim -a' there does the same."
        )
