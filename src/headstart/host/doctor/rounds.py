"""The doctor's rounds: which checks there are, in which order, of the host and of each VM."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from datetime import datetime

from headstart import errors, units
from headstart.host import policy
from headstart.host.doctor import clocks, daemons, examination, fleet, inside, machine, places, schedules, storage
from headstart.host.doctor.finding import Check, Finding, Level, of_error
from headstart.host.doctor.subject import Subject
from headstart.host.policy import Config, Policy
from headstart.hypervisor.checkup import Channels, Checkup
from headstart.state.journal import Journal
from headstart.state.runs import Runs
from headstart.state.values import Vm

#: A password command may ask somebody, and a key derivation takes its time.
PASSWORD_SECONDS = 150.0
#: A busy guest is slow to answer, and nobody may be kept waiting for the VM meanwhile: it is asked again instead.
ATTEMPTS = 3


def examine(subject: Subject, name: str | None) -> list[Finding]:
    """Of the host and all of its VMs, or of one VM. Raises ``NotFound`` where there is none of this name."""
    if name is not None:
        try:
            there = subject.there
        except OSError as error:
            raise errors.Usage(
                f"The state in {subject.state} cannot be seen: {error.strerror}. Run as root."
            ) from error
        if not there:
            raise errors.NotFound(f"There is no VM '{name}' here: {subject.state} has no state.", vm=name)
        with subject.journal() as journal:
            return of_vm(subject, journal.vm(name))
    found = of_host(subject)
    if any(each.check == "state" and each.level is Level.PROBLEM for each in found):
        return found
    for vm in subject.vms():
        found += of_vm(subject, vm)
    return found


def of_host(subject: Subject) -> list[Finding]:
    looks: tuple[tuple[str, Callable[[Subject], Iterable[Finding]], float], ...] = (
        ("state", places.state, 20.0),
        ("scratch", places.scratch, 20.0),
        ("clock", clocks.clock, 20.0),
        ("repository", storage.place, 30.0),
        ("password", storage.password, PASSWORD_SECONDS),
        ("configuration", schedules.configuration, 20.0),
        ("policies", schedules.assignments, 20.0),
        ("schedules", schedules.conflicts, 60.0),
        ("server", fleet.server, 60.0),
        ("daemon", daemons.serving, 10.0),
        ("other tools", daemons.others, 20.0),
    )
    found: list[Finding] = []
    for name, look, seconds in looks:
        found += examination.run(Check(name, lambda look=look: look(subject), seconds))  # type: ignore[misc]
    return found


def of_vm(subject: Subject, vm: Vm) -> list[Finding]:
    with subject.journal() as journal:
        return _Patient(subject, journal, vm).examine()


class _Patient:
    def __init__(self, subject: Subject, journal: Journal, vm: Vm) -> None:
        self._subject = subject
        self._journal = journal
        self._vm = vm
        self._seen: Checkup | None = None
        self._found: list[Finding] = []

    def examine(self) -> list[Finding]:
        if self._vm.guest_only:
            self._check("agent", lambda: self._asked(inside.agent))
            self._check("filters", lambda: self._asked(inside.filters))
            self._check("freeze", lambda: inside.freeze(self._found, self._policy()))
        else:
            self._examine_machine()
        self._check("policy", self._protection)
        self._check("last run", self._history)
        return self._found

    def _examine_machine(self) -> None:
        self._check("monitor", self._look)
        if self._seen is not None:
            seen, journal = self._seen, self._journal
            has_agent = bool(inside.address(self._vm, seen.channels))
            self._check("disks", lambda: machine.disks(seen, self._vm.track, has_agent=has_agent))
            self._check("bitmaps", lambda: machine.bitmaps(journal, self._vm, seen))
            self._check("other tools", lambda: machine.others(journal.installation, seen))
            self._check("scratch", lambda: machine.access(self._subject, self._vm, seen))
        if self._seen is None or self._seen.status != "off":
            self._check("agent", lambda: self._asked(inside.agent))
            self._check("qga", lambda: self._asked(inside.qga))
            self._check("freeze", lambda: inside.freeze(self._found, self._policy()))

    def _check(self, name: str, look: Callable[[], Iterable[Finding]]) -> None:
        self._found += examination.run(Check(name, look, vm=self._vm.name))

    def _look(self) -> Iterator[Finding]:
        vm = self._vm
        if vm.monitor is not None:
            remedy = f"Start the VM with -qmp unix:{vm.monitor},server=on,wait=off. {inside.MOVED}"
            wrong = list(machine.socket("monitor", vm.monitor, remedy))
            if wrong:
                yield from wrong
                return
        try:
            # Short enough for whoever comes meanwhile to wait for it.
            with self._journal.lock(vm.name, "doctor"):
                self._seen = machine.look(vm, self._journal.installation, self._subject.scratch)
        except errors.Locked as error:
            yield self._locked("monitor", error)
        else:
            yield from machine.monitor(vm, self._seen)

    def _asked(self, ask: Callable[[Vm, Channels | None], Iterable[Finding]]) -> Iterator[Finding]:
        channels = self._seen.channels if self._seen is not None else None
        name, failure = ask.__name__, errors.Unreachable("nobody answers")
        for _ in range(ATTEMPTS):
            try:
                # The guest's channels serve one at a time: a run that is under way has them.
                with self._journal.lock(self._vm.name, "doctor"):
                    found = list(ask(self._vm, channels))
            except errors.Locked as error:
                yield self._locked(name, error)
                return
            except errors.Unreachable as error:
                failure = error
            else:
                yield from found
                return
        yield inside.silent(name, self._vm, failure)

    @staticmethod
    def _locked(check: str, error: errors.Locked) -> Finding:
        return of_error(check, error, Level.NOTE)

    def _policy(self) -> Policy | None:
        config = self._subject.config
        try:
            return policy.policy_of(config, self._vm.name) if isinstance(config, Config) else None
        except errors.Usage:
            return None

    def _protection(self) -> Iterator[Finding]:
        found = self._policy()
        if found is not None:
            yield Finding("policy", Level.OK, f"{found.name}: {', '.join(found.schedule.calendar)}")
            only_agent = [each.value for each in found.head_start.transports] == ["agent"]
            if only_agent and not any(each.check == "agent" and each.level is Level.OK for each in self._found):
                said = f"policy {found.name} copies ahead by the agent alone, and none answers: there is no head start"
                yield Finding("policy", Level.WARNING, said, 'Install it, or add "host" to transports.')

    def _history(self) -> Iterator[Finding]:
        check, name = "last run", self._vm.name
        waiting = self._journal.completion(name)
        if waiting is not None:
            said = f"the backup {waiting.id[:12]} is complete, and waits in the spool to be published"
            yield Finding(check, Level.WARNING, said, f"'headstart precopy {name}' publishes it.")
        runs = [run for run in Runs(self._journal).newest(name) if run.verb in ("backup", "precopy", "publish")]
        if runs and "error" in runs[0].report:
            said = f"the last {runs[0].verb} ({_when(runs[0].begun)}) failed: {runs[0].report['error']}"
            yield Finding(check, Level.WARNING, said, f"headstart history {name}")
        point = self._journal.point(name)
        if point is None:
            yield Finding(check, Level.NOTE, "there is no backup yet", f"headstart backup {name}")
        else:
            age = units.format_seconds(max(0.0, self._subject.clock() - point.created))
            yield Finding(check, Level.OK, f"protected until {_when(point.created)}, {age} ago")


def _when(seconds: float) -> str:
    return f"{datetime.fromtimestamp(seconds):%Y-%m-%d %H:%M}"
