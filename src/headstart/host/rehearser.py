"""Rehearsals by schedule: the newest snapshot of a VM is started apart from everything, and what it shows is noted.

On a thread of its own, one after the other: each is a whole VM beside those of this host.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Mapping
from dataclasses import asdict, replace

from headstart import errors
from headstart.host import calendar, log
from headstart.host.house import House
from headstart.host.policy import Policy, Rehearsal
from headstart.repository import lease, proof, snapshot
from headstart.repository.manifest import Manifest
from headstart.repository.proof import Proof
from headstart.repository.repo import Repository
from headstart.restore.rehearsing import rehearsal
from headstart.restore.rehearsing.rehearsal import Order
from headstart.restore.serving.serving import Source
from headstart.state.noted import Noted

_log = logging.getLogger("headstart.host")

LOOK_SECONDS = 60.0
#: What could not be rehearsed, for no fault of the snapshot's, is tried again after so long.
AGAIN_SECONDS = 3600.0


class Rehearser:
    """``start`` it, and ``stop`` it. ``renew`` tells the policies of the VMs; these two are for any thread."""

    def __init__(self, house: House) -> None:
        self._house = house
        self._policies: Mapping[str, Policy] = {}
        #: When each was rehearsed last, also by a process before this one.
        self._noted = Noted(house.journal)
        #: By VM, before when not to try again (monotonic).
        self._again: dict[str, float] = {}
        self._one = threading.Lock()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="rehearser", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """A VM that is being rehearsed ends with this process, and its rehearsal is repeated."""
        self._stop.set()

    def renew(self, policies: Mapping[str, Policy]) -> None:
        self._policies = {vm: policy for vm, policy in policies.items() if policy.rehearsal is not None}

    def rehearse(self, snapshot_id: str) -> Proof:
        """Now, and noted with the snapshot; waits while another one is rehearsed. For any thread. Raises what opening
        the repository and ``rehearsal.rehearse`` do."""
        with self._house.vault.another() as repo:
            manifest = snapshot.load(repo, snapshot_id)
            policy = self._policies.get(manifest.vm)
            return self._rehearse(repo, manifest, Order() if policy is None else _wanted(policy).order)

    def _run(self) -> None:
        rehearsal.clear(self._house.scratch)
        while not self._stop.wait(LOOK_SECONDS):
            for vm, policy in self._policies.items():
                if policy.rehearsal is not None and not self._stop.is_set():
                    self._look(vm, policy.rehearsal)

    def _look(self, vm: str, wanted: Rehearsal) -> None:
        """Rehearse it if that is due."""
        if time.monotonic() < self._again.get(vm, 0.0):
            return
        try:
            point = self._house.journal.point(vm)
            if point is None or not self._is_due(vm, wanted):
                return
            with self._house.vault.another() as repo:
                # Not the latest of this name: that may be anybody's, and has a definition that is started here.
                self._rehearse(repo, snapshot.load(repo, point.snapshot), wanted.order)
            self._noted.put_rehearsed(vm, self._house.clock())
        except errors.HeadstartError as error:
            self._again[vm] = time.monotonic() + AGAIN_SECONDS
            log.warning(vm, event="rehearse", reason=str(error))
        except Exception as error:
            self._again[vm] = time.monotonic() + AGAIN_SECONDS
            _log.error("A bug: it is tried again.", exc_info=error)

    def _is_due(self, vm: str, wanted: Rehearsal) -> bool:
        now, last = self._house.clock(), self._noted.rehearsed(vm)
        if not last:
            with self._house.vault.another() as repo:
                # One that never was waits for the next moment: the whole host would be rehearsed at once.
                last = _last_of(repo, vm, now) or now
            self._noted.put_rehearsed(vm, last)
        return calendar.due(wanted.schedule, vm, last, now).at <= now

    def _rehearse(self, repo: Repository, manifest: Manifest, wanted: Order) -> Proof:
        source = Source(repo, self._house.vault.address, manifest, self._house.vault.cache)
        with self._one, lease.reading_snapshot(repo, "rehearse", manifest):
            shown = rehearsal.rehearse(source, self._order(manifest.vm, wanted), self._house.scratch, self._house.clock)
        proof.record(repo, manifest.id, shown.proof, shown.evidence)
        self._house.journal.rehearsed(manifest.vm, manifest.id, asdict(shown.proof))  # the server is told
        passed, reason, notes = shown.proof.passed, shown.proof.reason or None, "; ".join(shown.notes) or None
        log_it = log.decision if passed else log.warning
        seconds = log.seconds(shown.proof.seconds)
        log_it(
            manifest.vm,
            event="rehearsed" if passed else "not-proven",
            snapshot=manifest.id,
            seconds=seconds,
            reason=reason,
            notes=notes,
        )
        return shown.proof

    def _order(self, vm: str, wanted: Order) -> Order:
        """A domain is started where it is at home."""
        domain = next((each.domain for each in self._house.journal.vms() if each.name == vm), None)
        return wanted if domain is None else replace(wanted, libvirt=domain.uri)


def _wanted(policy: Policy) -> Rehearsal:
    assert policy.rehearsal is not None
    return policy.rehearsal


def _last_of(repo: Repository, vm: str, now: float) -> float | None:
    """When any snapshot of the VM was rehearsed last, by anybody. A clock may have been ahead."""
    ids = [each.id for each in snapshot.all_manifests(repo).manifests if each.vm == vm]
    proofs = (each for snapshot_id in ids for found in proof.all_proofs(repo, snapshot_id).values() for each in found)
    return max((min(each.time, now) for each in proofs), default=None)
