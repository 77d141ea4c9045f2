"""The configuration of a host: its files are read, checked and put together. Every mistake is found before any is told.

Files are checked one by one, as each mistake has its line there, and then against each other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from headstart.backup.transport import Transport
from headstart.host import contradictions, keys, locate, mistakes, notation, source, tables, validation
from headstart.host.mistakes import Mistake
from headstart.host.policy import Assignment, Config, Host, Policy
from headstart.host.source import Found, Source

DEFAULT = Path("/etc/headstart/headstart.toml")
#: The policy of VMs that nothing names, if there is no table [default].
DEFAULT_POLICY = "default"
_KNOWN = ("host", "policy", "vm", "default")
#: The tables of which each key is of its own, and may stand in another file than the others.
_BY_KEY = ("host", "default")


def load(file: Path, now: datetime, *, written: bool = False) -> Config:
    """Raises ``Usage`` with all mistakes. ``now`` (aware) tells whether a schedule ever comes again. ``written``: by
    somebody who is at it; else what time alone can make a contradiction is a warning."""
    return _Reading(file, source.read(file), now, written=written).config()


def read(file: Path, text: str, now: datetime, known: Iterable[str]) -> Config:
    """What somebody else says, by a text that is, or will be, in ``file``. It has the tables ``known`` only, and names
    transports that this host may lack. Raises as ``load``."""
    found = Found([file])
    source.parse(found, file, text)
    return _Reading(file, found, now, tuple(known), own=False).config()


class _Reading:
    def __init__(
        self,
        file: Path,
        found: Found,
        now: datetime,
        known: Sequence[str] = _KNOWN,
        *,
        own: bool = True,
        written: bool = False,
    ) -> None:
        self._file = file
        self._now = now
        self._written = written
        self._found = found
        self._tables = known
        self._own = own
        self._mistakes = self._found.mistakes
        #: Where each policy, VM and key of the host was met first.
        self._seen: dict[locate.Path, Source] = {}
        self._policies: dict[str, Policy] = {}
        self._host: dict[str, Any] = {}
        self._assigned: dict[locate.Path, tuple[Source, str]] = {}

    def config(self) -> Config:
        for each in self._found.sources:
            self._read(each)
        for path, (where, name) in self._assigned.items():
            self._check_name(where, (*path, "policy"), name)
        host = self._whole_host()
        if self._own:
            self._check_appliances(host)
        if self._mistakes:
            raise mistakes.error(sorted(self._mistakes, key=self._order))
        return Config(
            self._file,
            tuple(self._found.files),
            host,
            self._policies,
            tuple(self._assignments()),
            self._default(),
            tuple(self._found.warnings),
            ("default",) in self._assigned or DEFAULT_POLICY in self._policies,
        )

    def _read(self, file: Source) -> None:
        for name, value in file.tables.items():
            if name not in self._tables:
                self._wrong(file, (name,), validation.unknown(name, list(self._tables)))
            elif not isinstance(value, dict):
                self._wrong(file, (name,), f"must be a table, not {notation.shown(value)}")
            elif name in _BY_KEY:
                self._keys(file, name, value)
            else:
                self._named(file, name, value)

    def _keys(self, file: Source, name: str, value: Mapping[str, Any]) -> None:
        for key in value:
            self._once(file, (name, key))
        if name == "host":
            host = self._valid(file, (name,), tables.HostTable, value)
            self._host |= {key: getattr(host, key) for key in host.model_fields_set} if host else {}
        elif found := self._valid(file, (name,), tables.AssignmentTable, value):
            self._assigned.setdefault((name,), (file, found.policy))

    def _named(self, file: Source, name: str, value: Mapping[str, Any]) -> None:
        read: Callable[[Source, str, object], None] = self._policy if name == "policy" else self._vm
        for each, table in value.items():
            self._once(file, (name, each))
            read(file, each, table)

    def _policy(self, file: Source, name: str, value: object) -> None:
        path = ("policy", name)
        if not tables.NAME.fullmatch(name) or name == keys.NONE:
            self._wrong(
                file,
                path,
                "cannot be the name of a policy: it takes letters, digits, '.', '_' and '-', 64 at most, begins with a "
                f'letter or a digit, and is not "{keys.NONE}"',
            )
        # Also one with mistakes is there, for those that refer to it.
        self._seen.setdefault(path, file)
        table, wrong = validation.validate(tables.PolicyTable, value)
        for each in wrong:
            self._wrong(file, (*path, *each.path), each.message)
        for inside, message in contradictions.find_beside(wrong, table, value, self._now, written=self._written):
            self._wrong(file, (*path, *inside), message)
        if table is not None:
            self._found.warnings += [
                str(file.mistake((*path, *inside), message))
                for inside, message in contradictions.passed(table, self._now, written=self._written)
            ]
            self._policies.setdefault(name, table.value(name))

    def _vm(self, file: Source, name: str, value: object) -> None:
        if not name:
            self._wrong(file, ("vm", name), "must be the name of a VM, or a pattern")
        if found := self._valid(file, ("vm", name), tables.AssignmentTable, value):
            self._assigned.setdefault(("vm", name), (file, found.policy))

    def _once(self, file: Source, path: locate.Path) -> None:
        first = self._seen.setdefault(path, file)
        if first is not file:
            self._wrong(file, path, f"stands in {first.place(path)} already: once is allowed, over all files")

    def _valid(self, file: Source, path: locate.Path, table: type[validation.T], value: object) -> validation.T | None:
        found, wrong = validation.validate(table, value)
        for each in wrong:
            self._wrong(file, (*path, *each.path), each.message)
        return found

    def _check_name(self, file: Source, path: locate.Path, name: str) -> None:
        known = [str(each[1]) for each in self._seen if each[0] == "policy"]
        if name in known or name == keys.NONE:
            return
        allowed = ", ".join([*known, keys.NONE])
        hint = notation.nearest(name, known)
        self._wrong(file, path, f'there is no policy "{name}"{hint or ". There are: " + allowed}')

    def _whole_host(self) -> Host:
        if "password_file" in self._host and "password_command" in self._host:
            path = ("host", "password_command")
            self._wrong(self._seen[path], path, "and password_file are two ways to the same password: leave one out")
        return Host(**self._host)

    def _check_appliances(self, host: Host) -> None:
        for name, policy in self._policies.items():
            if Transport.APPLIANCE in policy.head_start.transports and not host.appliances:
                path = ("policy", name)
                message = 'head_start.transports names "appliance", and no appliances stand in [host]'
                self._wrong(self._seen[path], path, message)

    def _assignments(self) -> Iterable[Assignment]:
        for path, (file, name) in self._assigned.items():
            if path[0] == "vm":
                policy = None if name == keys.NONE else name
                yield Assignment(str(path[1]), policy, file.place(path))

    def _default(self) -> str | None:
        if ("default",) in self._assigned:
            name = self._assigned[("default",)][1]
            return None if name == keys.NONE else name
        return DEFAULT_POLICY if DEFAULT_POLICY in self._policies else None

    def _order(self, mistake: Mistake) -> tuple[int, int]:
        """As somebody reads the files; what is wrong with a folder comes first."""
        files = self._found.files
        return (files.index(mistake.file) if mistake.file in files else -1, mistake.line)

    def _wrong(self, file: Source, path: locate.Path, message: str) -> None:
        self._mistakes.append(file.mistake(path, message))
