"""The daemon of one hypervisor host: a ward for each VM, a socket for the command line, word for systemd.

Killed at any time it loses nothing: what it knows stands in the journal, and what it began in a VM is put right at the
next contact. So whatever hangs and cannot be ended is left behind by starting anew.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from headstart import __version__, errors
from headstart.host import control, document, log, metrics
from headstart.host.booter import Booter, Ending
from headstart.host.caretaker import Caretaker
from headstart.host.house import House
from headstart.host.liaison import Liaison
from headstart.host.notify import Notifier
from headstart.host.policy import Config, Host, Policy, policy_of
from headstart.host.rehearser import Rehearser
from headstart.host.requests import Requests
from headstart.host.ward import Ward
from headstart.repository.proof import Proof
from headstart.state import holder
from headstart.state.holder import Holder
from headstart.store import membership

_log = logging.getLogger("headstart.host")

#: Held in the state's directory by the daemon that serves it; no VM can be called so.
LOCK = ".daemon.lock"
#: VMs that were added or removed are noticed within this time.
NOTICE_SECONDS = 5.0
#: A run that is not heard of for so long hangs: longer than any step of a backup may take (a hook has 15 minutes).
HANG_SECONDS = 1200.0
#: Then it is cancelled, and its connections are cut. If that does not help either, only starting anew does.
GRACE_SECONDS = 60.0
#: At the end a backup that is under way has so long to let go of its point in time by itself.
FAREWELL_SECONDS = 30.0
LAST_SECONDS = 5.0
TICK_SECONDS = 0.5


class Daemon:
    """``serve`` until ``stop``; ``reload`` reads the configuration anew. Both may be called by a signal's handler.

    ``load`` reads the configuration of this host, without what a server says; ``anew`` starts the program over, and
    does not return; ``joined``: the file of a server that the host has joined, if it has."""

    def __init__(
        self,
        house: House,
        state: Path,
        config: Config,
        load: Callable[[], Config],
        anew: Callable[[], None],
        notifier: Notifier,
        *,
        hang_seconds: float = HANG_SECONDS,
        grace_seconds: float = GRACE_SECONDS,
        joined: Path | None = None,
    ) -> None:
        self.house = house
        self.config = config
        #: Why the last reload changed nothing; empty if it did.
        self.mistake = ""
        self.wards: dict[str, Ward] = {}
        self._joined = joined or state / membership.FILE
        self._requests = Requests(self)
        self._liaison: Liaison | None = None
        self._state = state
        self._load = load
        self._anew = anew
        self._notifier = notifier
        self._hang_seconds = hang_seconds
        self._grace_seconds = grace_seconds
        self.caretaker = Caretaker(house)
        self._rehearser = Rehearser(house)
        self._booter = Booter(house, lambda: self.config.host.boots)
        self._leaving: list[Ward] = []
        #: Those that did not end.
        self._left: Sequence[Ward] = ()
        self._stop = threading.Event()
        self._reload = threading.Event()
        self._noticed = float("-inf")
        #: Since when. One that was dismissed may hang beside another of the same VM.
        self._hung: dict[Ward, float] = {}
        #: Why VMs have no policy of their own, as was told.
        self._told: dict[str, str] = {}

    def stop(self) -> None:
        self._stop.set()

    def reload(self) -> None:
        self._reload.set()

    def serve(self) -> bool:
        """Whether all that was under way has ended: what hangs would keep the process from ending. Raises ``Locked``
        where another daemon serves this state."""
        with _alone(self._state):
            self._look_at_repository()
            try:
                self._apply(self._whole(self.config))
                self.caretaker.start()
                self._rehearser.start()
                self._liaison = Liaison(self, self._state, self._joined)
                # Not before: who asks is answered about all VMs.
                with (
                    control.Server(control.address(self._state), self._requests.handle),
                    metrics.serving(self, self.config.host.metrics),
                ):
                    _log.info("%s", log.line(event="started", version=__version__, vms=len(self.wards)))
                    self._notifier.tell(READY=1, STATUS=self._summary())
                    self._liaison.start()
                    while not self._stop.wait(self._tick_seconds()):
                        self._tick()
            finally:
                self._farewell()
        return not self._left

    def _look_at_repository(self) -> None:
        """What only its owner can mend ends the daemon at once; a place may still come, such as a mount."""
        try:
            self.house.vault.repository()
        except (errors.WrongPassword, errors.Usage, errors.Unsupported):
            raise
        except errors.HeadstartError as error:
            _log.warning("The repository cannot be opened yet, it is tried again with each run: %s", error)

    def _tick_seconds(self) -> float:
        """Twice within what systemd waits for."""
        watchdog = self._notifier.watchdog_seconds
        return TICK_SECONDS if watchdog is None else min(TICK_SECONDS, watchdog / 2)

    def _tick(self) -> None:
        if self._reload.is_set():
            self._reload.clear()
            self._reread()
        now = time.monotonic()
        if now - self._noticed >= NOTICE_SECONDS:
            self._noticed = now
            self._notice()
        self._watch(now)
        self._notifier.tell(WATCHDOG=1, STATUS=self._summary())

    # -- configuration

    def _reread(self) -> None:
        self._notifier.reloading()
        try:
            loaded = self._load()
            _tell_restart(self.config.host, loaded.host)
            self._apply(self._whole(loaded))
            self.mistake = ""
            _log.info("%s", log.line(event="reloaded", files=len(self.config.files)))
        except errors.HeadstartError as error:
            self.mistake = str(error)
            _log.error("The configuration stays as it was: %s", error)
        self._notifier.tell(READY=1)

    def _whole(self, local: Config) -> Config:
        """With what the server said last beneath it; what runs of that stays where it cannot be read any longer."""
        now = datetime.fromtimestamp(self.house.clock(), UTC)
        whole = document.beside(local, self._state, now, self.config.said)
        if whole.overridden and whole.overridden != self.config.overridden:
            found = ", ".join(whole.overridden)
            _log.warning(
                "%s", log.line(event="policies", overridden=found, reason="this host's own files say otherwise")
            )
        return whole

    def _apply(self, config: Config) -> None:
        self.config = config
        self.house.rounds.resize(config.host.rounds)
        self.house.backups.resize(config.host.backups)
        self.house.store.set_rate(config.host.store_rate)
        self._notice()

    def _notice(self) -> None:
        """Every VM of the state that has a policy has a ward, and no other."""
        wanted: dict[str, Policy] = {}
        try:
            for vm in self.house.journal.vms():
                policy = self._policy_or_same(vm.name)
                if policy is not None:
                    wanted[vm.name] = policy
        except errors.HeadstartError as error:
            _log.error("The state cannot be read: %s", error)
            return
        self.caretaker.renew(wanted)
        self._rehearser.renew(wanted)
        self._booter.clear()
        for name in [name for name in self.wards if name not in wanted]:
            self._dismiss(name)
        for name, policy in wanted.items():
            if name in self.wards:
                self.wards[name].renew(policy)
            else:
                self._protect(name, policy)

    def _policy_or_same(self, vm: str) -> Policy | None:
        """A VM that two patterns name keeps the policy that it has."""
        try:
            policy = policy_of(self.config, vm)
        except errors.Usage as error:
            if self._told.get(vm) != str(error):
                log.warning(vm, event="policy", reason=str(error))
            self._told[vm] = str(error)
            return self.wards[vm].policy if vm in self.wards else None
        self._told.pop(vm, None)
        return policy

    def _protect(self, name: str, policy: Policy) -> None:
        """What fails now is tried again at the next notice."""
        try:
            ward = Ward(self.house, name, policy)
        except errors.HeadstartError as error:
            log.warning(name, event="failed", verb="protect", reason=str(error))
            return
        self.wards[name] = ward
        log.decision(name, event="protected", policy=policy.name)
        ward.start()

    def _dismiss(self, name: str) -> None:
        ward = self.wards.pop(name)
        log.decision(name, event="dismissed", reason="it was removed, or has no policy any longer")
        ward.stop("It is not protected any longer.")
        self._leaving.append(ward)

    # -- hanging runs

    def _watch(self, now: float) -> None:
        self._leaving = [ward for ward in self._leaving if not ward.join(0)]
        watched = [*self.wards.values(), *self._leaving]
        self._hung = {ward: since for ward, since in self._hung.items() if ward in watched}
        for ward in watched:
            if ward.quiet < self._hang_seconds:
                self._hung.pop(ward, None)
            elif ward not in self._hung:
                self._hung[ward] = now
                doing = ward.activity.now()
                verb = doing.verb if doing is not None else "look"
                log.warning(ward.name, event="hangs", verb=verb, quiet=log.seconds(ward.quiet))
                ward.activity.cancel("It was not heard of for too long.")
                ward.break_off()
            elif now - self._hung[ward] > self._grace_seconds and not self._others_complete():
                log.warning(ward.name, event="hangs", reason="it cannot be ended: Headstart starts anew")
                self._anew()

    def _others_complete(self) -> bool:
        found = [ward.activity.now() for ward in self.wards.values() if ward not in self._hung]
        return any(doing is not None and doing.verb == "backup" for doing in found)

    def hangs(self, name: str) -> bool:
        return self.wards.get(name) in self._hung

    # -- the end

    def _farewell(self) -> None:
        """Rounds end at once, what they copied counts; a backup may let go of its point in time by itself."""
        self._notifier.tell(STOPPING=1)
        if self._liaison is not None:
            self._liaison.stop()
        self.caretaker.stop()
        self._rehearser.stop()
        wards = [*self.wards.values(), *self._leaving]
        for ward in wards:
            if ward.completes:
                ward.finish()
            else:
                ward.stop("Headstart is being stopped.")
        left = _join(wards, FAREWELL_SECONDS)
        for ward in left:
            ward.stop("Headstart is being stopped.")
        self._left = _join(left, LAST_SECONDS)
        if self._liaison is not None:
            self._liaison.join(LAST_SECONDS)
        hanging = ", ".join(ward.name for ward in self._left)
        _log.info("%s", log.line(event="stopped", hanging=hanging or None))

    def _summary(self) -> str:
        doing = [(name, found) for name, ward in self.wards.items() if (found := ward.activity.now())]
        said = ", ".join(f"{found.verb} {name}" for name, found in doing) or "waiting"
        return f"{len(self.wards)} VMs protected, {said}"

    def ward(self, name: str) -> Ward:
        """The ward of a VM. Raises ``NotFound``, ``Usage`` for one without a policy."""
        if name in self.wards:
            return self.wards[name]
        self.house.journal.vm(name)
        raise errors.Usage(f"VM '{name}' has no policy: the daemon leaves it alone.", vm=name)

    # -- what the server orders

    def handle(self, request: Mapping[str, Any], tell: control.Tell) -> Any:
        return self._requests.handle(request, tell)

    def restore_into(self) -> Path | None:
        return self.config.host.restore_into

    def rehearse(self, snapshot: str) -> Proof:
        """Raises ``Denied``, and what a rehearsal does."""
        if not self.config.host.rehearsals:
            raise errors.Denied("The owner of this host does not offer it: 'rehearsals' in its own [host] does.")
        return self._rehearser.rehearse(snapshot)

    def boot(self, snapshot: str, hours: float, ending: Ending, tell: control.Tell) -> dict[str, Any]:
        """Raises ``Denied``, and as ``Booter.boot``."""
        if not self.config.host.boots:
            raise errors.Denied("The owner of this host does not offer it: 'boots' in its own [host] does.")
        return self._booter.boot(snapshot, hours, ending, tell)

    def server(self) -> dict[str, Any] | None:
        return None if self._liaison is None else self._liaison.status()


def _tell_restart(before: Host, after: Host) -> None:
    """What is only read at the start."""
    names = ("repository", "state", "scratch", "cache", "password_file", "password_command", "appliances", "metrics")
    changed = [name for name in names if getattr(before, name) != getattr(after, name)]
    if changed:
        _log.warning("A new %s in [host] holds from the next start of the daemon on.", ", ".join(changed))


def _join(wards: Sequence[Ward], seconds: float) -> list[Ward]:
    """Those that have not ended until then."""
    deadline = time.monotonic() + seconds
    return [ward for ward in wards if not ward.join(max(0.0, deadline - time.monotonic()))]


@contextlib.contextmanager
def _alone(state: Path) -> Iterator[None]:
    def refusal(found: Holder) -> errors.Locked:
        said = f"Another 'headstart run' ({found.process}) serves {state}{found.told}"
        return errors.Locked(said, holder=asdict(found))

    with holder.held(state / LOCK, "run", 0.0, refusal):
        yield
