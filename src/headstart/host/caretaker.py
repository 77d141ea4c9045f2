"""What keeps the repository from growing for ever: snapshots are forgotten by the rules of their VMs' policies, and
garbage is collected.

::

    a VM with rules has a new snapshot  ->  forget
    a day since the last one            ->  gc

On a thread of its own, beside everything else. Where no policy has rules nothing is deleted: then this host needs no
right to; nor where a server of ours has the repository, which does all this itself.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Mapping

from headstart import errors, units
from headstart.host import log
from headstart.host.house import House
from headstart.host.policy import Policy
from headstart.repository import collect, forget, lease
from headstart.repository.repo import Repository

_log = logging.getLogger("headstart.host")

#: Seconds between two looks for new snapshots; what failed is tried again after so long.
LOOK_SECONDS = 60.0
AGAIN_SECONDS = 900.0
#: From one collection to the next, and from the start to the first: what is due at a start comes first.
COLLECT_SECONDS = 24 * 3600.0
FIRST_SECONDS = 1800.0


class Caretaker:
    """``start`` it, and ``stop`` it. ``renew`` tells the policies of the VMs; these two are for any thread."""

    def __init__(self, house: House) -> None:
        self._house = house
        self._policies: Mapping[str, Policy] = {}
        #: By VM, the snapshot after which was forgotten last, and under which policy.
        self._done: dict[str, tuple[str, Policy]] = {}
        self._collected = time.monotonic() + FIRST_SECONDS - COLLECT_SECONDS
        #: What was due could not be done when that was tried last.
        self.failing = False
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="caretaker", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """What is under way is left to its end, or to that of the process: it is repeated."""
        self._stop.set()

    def renew(self, policies: Mapping[str, Policy]) -> None:
        found = {} if self._house.vault.is_at_server else policies
        self._policies = {vm: policy for vm, policy in found.items() if policy.retention.rules}

    def _run(self) -> None:
        while not self._stop.wait(self._turn()):
            pass

    def _turn(self) -> float:
        """Everything that is to be done; returns how long to rest."""
        try:
            self._look()
        except lease.Held as error:  # somebody else does the same work
            _log.info("%s", error)
            return AGAIN_SECONDS
        except errors.HeadstartError as error:
            _log.warning("Nothing could be forgotten or collected, it is tried again: %s", error)
            self.failing = True
            return AGAIN_SECONDS
        except Exception as error:
            _log.error("A bug: it is tried again.", exc_info=error)
            self.failing = True
            return AGAIN_SECONDS
        self.failing = False
        return LOOK_SECONDS

    def _look(self) -> None:
        due = self._due()
        collects = bool(self._policies) and time.monotonic() - self._collected >= COLLECT_SECONDS
        if not due and not collects:
            return
        # Not that of the wards: what they do not find any longer, they must find missing themselves.
        with self._house.vault.another() as repo:
            for vm, snapshot_id in due.items():
                self._forget(repo, vm, snapshot_id)
            if collects:
                _collect(repo)
                self._collected = time.monotonic()

    def _due(self) -> dict[str, str]:
        """VMs whose newest snapshot is another one than at the last look."""
        found: dict[str, str] = {}
        for vm, policy in self._policies.items():
            point = self._house.journal.point(vm)
            if point is not None and self._done.get(vm) != (point.snapshot, policy):
                found[vm] = point.snapshot
        return found

    def _forget(self, repo: Repository, vm: str, snapshot_id: str) -> None:
        policy = self._policies.get(vm)
        if policy is None:
            return
        rules, zone = policy.retention.rules, policy.schedule.zone
        done = forget.forget(repo, forget.Order(self._house.clock(), zone, rules, vms=[vm]))
        self._done[vm] = (snapshot_id, policy)
        if done.forgotten:
            log.decision(vm, event="forgot", snapshots=len(done.forgotten), kept=len(done.kept))
        for error in done.damaged:
            log.warning(vm, event="forget", reason=str(error))


def _collect(repo: Repository) -> None:
    begun = time.monotonic()
    done = collect.collect(repo, collect.Order())
    told = log.line(
        event="collected",
        freed=units.format_bytes(done.freed_bytes),
        condemned=units.format_bytes(done.condemned_bytes),
        repacked=units.format_bytes(done.repacked_bytes),
        seconds=log.seconds(time.monotonic() - begun),
    )
    _log.info("%s", told)
