"""Orders that QEMU carries out between a stop and a cont of ours."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from headstart import errors
from headstart.hypervisor.contract import NotTaken
from headstart.hypervisor.guard import Guard
from headstart.hypervisor.qemu import migration
from headstart.wire.qmp import Command, CommandFailed, Qmp


def carry_out(qmp: Qmp, guard: Guard, orders: Sequence[Command]) -> float:
    """All orders while the VM stands still; returns for how many seconds it did, which is 0 where its owner had
    stopped it before. They go out in one batch, so that nothing of ours stands between stop and cont.

    Raises ``Migrating``; ``PointLost`` if one failed; ``NotTaken`` if the VM ran again before the last one was carried
    out."""
    migration.require_still(qmp)
    asked = [*orders, ("query-status", {})]
    pause = 0.0
    if qmp.execute("query-status")["running"]:
        mark = qmp.mark
        with guard.pausing():
            *outcomes, continued = qmp.batch([("stop", {}), *asked, ("cont", {})])[1:]
            if isinstance(continued, CommandFailed):
                raise errors.PointLost(f"The VM could not be continued: {continued}") from continued
        pause = _pause(qmp.events_since(mark))
    else:
        outcomes = qmp.batch(asked)
    for outcome in outcomes:
        if isinstance(outcome, CommandFailed):
            raise errors.PointLost(f"The filters could not be inserted: {outcome}") from outcome
    if outcomes[-1]["running"]:
        # Also by the guard, when the host is so busy that the orders did not come out together.
        raise NotTaken("The VM was continued while its disks were being frozen: the host is very busy.")
    return pause


def _pause(events: list[Mapping[str, Any]]) -> float:
    """Seconds between QEMU's own STOP and RESUME."""
    times = {
        event["event"]: event["timestamp"]["seconds"] + event["timestamp"]["microseconds"] / 1e6
        for event in events
        if event["event"] in ("STOP", "RESUME")
    }
    return max(0.0, times.get("RESUME", 0.0) - times.get("STOP", 0.0)) if len(times) == 2 else 0.0
