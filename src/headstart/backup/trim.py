"""Having a VM's guest give its free blocks back, by whoever of ours answers there."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from headstart import errors
from headstart.backup import opening
from headstart.backup.context import Context
from headstart.guest import shells, trimming
from headstart.guest.trimming import Trimmed
from headstart.state.values import Vm
from headstart.wire.qga import Qga


def trim(context: Context, name: str, seconds: float = trimming.SECONDS) -> tuple[str, list[Trimmed]]:
    """By whom (``agent`` or ``qga``), and what. The context's beat may end it. Raises ``Unreachable`` where nobody
    answers within ``seconds``, ``Unsupported``."""
    vm = opening.met(context, context.journal.vm(name))
    with context.journal.lock(name, "trim"):
        why = []
        if address := _agent(vm):
            try:
                with context.agent(address) as agent:
                    agent.attend(context.beat)
                    return "agent", agent.trim(seconds)
            except (errors.Unreachable, errors.Unsupported, errors.Usage) as error:
                why.append(str(error))
        with _qga(vm) as qga:
            if qga is not None:
                return "qga", trimming.through_qga(qga, seconds, context.beat)
        if why:
            raise errors.Unreachable(f"Nobody in the guest trims its file systems: {' '.join(why)}")
        raise errors.Usage(
            f"'{name}' was added without --agent and --qga: nobody in the guest can be asked to trim its file systems. "
            "'fstrim -a' there does the same."
        )


def _agent(vm: Vm) -> str:
    if vm.agent or vm.domain is None:
        return vm.agent
    from headstart.hypervisor.libvirt import domains

    return domains.channel_path(vm.domain.uri, vm.domain.name)


@contextlib.contextmanager
def _qga(vm: Vm) -> Iterator[shells.Qga | None]:
    found: shells.Qga | None = Qga(vm.qga) if vm.qga is not None else None
    if vm.domain is not None:
        from headstart.hypervisor.libvirt import domains

        found = domains.qga(vm.domain.uri, vm.domain.name)
    try:
        yield found
    finally:
        if found is not None:
            found.close()
