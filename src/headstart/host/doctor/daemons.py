"""Who makes backups on this host: our daemon, and others like it."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from headstart.host import control, daemon
from headstart.host.doctor.finding import Finding, Level
from headstart.host.doctor.subject import Subject
from headstart.host.policy import Config
from headstart.state import holder
from headstart.state.holder import Holder

_PROGRAMS = frozenset({"headstart", "headstart.cli.main"})


def serving(subject: Subject) -> Iterator[Finding]:
    check, found = "daemon", _noted(subject.state)
    if found.stopped:
        said = f"the daemon ({found.process}) is stopped by a signal: no backup is made"
        yield Finding(check, Level.PROBLEM, said, f"kill -CONT {found.pid}")
        return
    try:
        vms = control.ask(subject.state, {"do": "status"})["vms"]
    except (control.Absent, FileNotFoundError):
        if isinstance(subject.config, Config) and subject.config.policies:
            said = f"no daemon serves {subject.state}: nobody makes the backups that are scheduled"
            yield Finding(
                check, Level.WARNING, said, "Start it: 'systemctl enable --now headstart', or 'headstart run'."
            )
    else:
        yield Finding(check, Level.OK, f"{found.process} protects {len(vms)} VMs{found.told.rstrip('.')}")
        for name, told in vms.items():
            if told["state"] in ("failed", "hangs", "unreachable", "paused"):
                level = Level.NOTE if told["state"] == "paused" else Level.WARNING
                yield Finding(check, level, f"it says of {name}: {told['state']}: {told['reason']}")


def others(subject: Subject) -> Iterator[Finding]:
    ours = _noted(subject.state).pid
    for pid, words in sorted(_commands()):
        if pid not in (ours, os.getpid()) and is_daemon(words):
            said = f"process {pid} is a daemon of Headstart's that serves another state: {' '.join(words)}"
            advice = "If it is for the same VMs, they are backed up twice: stop one of the two."
            yield Finding("other tools", Level.NOTE, said, advice)


def is_daemon(words: Sequence[str]) -> bool:
    """Whether a command line is that of ``headstart run``, and not of what only started one (``timeout``, ``sudo``)."""
    names = [Path(word).name for word in words]
    place = next((number for number, name in enumerate(names) if name in _PROGRAMS), None)
    if place is None or "run" not in words[place + 1 :]:
        return False
    return place == 0 or (names[0].startswith("python") and all(word.startswith("-") for word in words[1:place]))


def _noted(state: Path) -> Holder:
    try:
        return holder.parse((state / daemon.LOCK).read_text())
    except OSError:
        return Holder(0)


def _commands() -> Iterator[tuple[int, list[str]]]:
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                raw = (entry / "cmdline").read_bytes()
            except OSError:
                continue
            yield int(entry.name), [word.decode(errors="replace") for word in raw.rstrip(b"\0").split(b"\0")]
