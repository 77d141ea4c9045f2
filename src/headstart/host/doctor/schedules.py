"""Whether what the policies ask for fits together: in time, and with the VMs that there are."""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from headstart import errors, units
from headstart.host import calendar, policy
from headstart.host.doctor.finding import Finding, Level, of_error
from headstart.host.doctor.subject import Subject
from headstart.host.policy import Config, Policy
from headstart.state.journal import Journal
from headstart.state.runs import Runs

#: How far ahead schedules are looked at, and how many moments of one VM.
_AHEAD = timedelta(days=7)
_MOMENTS = 96
#: Of a VM that has had no backup yet.
ASSUMED_SECONDS = 60.0
_RUNS = 20


@dataclass(frozen=True, slots=True)
class Jam:
    """``vms`` want a backup while all slots are taken; the last of them waits for ``seconds``."""

    at: float
    vms: tuple[str, ...]
    seconds: float


def configuration(subject: Subject) -> Iterator[Finding]:
    check, found = "configuration", subject.config
    if found is None:
        advice = "'headstart run' needs one; docs/policies.md. Without it backups are made by hand."
        yield Finding(check, Level.NOTE, f"there is none at {subject.config_file}", advice)
    elif isinstance(found, errors.HeadstartError):
        yield from _mistakes(check, found)
    else:
        for each in found.warnings:
            yield Finding(check, Level.WARNING, each)
        count = len(found.policies)
        said = f"{found.file}, {count} {'policy' if count == 1 else 'policies'}, no mistakes"
        yield Finding(check, Level.OK, said)


def _mistakes(check: str, error: errors.HeadstartError) -> Iterator[Finding]:
    listed = error.facts.get("mistakes")
    if not isinstance(listed, list):
        yield of_error(check, error)
        return
    for each in listed:
        said = f"{each['file']}:{each['line']}: {each['key']}: {each['message']}"
        yield Finding(check, Level.PROBLEM, said, "Correct it; 'headstart config check' tells when it is.")


def assignments(subject: Subject) -> Iterator[Finding]:
    """Which VM has which policy, and which has none, or two."""
    check, config = "policies", subject.config
    if not isinstance(config, Config):
        return
    names = [vm.name for vm in subject.vms()]
    for name in names:
        try:
            found, entry = policy.policy_of(config, name), policy.assignment_of(config, name)
        except errors.Usage as error:
            yield of_error(check, error)
            continue
        if found is None and entry is None:
            advice = f'Name it in {config.file}: [vm.{name}] with a policy, or with policy = "none".'
            yield Finding(check, Level.WARNING, f"{name} has no policy, and is not backed up by itself", advice)
    for each in config.assignments:
        if not policy.is_pattern(each.pattern) and each.pattern not in names:
            advice = "'headstart vm list' shows those that are; add it, or take the entry out."
            yield Finding(check, Level.WARNING, f"{each.place} names a VM that is not there: {each.pattern}", advice)


def conflicts(subject: Subject) -> Iterator[Finding]:
    check, config = "schedules", subject.config
    if not isinstance(config, Config) or not subject.there:
        return
    with subject.journal() as journal:
        protected = dict(_protected(config, journal))
        lengths = {name: _length(journal, name) for name in protected}
    now = datetime.fromtimestamp(subject.clock(), UTC)
    for name, each in protected.items():
        yield from _too_short(check, name, each, lengths[name], now)
    moments = {name: _moments(each, name, now) for name, each in protected.items()}
    taken = {name: length or ASSUMED_SECONDS for name, length in lengths.items()}
    found = jams(_fair(moments, now), taken, config.host.backups)
    if found:
        yield _jam(check, max(found, key=lambda jam: jam.seconds), len(found), config.host.backups)
    elif protected:
        soonest = min((each[0] for each in moments.values() if each), default=None)
        when = "" if soonest is None else f"; the next backup is due {datetime.fromtimestamp(soonest):%Y-%m-%d %H:%M}"
        yield Finding(check, Level.OK, f"nobody waits for another one in the next 7 days{when}")


def _protected(config: Config, journal: Journal) -> Iterator[tuple[str, Policy]]:
    for vm in journal.vms():
        try:
            found = policy.policy_of(config, vm.name)
        except errors.Usage:
            continue
        if found is not None:
            yield vm.name, found


def _length(journal: Journal, vm: str) -> float | None:
    """Seconds of the longest of the last backups; None: there was none."""
    found = [
        run.report["seconds"]
        for run in Runs(journal).newest(vm, _RUNS)
        if run.verb == "backup" and isinstance(run.report.get("seconds"), int | float)
    ]
    return max(found, default=None)


def _too_short(check: str, name: str, each: Policy, length: float | None, now: datetime) -> Iterator[Finding]:
    shortest, _ = calendar.gaps(each.schedule, now)
    if length is not None and length > shortest:
        said = (
            f"a backup of {name} takes {units.format_seconds(length)}, and policy {each.name} wants one every"
            f" {units.format_seconds(shortest)}"
        )
        yield Finding(
            check, Level.PROBLEM, said, "Back up less often, or see why it takes so long ('headstart history')."
        )


def _moments(each: Policy, name: str, now: datetime) -> list[float]:
    found: list[float] = []
    moment = calendar.following(each.schedule, now)
    while moment is not None and moment < now + _AHEAD and len(found) < _MOMENTS:
        seconds = moment.timestamp()
        found.append(seconds + calendar.delay(each.schedule, name, seconds))
        moment = calendar.following(each.schedule, moment)
    return found


def _fair(moments: Mapping[str, Sequence[float]], now: datetime) -> dict[str, list[float]]:
    """As far ahead as all of them were looked at."""
    cut = [each[-1] for each in moments.values() if len(each) == _MOMENTS]
    until = min(cut, default=(now + _AHEAD).timestamp())
    return {name: [moment for moment in each if moment <= until] for name, each in moments.items()}


def jams(moments: Mapping[str, Sequence[float]], lengths: Mapping[str, float], slots: int) -> list[Jam]:
    """Play the backups through ``slots``: first come, first served. ``moments`` when each is due, seconds since 1970;
    ``lengths`` in seconds. Those that wait without a pause between them are one jam."""
    due = sorted((moment, name) for name, each in moments.items() for moment in each)
    free = [0.0] * max(1, slots)
    found: list[Jam] = []
    for moment, name in due:
        begin = max(moment, heapq.heappop(free))
        heapq.heappush(free, begin + lengths[name])
        if begin <= moment:
            continue
        if found and moment <= found[-1].at + found[-1].seconds:
            last = found.pop()
            names = last.vms if name in last.vms else (*last.vms, name)
            found.append(Jam(last.at, names, max(last.seconds, begin - moment)))
        else:
            found.append(Jam(moment, (name,), begin - moment))
    return found


def _jam(check: str, worst: Jam, count: int, slots: int) -> Finding:
    shown = ", ".join(worst.vms[:5]) + (", ..." if len(worst.vms) > 5 else "")
    said = (
        f"{shown} cannot begin when due on {datetime.fromtimestamp(worst.at):%Y-%m-%d %H:%M}: {slots} at a time are"
        f" completed, and the last of them waits for {units.format_seconds(worst.seconds)}"
        + (f" ({count} times in the next 7 days)" if count > 1 else "")
    )
    advice = "Spread them with random_delay in the schedule, or raise 'backups' in [host]."
    return Finding(check, Level.WARNING, said, advice)
