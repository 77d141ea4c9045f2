"""What all wards of a host share."""

from __future__ import annotations

import time
from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from headstart.backup import opening
from headstart.backup.context import Context
from headstart.host.slots import Slots
from headstart.host.tally import Tally
from headstart.host.vault import Vault
from headstart.hypervisor.contract import Machine
from headstart.hypervisor.counters import Counters
from headstart.load import machine
from headstart.load.bucket import Bucket
from headstart.load.machine import Sample
from headstart.state.journal import Journal
from headstart.state.series import Series
from headstart.state.values import Vm


@dataclass(frozen=True, slots=True)
class House:
    """``rounds`` and ``backups`` bound how many VMs do that at the same time; ``store`` is what all together may send.

    ``clock`` is wall time, seconds since 1970; ``connect`` and ``look`` talk to a VM, ``images`` opens those
    of one that is off, ``sample`` looks at this host: at disks that carry images, and at an interface; ``appliances``
    are addresses of those that may read."""

    journal: Journal
    series: Series
    vault: Vault
    scratch: Path
    rounds: Slots
    backups: Slots
    store: Bucket
    tally: Tally
    clock: Callable[[], float] = time.time
    connect: Callable[[Context, Vm, Container[str]], Machine] = field(default=opening.connect)
    images: Callable[[Context, Vm, Container[str]], Machine | None] = field(default=opening.at_rest)
    look: Callable[[Vm], Counters] = field(default=opening.look)
    sample: Callable[[Sequence[Path], str], Sample] = field(default=machine.sample)
    appliances: tuple[str, ...] = ()
