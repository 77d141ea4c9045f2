"""Whether anything that is kept may go when policies are changed. Without a policy everything is kept.

All VMs count, also those that nobody has heard of yet: there may be snapshots of them. So patterns are compared, not
the VMs that there are; where it cannot be told, something may go.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import Path

from headstart import errors
from headstart.host import config
from headstart.host.policy import Assignment, Config, Policy, Retention, is_pattern, policy_of

#: By name; one that this version cannot read is not in it, and forgets nothing.
Known = Mapping[str, Policy]
#: By pattern, the name of the policy; the empty one is what nothing names.
Assigned = Mapping[str, str | None]


def keeps_less(new: Policy | None, old: Policy | None) -> bool:
    """Whether anything may go that was kept before. Without a policy, or one that this version can read, and without
    any rule, all is kept."""
    if new is None or not new.retention.rules:
        return False
    if old is None or not old.retention.rules:
        return True
    mine, its = new.retention, old.retention
    if any(getattr(mine, each.name) < getattr(its, each.name) for each in fields(Retention)):
        return True
    # Which snapshot is the newest of its day depends on when that day ends.
    by_calendar = replace(its, keep_last=0, keep_within=0.0).rules
    return bool(by_calendar) and str(new.schedule.zone) != str(old.schedule.zone)


def whole_of(known: Known, assigned: Assigned) -> Config:
    """As hosts understand it."""
    named = {pattern: name for pattern, name in assigned.items() if pattern}
    default = assigned.get("", config.DEFAULT_POLICY if config.DEFAULT_POLICY in known else None)
    found = tuple(Assignment(pattern, name, "the server") for pattern, name in named.items())
    return Config(Path(), (), policies=known, assignments=found, default=default)


def loses_assigned(known: Known, assigned: Assigned, pattern: str, name: str | None) -> bool:
    return _loses(whole_of(known, assigned), whole_of(known, {**assigned, pattern: name}), pattern)


def loses_unassigned(known: Known, assigned: Assigned, pattern: str) -> bool:
    if pattern not in assigned:
        return False
    before = whole_of(known, assigned)
    after = whole_of(known, {each: name for each, name in assigned.items() if each != pattern})
    # VMs that two patterns match have no policy. Without the one, they have that of the other.
    others = [each for each in after.assignments if is_pattern(pattern) and _may_meet(pattern, each.pattern)]
    freed = any(keeps_less(_named(known, each.policy), None) for each in others)
    return freed or _loses(before, after, pattern)


def _loses(before: Config, after: Config, pattern: str) -> bool:
    """``pattern``: what is assigned otherwise in the one than in the other."""
    if pattern and keeps_less(_policy_of(after, pattern), _policy_of(before, pattern)):
        return True  # the VM of just that name
    alone = is_pattern(pattern) or not pattern
    return alone and keeps_less(_matched_by(after, pattern), _matched_by(before, pattern))


def _policy_of(whole: Config, vm: str) -> Policy | None:
    """By which its snapshots are forgotten."""
    try:
        return policy_of(whole, vm)
    except (errors.Usage, KeyError):
        return None


def _matched_by(whole: Config, pattern: str) -> Policy | None:
    """Of VMs that nothing else matches."""
    name = next((each.policy for each in whole.assignments if each.pattern == pattern), whole.default)
    return _named(whole.policies, name)


def _named(known: Known, name: str | None) -> Policy | None:
    return None if name is None else known.get(name)


def _may_meet(one: str, other: str) -> bool:
    """Whether there may be a name that both of two patterns match."""
    if not is_pattern(other):
        return False
    begins, its = (re.split(r"[*?[]", each, maxsplit=1)[0] for each in (one, other))
    return begins.startswith(its) or its.startswith(begins)
