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
from headstart.repository.repo import Repository
from headstart.state.journal import Journal
from headstart.state.values import Vm
from headstart.volumes.looker import Looker

#: ``progress(what, done, total)`` in bytes; called often, from any thread.
Progress = Callable[[str, int, int], None]
#: Called wherever a run gets on; may raise to end it.
Beat = Callable[[], None]


def quiet(what: str, done: int, total: int) -> None:
    """No progress is shown."""


def unwatched() -> None:
    """Nobody listens whether the run gets on."""


@dataclass(frozen=True, slots=True)
class Context:
    """``scratch`` is on a local disk: for scratch files and the spool. ``connect`` opens a VM, ``images`` the files of
    one that is off, in place of what ``opening`` does; ``agent`` an agent in a guest at an address. ``volumes``:
    patterns of what is backed up, besides those of the VM. ``looker`` looks what lies on disks. ``appliances``:
    addresses of those that may read."""

    journal: Journal
    repo: Repository | None
    scratch: Path
    progress: Progress = quiet
    beat: Beat = unwatched
    connect: Callable[[Context, Vm], Machine] | None = None
    images: Callable[[Context, Vm], Machine | None] | None = None
    agent: Callable[[str], Agent] = agents.connect
    clock: Callable[[], float] = time.time
    host: str = socket.gethostname()
    volumes: tuple[str, ...] = ()
    looker: Callable[..., Looker] = Looker
    appliances: tuple[str, ...] = ()

    @property
    def repository(self) -> Repository:
        if self.repo is None:
            raise errors.Usage("Name the repository with --repository or HEADSTART_REPOSITORY.")
        return self.repo
