"""``headstart config``: look at the configuration of ``headstart run``."""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from headstart import errors, units
from headstart.cli import arguments, password, settings
from headstart.cli.session import Session
from headstart.host import calendar, policy
from headstart.host.policy import Config, Host, Policy
from headstart.state.journal import Journal

VARIABLE = "HEADSTART_CONFIG"
#: Moments of a schedule that are told.
_NEXT = 3


def add(verbs: arguments.Verbs) -> None:
    group = arguments.add_group(verbs, "config", "Look at the configuration of this host.")
    checking = arguments.add_verb(group, "check", run_check, "Tell every mistake, or what the configuration means.")
    add_option(checking)


def add_option(parser: arguments.Parser) -> None:
    parser.add_argument(
        "--config", metavar="FILE", type=Path, help="the configuration (default: /etc/headstart/headstart.toml)"
    )


def load(given: argparse.Namespace, environment: Mapping[str, str], now: datetime, *, written: bool = False) -> Config:
    """Of this host alone, without what a server says; a host that has joined one need have none. Raises ``Usage`` with
    all mistakes, ``written`` as for ``config.load``."""
    # Not at the top: pydantic and its models take as long to load as everything else.
    from headstart.host import config, source

    file = named(given, environment)
    if given.config is None and not environment.get(VARIABLE) and not file.exists():
        joined = settings.settings(given, environment).joined
        if joined.exists() and not list((file.parent / source.FOLDER).glob("*.toml")):
            return Config(file, ())
    return config.load(file, now, written=written)


def whole(given: argparse.Namespace, environment: Mapping[str, str], now: datetime, *, written: bool = False) -> Config:
    """With what the server said last beneath it, as the daemon has it. Raises as ``load``."""
    from headstart.host import document

    found = load(given, environment, now, written=written)
    return document.beside(found, settings.settings(given, beneath(environment, found.host)).state, now)


def named(given: argparse.Namespace, environment: Mapping[str, str]) -> Path:
    """The file of the configuration."""
    from headstart.host import config

    found = given.config or environment.get(VARIABLE)
    return Path(found).absolute() if found else config.DEFAULT


def beneath(environment: Mapping[str, str], host: Host) -> dict[str, str]:
    """The environment with what it leaves open as the configuration says it."""
    said: dict[str, object] = {
        "HEADSTART_REPOSITORY": host.repository,
        "HEADSTART_STATE": host.state,
        "HEADSTART_SCRATCH": host.scratch,
        "HEADSTART_CACHE": host.cache,
    }
    if not any(environment.get(name) for name in (password.PASSWORD, password.FILE, password.COMMAND)):
        said |= {password.FILE: host.password_file, password.COMMAND: host.password_command}
    given = {name: value for name, value in environment.items() if value}
    return {name: str(value) for name, value in said.items() if value is not None} | given


def run_check(session: Session, given: argparse.Namespace) -> None:
    now = datetime.now(UTC)
    config = whole(given, os.environ, now, written=True)
    warnings = [
        *config.warnings,
        *(f"{each}: this host's own comes before the server's." for each in config.overridden),
        *([f"What the server said of policies cannot be used: {config.refused[1]}"] if config.refused[1] else []),
    ]
    names = _vms(settings.settings(given, beneath(os.environ, config.host)).state, warnings)
    vms = [_vm(config, name) for name in names or ()]
    _raise(vms)
    warnings += _unserved(config, vms, names)
    policies = [_policy(config, each, vms, now) for each in config.policies.values()]
    values = {
        "file": str(config.file),
        "files": [str(each) for each in config.files],
        "host": asdict(config.host),
        "policies": policies,
        "vms": vms,
        "warnings": warnings,
    }
    session.output.result(values, _text(config, policies, vms))
    for each in warnings:
        session.output.note(each)


def _vms(state: Path, warnings: list[str]) -> list[str] | None:
    """The names of those that were added; None: that is not known. Nothing is made here to find out."""
    try:
        if not (state / "state.sqlite3").exists():
            return None
        with Journal.open(state) as journal:
            return [vm.name for vm in journal.vms()]
    except (OSError, errors.Usage, errors.Unsupported) as error:
        warnings.append(f"Which VMs there are is not known: {error}")
        return None


def _vm(config: Config, name: str) -> dict[str, Any]:
    """``entry``: what names the VM, if something does. ``mistake`` takes the place of the policy."""
    try:
        found, entry = policy.policy_of(config, name), policy.assignment_of(config, name)
    except errors.Usage as error:
        return {"name": name, "mistake": str(error)}
    return {"name": name, "policy": found.name if found else None, "entry": entry.pattern if entry else None}


def _raise(vms: list[dict[str, Any]]) -> None:
    wrong = [vm for vm in vms if "mistake" in vm]
    if wrong:
        facts = [{"vm": vm["name"], "message": vm["mistake"]} for vm in wrong]
        raise errors.Usage("\n".join(vm["mistake"] for vm in wrong), mistakes=facts)


def _unserved(config: Config, vms: list[dict[str, Any]], names: list[str] | None) -> list[str]:
    told = [
        f"The VM {vm['name']} has no policy, and is not backed up."
        for vm in vms
        if vm["policy"] is None and vm["entry"] is None
    ]
    if names is not None:
        told += [
            f"There is no VM {each.pattern} ({each.place}). 'headstart vm list' shows those that are."
            for each in config.assignments
            if not policy.is_pattern(each.pattern) and each.pattern not in names
        ]
    return told


def _policy(config: Config, each: Policy, vms: list[dict[str, Any]], now: datetime) -> dict[str, Any]:
    return {
        "name": each.name,
        "schedule": {
            "calendar": each.schedule.calendar,
            "timezone": str(each.schedule.zone),
            "random_delay": each.schedule.random_delay,
            "missed": each.schedule.missed,
        },
        "next": [moment.timestamp() for moment in _moments(each, now)],
        "head_start": asdict(each.head_start)
        | {
            "transports": [one.value for one in each.head_start.transports],
            "after_false_audit": each.head_start.after_false_audit.value,
        },
        "load": asdict(each.load),
        "limits": [_window(window) for window in each.limits.windows],
        "limit_otherwise": each.limits.otherwise,
        "volumes": each.volumes,
        "retention": asdict(each.retention),
        "consistency": each.consistency.value,
        "audit": "all" if each.audit is None else each.audit,
        "hooks": [asdict(hook) for hook in each.hooks],
        "rehearsal": _rehearsal(each),
        "trim": each.trim,
        "patterns": [one.pattern for one in config.assignments if one.policy == each.name],
        "default": config.default == each.name,
        "vms": [vm["name"] for vm in vms if vm["policy"] == each.name],
    }


def _rehearsal(each: Policy) -> dict[str, Any] | None:
    if each.rehearsal is None:
        return None
    order = each.rehearsal.order
    return {
        "calendar": each.rehearsal.schedule.calendar,
        "wait_for": order.awaited.value if order.awaited else None,
        "pattern": order.pattern,
        "seconds": order.seconds,
        "checks": order.checks,
        "memory": order.memory,
    }


def _moments(each: Policy, now: datetime) -> list[datetime]:
    found: list[datetime] = []
    moment = calendar.following(each.schedule, now)
    while moment is not None and len(found) < _NEXT:
        found.append(moment)
        moment = calendar.following(each.schedule, moment)
    return found


def _window(window: policy.Window) -> dict[str, Any]:
    """Minutes of the day; 0 is Monday."""
    return {"rate": window.rate, "from": window.begin, "until": window.end, "days": sorted(window.days)}


def _text(config: Config, policies: list[dict[str, Any]], vms: list[dict[str, Any]]) -> str:
    more = len(config.files) - 1
    lines = [f"{config.file}{f' and {more} more in conf.d' if more else ''}: no mistakes."]
    for values in policies:
        rows = _rows(config.policies[values["name"]], values)
        lines += ["", values["name"], *(f"  {name:<11}  {value}" for name, value in rows)]
    excluded = [vm["name"] for vm in vms if vm["policy"] is None and vm["entry"] is not None]
    return "\n".join([*lines, *(["", f"Excluded: {', '.join(excluded)}"] if excluded else [])])


def _rows(each: Policy, values: dict[str, Any]) -> list[tuple[str, str]]:
    zone = each.schedule.zone
    moments = [datetime.fromtimestamp(seconds, zone) for seconds in values["next"]]
    users = [f'"{pattern}"' if policy.is_pattern(pattern) else pattern for pattern in values["patterns"]]
    users += ["all that nothing else names"] if values["default"] else []
    return [
        ("schedule", _schedule(each)),
        ("next", ", ".join(f"{moment:%a %Y-%m-%d %H:%M:%S %Z}" for moment in moments)),
        ("head start", _head_start(each)),
        ("consistency", each.consistency.value),
        ("rehearsal", ", ".join(each.rehearsal.schedule.calendar) if each.rehearsal else "none"),
        ("for", ", ".join(users) or "no VM"),
        ("VMs", ", ".join(values["vms"]) or "none"),
    ]


def _schedule(each: Policy) -> str:
    schedule = each.schedule
    told = f"{', '.join(schedule.calendar)} ({schedule.zone})"
    if schedule.random_delay:
        told += f", up to {units.format_seconds(schedule.random_delay)} later"
    return told + ("" if schedule.missed else ", not repeated when missed")


def _head_start(each: Policy) -> str:
    ahead = each.head_start
    if not ahead.transports:
        return "none"
    told = f"by {', else '.join(one.value for one in ahead.transports)}, every {units.format_seconds(ahead.interval)}"
    if ahead.begin_before is not None:
        told += f", from {units.format_seconds(ahead.begin_before)} before"
    return told
