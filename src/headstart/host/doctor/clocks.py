"""The host's clock: schedules and points in time go by it."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterator

from headstart import units
from headstart.host.doctor.finding import Finding, Level
from headstart.host.doctor.subject import Subject
from headstart.state.runs import Runs

#: Clocks are corrected by seconds all the time.
SLACK_SECONDS = 60.0
#: Flag of ``status``: nobody keeps the clock in step (adjtimex(2), STA_UNSYNC).
_UNSYNCHRONISED = 0x0040
#: ``struct timex`` has 208 bytes on 64-bit Linux; ``status`` is after ``modes`` and four longs.
_TIMEX, _STATUS = 208, 40


def clock(subject: Subject) -> Iterator[Finding]:
    check, now = "clock", subject.clock()
    newest = _newest(subject)
    if newest is not None and newest[0] > now + SLACK_SECONDS:
        ahead = units.format_seconds(newest[0] - now)
        said = f"the clock is {ahead} behind {newest[1]}: it was set back, or was wrong then"
        advice = "See which of the two is right (timedatectl). What was made ahead of time counts for the schedule."
        yield Finding(check, Level.WARNING, said, advice)
    synchronised = kept_in_step()
    if synchronised:
        yield Finding(check, Level.OK, "the kernel's clock is kept in step")
    else:
        said = (
            "the kernel does not know of anybody who keeps its clock in step"
            if synchronised is False
            else ("whether the clock is kept in step cannot be told here")
        )
        advice = "Run chrony or systemd-timesyncd ('timedatectl', 'chronyc tracking'; chrony tells with rtcsync)."
        yield Finding(check, Level.WARNING if synchronised is False else Level.NOTE, said, advice)


def kept_in_step() -> bool | None:
    """None where the kernel does not tell."""
    timex = ctypes.create_string_buffer(_TIMEX)  # modes 0: nothing is set
    try:
        if ctypes.CDLL(None, use_errno=True).adjtimex(timex) < 0:
            return None
    except (AttributeError, OSError):
        return None
    status = int.from_bytes(timex.raw[_STATUS : _STATUS + 4], sys.byteorder)
    return not status & _UNSYNCHRONISED


def _newest(subject: Subject) -> tuple[float, str] | None:
    """The latest moment that the state knows, and of what."""
    found: list[tuple[float, str]] = []
    if subject.there:
        with subject.journal() as journal:
            for vm in journal.vms():
                if point := journal.point(vm.name):
                    found.append((point.created, f"the newest snapshot of {vm.name}"))
                found += [(run.begun, f"the last {run.verb} of {vm.name}") for run in Runs(journal).newest(vm.name, 1)]
    return max(found, default=None)
