"""What every run needs, put together by whoever starts it."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from headstart import errors
from headstart.guest import agent as agents
from headstart.guest.agent import Agent
from headstart.hypervisor.contract import Machine
from headstart.hypervisor.qemu.machine import QemuMachine
from headstart.repository.repo import Repository
from headstart.state.journal import Journal
from headstart.state.values import Vm

#: ``progress(what, done, total)`` in bytes; called often, from any thread.
Progress = Callable[[str, int, int], None]


def quiet(what: str, done: int, total: int) -> None:
    """No progress is shown."""


@dataclass(frozen=True, slots=True)
class Context:
    """``scratch`` is on a local disk: for scratch files and the spool. ``connect`` opens a VM, ``agent`` an
    agent in a guest at an address."""

    journal: Journal
    repo: Repository | None
    scratch: Path
    progress: Progress = quiet
    connect: Callable[[Context, Vm], Machine] | None = None
    agent: Callable[[str], Agent] = agents.connect
    clock: Callable[[], float] = time.time
    host: str = socket.gethostname()

    @property
    def repository(self) -> Repository:
        if self.repo is None:
            raise errors.Usage("Name the repository with --repository or HEADSTART_REPOSITORY.")
        return self.repo

    def machine(self, vm: Vm) -> Machine:
        """Connect to the VM; raises ``Unreachable``."""
        return (self.connect or connect_qemu)(self, vm)


def connect_qemu(context: Context, vm: Vm) -> Machine:
    try:
        context.scratch.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise errors.Usage(f"The scratch directory {context.scratch} cannot be made: {error.strerror}.") from error
    return QemuMachine(
        vm.monitor,
        installation=context.journal.installation,
        scratch=context.scratch,
        label=vm.name,
        qga=vm.qga,
        excluded=vm.excluded,
    )
