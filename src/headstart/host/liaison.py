"""The host's way to its server: it says how it is, hears what is to be done, and catches up after any silence.

::

    pulse: how this host and its VMs are  ->  what is to be done, and when to come again
    other policies?  ->  fetched, kept, applied
    orders?          ->  taken, done, told
    what is not told yet: snapshots, runs, minutes

On a thread of its own, that nothing else waits for: a host works by itself whatever becomes of this.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

from headstart import errors, plain
from headstart.host import document, log, view
from headstart.host.booter import Ending
from headstart.host.control import Tell
from headstart.host.errands import Errands
from headstart.host.house import House
from headstart.host.policy import Config
from headstart.host.remote import Beat, Remote
from headstart.host.reporter import Reporter
from headstart.host.ward import Ward
from headstart.repository.proof import Proof
from headstart.store import membership
from headstart.store.membership import Membership
from headstart.wire import https

_log = logging.getLogger("headstart.host")

#: It is looked so often whether something is to be said before the server wants to hear of it.
TICK_SECONDS = 1.0
#: A server that is away is asked again after so long, doubled each time; one that refuses us, after the last.
AWAY_SECONDS, AWAY_AT_MOST, REFUSED_SECONDS = 15.0, 120.0, 300.0
#: Hosts must not come all at once: they wait for some share of what they are told.
_SPREAD = (0.8, 1.0)
#: Requests that tell what happened, between two pulses.
STEPS = 4
_LONGEST = 2000
#: VMs of a host that are told of.
_MANY = 2000


class Host(Protocol):
    """What the daemon has for it."""

    house: House
    config: Config
    wards: dict[str, Ward]
    #: Why the last reload changed nothing; empty if it did.
    mistake: str

    def handle(self, request: Mapping[str, Any], tell: Tell) -> Any: ...

    def hangs(self, name: str) -> bool: ...

    def reload(self) -> None: ...

    def restore_into(self) -> Path | None: ...

    def rehearse(self, snapshot: str) -> Proof: ...

    def boot(self, snapshot: str, hours: float, ending: Ending, tell: Tell) -> dict[str, Any]: ...


class Liaison:
    """``start`` it, and ``stop`` it. ``status`` is for any thread."""

    def __init__(
        self, host: Host, state: Path, file: Path, open_remote: Callable[[Membership], Remote] = Remote
    ) -> None:
        """``file``: what ``headstart join`` keeps; it may come and go."""
        self._host = host
        self._state = state
        self._file = file
        self._open = open_remote
        self._wake = threading.Event()
        self._stop = threading.Event()
        self._reporter = Reporter(host.house)
        self._errands = Errands(host, self._wake.set)
        self._remote: Remote | None = None
        self._seen_file: object = None
        self._status: dict[str, Any] | None = None
        self._refused: Mapping[str, str] = {}
        #: Of documents that cannot be used: the version, and why.
        self._bad: tuple[str, str] = ("", "")
        #: The version that was kept last, as the server names it.
        self._fetched = ""
        self._failures = 0
        self._said = ""
        self._was_busy = False
        self._behind = True
        self._thread = threading.Thread(target=self._run, name="liaison", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """A request that is under way is left behind; VMs that run by order end."""
        self._stop.set()
        self._wake.set()
        self._errands.end_boots("Headstart was stopped on the host.")

    def join(self, seconds: float) -> None:
        """Until VMs that run by order have ended, and that is noted; at most for so long."""
        self._errands.join(seconds)

    def status(self) -> dict[str, Any] | None:
        """None where the host has joined no server."""
        found = self._status
        if found is None:
            return None
        config = self._host.config
        told = {
            "policies": config.server,
            "overridden": list(config.overridden),
            "policies_refused": self._unusable()[1],
        }
        return {**found, **told, "refused_vms": dict(self._refused)}

    def _unusable(self) -> tuple[str, str]:
        """The version of what cannot be used, and why: what was fetched last, else what is kept."""
        return self._bad if self._bad[1] else self._host.config.refused

    # -- the thread

    def _run(self) -> None:
        while not self._stop.is_set():
            pause = self._guarded()
            self._sleep(pause * random.uniform(*_SPREAD))

    def _guarded(self) -> float:
        try:
            return self._turn()
        except errors.HeadstartError as error:
            return self._failed(error)
        except Exception as error:
            if not self._stop.is_set():
                _log.error("A bug: the server is asked again.", exc_info=error)
            return AWAY_AT_MOST

    def _sleep(self, seconds: float) -> None:
        """Until then, or until there is something that people watch for."""
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0 and not self._stop.is_set():
            if self._wake.wait(min(left, TICK_SECONDS)):
                break
            if self._failures == 0 and self._remote is not None and self._is_busy() != self._was_busy:
                break
            if self._file_changed():
                break
        self._wake.clear()

    def _is_busy(self) -> bool:
        return any(ward.activity.now() is not None for ward in list(self._host.wards.values()))

    def _file_changed(self) -> bool:
        return _stamp(self._file) != self._seen_file

    # -- one turn

    def _turn(self) -> float:
        remote = self._joined()
        if remote is None:
            return REFUSED_SECONDS
        self._was_busy = self._is_busy()
        beat = remote.pulse(self._self(), self._views(), self._errands.told())
        self._heard(remote, beat)
        if self._take_orders(beat):
            return 0.0
        self._fetch(remote, beat.policies)
        if beat.renew:
            self._renew(remote)
            return 0.0
        self._tell(remote)
        return min(beat.next, TICK_SECONDS) if self._behind else beat.next

    def _joined(self) -> Remote | None:
        """The server, as the file has it now."""
        if self._file_changed() or self._remote is None:
            self._seen_file = _stamp(self._file)
            found = membership.load(self._file)
            known = None if self._remote is None else self._remote.membership
            if found != known:
                self._meet(found, known)
        return self._remote

    def _meet(self, found: Membership | None, known: Membership | None) -> None:
        if self._remote is not None:
            self._remote.close()
        self._remote = None if found is None else self._open(found)
        self._failures, self._said = 0, ""
        same = found is not None and known is not None and found.host == known.host
        if not same:
            self._refused, self._bad, self._fetched, self._behind = {}, ("", ""), "", True
            # Whoever could stop them cannot any longer.
            self._errands.end_boots("The host left the server.")
            self._status = None if found is None else self._standing(found, "new", "it was not reached yet")
        if known is not None and found is None:
            _log.info("%s", log.line(event="left", server=known.url))
            document.forget(self._state)
            self._host.reload()

    def _standing(self, found: Membership, state: str, reason: str) -> dict[str, Any]:
        before = self._status or {}
        now = self._host.house.clock()
        since = before["since"] if before.get("state") == state else now
        seen = now if state == "connected" else before.get("seen")
        words = {"url": found.url, "tenant": found.tenant, "repository": found.address}
        return {**words, "state": state, "since": since, "seen": seen, "reason": reason}

    def _self(self) -> dict[str, Any]:
        """What this host says of itself."""
        host, config = self._host, self._host.config
        version, why = self._unusable()
        policies: dict[str, Any] = {"version": config.server, "overridden": list(config.overridden)[:100]}
        return {
            "policies": {**policies, **({"refused": why[:_LONGEST], "refused_version": version} if why else {})},
            "mistake": host.mistake[:_LONGEST],
            "repository": host.house.vault.address,
            "restores": config.host.restore_into is not None,
            "rehearsals": config.host.rehearsals,
            "boots": config.host.boots,
            "clock": host.house.clock(),
            "behind": self._behind,
        }

    def _views(self) -> dict[str, dict[str, Any] | None]:
        """Of all VMs; None: it has no policy."""
        wards = dict(self._host.wards)
        names = [vm.name for vm in self._host.house.journal.vms()][:_MANY]
        return {name: view.of(wards[name], self._host.hangs(name)) if name in wards else None for name in names}

    def _heard(self, remote: Remote, beat: Beat) -> None:
        if self._status is None or self._status["state"] != "connected":
            _log.info("%s", log.line(event="connected", server=remote.membership.url))
        self._failures, self._said = 0, ""
        self._status = self._standing(remote.membership, "connected", "")
        for vm in beat.refused.keys() - self._refused.keys():
            log.warning(vm, event="not-taken-in", reason=beat.refused[vm])
        self._refused = beat.refused

    def _failed(self, error: errors.HeadstartError) -> float:
        """Told once, until it is something else."""
        refused = isinstance(error, errors.WrongPassword | errors.Denied | errors.NotFound | errors.Usage)
        state = "refused" if refused and not isinstance(error, errors.StoreFailed) else "away"
        self._failures += 1
        if self._said != errors.kind(error) and not self._stop.is_set():
            self._said = errors.kind(error)
            _log.warning("%s", log.line(event=f"server-{state}", reason=_advice(error), kind=self._said))
        if self._remote is not None:
            self._status = self._standing(self._remote.membership, state, plain.line(str(error)))
        if isinstance(error, errors.TooOften):
            told = error.facts.get("seconds")
            return min(max(float(told), 1.0), AWAY_AT_MOST) if isinstance(told, int | float) else AWAY_SECONDS
        if state == "refused":
            return REFUSED_SECONDS
        return float(min(AWAY_SECONDS * 2 ** min(self._failures - 1, 10), AWAY_AT_MOST))

    # -- what a beat brings

    def _take_orders(self, beat: Beat) -> bool:
        """Whether the server is to hear at once."""
        self._errands.heard(beat.orders)
        return self._errands.take(beat.offered)

    def _fetch(self, remote: Remote, version: str) -> None:
        """Other policies than those that are kept. One that cannot be used is not asked for again."""
        kept = document.kept(self._state)
        if version == kept or (kept and version == self._fetched):
            self._bad = ("", "")
            return
        if version == self._bad[0]:
            return
        text = remote.policies(kept)
        if text is None:
            return
        try:
            document.keep(self._state, text, datetime.fromtimestamp(self._host.house.clock(), UTC))
        except errors.Usage as error:
            self._bad = (version, str(error))
            _log.error("The policies of the server cannot be used, those before stay: %s", error)
            return
        except OSError as error:
            raise errors.NoSpace(f"The policies of the server cannot be kept: {error.strerror}.") from error
        self._bad, self._fetched = ("", ""), version
        _log.info("%s", log.line(event="policies", version=version))
        self._host.reload()

    def _renew(self, remote: Remote) -> None:
        """The new token is durable before it is used; until then the old one is good."""
        renewed = remote.renew()
        try:
            membership.save(self._file, renewed)
        except OSError as error:
            raise errors.NoSpace(f"The server's new token cannot be kept: {error.strerror}.") from error
        _log.info("%s", log.line(event="token", expires=_day(renewed.expires)))

    def _tell(self, remote: Remote) -> None:
        for _ in range(STEPS):
            self._behind = self._reporter.step(remote, self._refused)
            if not self._behind or self._stop.is_set():
                return


def _advice(error: errors.HeadstartError) -> str:
    if isinstance(error, errors.WrongPassword) and not isinstance(error, https.Untrusted):
        return (
            f"{error} The server does not know this host any longer: 'headstart join' again, with a new token. Backups"
            " go on by the last policies."
        )
    return f"{error} Backups go on by the last policies."


def _stamp(file: Path) -> object:
    """Changes with the file."""
    try:
        found = file.stat()
    except OSError:
        return None
    return (found.st_ino, found.st_mtime_ns, found.st_size)


def _day(seconds: float) -> str:
    try:
        return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d}"
    except (ValueError, OverflowError, OSError):
        return "unknown"
