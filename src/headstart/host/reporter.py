"""What the server is told of what this host did: snapshots, runs, minutes. Each once, in order, however late.

What is told is noted in the state once the server has it. So after any failure the same is told again, and the server
knows it by its number.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar

from headstart import errors
from headstart.host import log
from headstart.host.house import House
from headstart.host.remote import Remote
from headstart.state.outbox import Outbox, Told
from headstart.state.series import Minute
from headstart.state.values import Run

_log = logging.getLogger("headstart.host")

#: Of one request.
RUNS, SNAPSHOTS, MINUTES = 100, 200, 3000
#: Characters of a report; of a longer one the lists are left out.
_LONGEST = 64 * 1024
_LONGEST_TEXT = 2000
T = TypeVar("T")


class Reporter:
    """Used by one thread."""

    def __init__(self, house: House) -> None:
        self._house = house
        self._outbox = Outbox(house.journal)

    def step(self, remote: Remote, refused: Collection[str]) -> bool:
        """One request of each kind, where there is something; whether there is more. ``refused``: VMs of which the
        server takes nothing in. Raises what the server answers with."""
        told = self._outbox.told(remote.membership.host)
        snapshots = self._snapshots(remote, told)
        runs = self._runs(remote, self._outbox.told(remote.membership.host))
        minutes = self._minutes(remote, self._outbox.told(remote.membership.host), refused)
        return snapshots or runs or minutes

    def _snapshots(self, remote: Remote, told: Told) -> bool:
        found, after = self._outbox.publications(told, SNAPSHOTS)
        if found:
            _send([_placed(each, remote) for each in found], remote.snapshots)
            self._outbox.put_told(after)
        return len(found) == SNAPSHOTS

    def _runs(self, remote: Remote, told: Told) -> bool:
        found, after = self._outbox.runs(told, RUNS)
        if found:
            _send([_slim(each) for each in found], remote.runs)
        if after != told:
            self._outbox.put_told(after)
        return len(found) == RUNS

    def _minutes(self, remote: Remote, told: Told, refused: Collection[str]) -> bool:
        room, found = MINUTES, dict[str, Sequence[Minute]]()
        now = int(self._house.clock())
        for vm in self._house.journal.vms():
            if vm.name in refused or room <= 0:
                continue
            # A clock that was put back must not keep what comes from being told.
            since = min(told.minutes.get(vm.name, 0), now)
            if minutes := self._outbox.minutes(vm.name, since, room):
                found[vm.name] = minutes
                room -= len(minutes)
        if not found:
            return False
        try:
            remote.figures(found)
        except errors.Usage as error:
            if type(error) is not errors.Usage:
                raise
            _log.warning("%s", log.line(event="untold", reason=str(error)))
        newest = {vm: minutes[-1].moment for vm, minutes in found.items()}
        known = {vm.name for vm in self._house.journal.vms()}
        kept = {vm: moment for vm, moment in told.minutes.items() if vm in known}
        self._outbox.put_told(replace(told, minutes={**kept, **newest}))
        return room <= 0


def _send(found: Sequence[T], send: Callable[[Sequence[T]], None]) -> None:
    """One that the server does not understand must not keep it from the others."""
    try:
        send(found)
    except errors.Usage as error:
        if type(error) is not errors.Usage:
            raise
        if len(found) == 1:
            _log.warning("%s", log.line(event="untold", reason=str(error)))
            return
        for each in found:
            _send([each], send)


def _placed(facts: Mapping[str, Any], remote: Remote) -> dict[str, Any]:
    """Without a place where it is in the repository that is ours at the server."""
    ours = facts.get("place") == remote.membership.address
    return {name: value for name, value in facts.items() if name != "place" or not ours}


def _slim(run: Run) -> Run:
    if len(json.dumps(run.report)) <= _LONGEST:
        return run
    report = {name: value[:_LONGEST_TEXT] if isinstance(value, str) else value for name, value in run.report.items()}
    plain = {name: value for name, value in report.items() if not isinstance(value, list | dict)}
    with_disks = {**plain, "disks": report["disks"]} if "disks" in report else plain
    return replace(run, report=with_disks if len(json.dumps(with_disks)) <= _LONGEST else plain)
