"""What the command line may ask of the daemon."""

from __future__ import annotations

import concurrent.futures
from collections.abc import Mapping
from typing import Any, Protocol

from headstart import __version__, errors
from headstart.backup.complete import Options
from headstart.backup.hooks import Hook
from headstart.host import view
from headstart.host.control import Tell
from headstart.host.house import House
from headstart.host.ward import Ward
from headstart.store import address

#: Seconds between two reports of how far a backup is.
TELL_SECONDS = 0.5


def options_json(options: Options) -> dict[str, Any]:
    """For a request; ``_options`` reads it."""
    return {
        "plain": options.plain,
        "audit": options.audit,
        "freeze": options.freeze,
        "hooks": [[hook.event, hook.command] for hook in options.hooks],
    }


def _options(told: Mapping[str, Any] | None) -> Options | None:
    """None: as the policy has it."""
    if told is None:
        return None
    hooks = tuple(Hook(event, command) for event, command in told["hooks"])
    return Options(told["plain"], told["audit"], told["freeze"], hooks)


class Wards(Protocol):
    """What the daemon has."""

    house: House
    wards: dict[str, Ward]

    def ward(self, name: str) -> Ward:
        """Raises ``NotFound``; ``Usage`` for a VM without a policy."""
        ...

    def hangs(self, name: str) -> bool: ...

    def server(self) -> dict[str, Any] | None:
        """How it stands with the server; None where the host has joined none."""
        ...


class Requests:
    """Called in threads of the socket's."""

    def __init__(self, daemon: Wards) -> None:
        self._daemon = daemon

    def handle(self, request: Mapping[str, Any], tell: Tell) -> Any:
        match request:
            case {"do": "status"}:
                return self._status(request.get("vm"))
            case {"do": "pause", "vm": str(name)}:
                return self._pause(name)
            case {"do": "resume", "vm": str(name)}:
                return self._resume(name)
            case {"do": "cancel", "vm": str(name)}:
                return {"vm": name, "cancelled": self._daemon.ward(name).activity.cancel("cancelled by its owner")}
            case {"do": "backup", "vm": str(name)}:
                ward = self._daemon.ward(name)
                self._check_place(request.get("repository"))
                return self._backup(ward, _options(request["options"]), tell)
        raise errors.Usage("The daemon does not know this request: it is of another version.")

    def _status(self, name: str | None) -> dict[str, Any]:
        if name is not None:
            self._daemon.house.journal.vm(name)
        wards = {each: ward for each, ward in sorted(self._daemon.wards.items()) if name in (None, each)}
        vms = {each: view.of(ward, self._daemon.hangs(each)) for each, ward in wards.items()}
        return {"version": __version__, "vms": vms, "server": self._daemon.server()}

    def _pause(self, name: str) -> dict[str, Any]:
        ward = self._daemon.ward(name)
        self._daemon.house.series.pause(name, self._daemon.house.clock())
        ward.wake()
        return {"vm": name, "paused": True}

    def _resume(self, name: str) -> dict[str, Any]:
        ward = self._daemon.ward(name)
        self._daemon.house.series.resume(name)
        ward.wake()
        return {"vm": name, "paused": False}

    def _check_place(self, wanted: str | None) -> None:
        """A backup goes nowhere else than it was ordered to. ``wanted``: of ``address.canonical``; None: ours."""
        ours = self._daemon.house.vault.address
        if wanted is not None and wanted != address.canonical(ours):
            raise errors.Usage(
                f"The daemon that protects this VM backs it up into {ours}, not into {wanted}. Leave --repository and "
                "HEADSTART_REPOSITORY out to back it up there, or stop the daemon ('headstart run') first."
            )

    def _backup(self, ward: Ward, options: Options | None, tell: Tell) -> dict[str, Any]:
        done = ward.order(options)
        while not concurrent.futures.wait((done,), TELL_SECONDS).done:
            doing = ward.activity.now()
            what, at, total = (doing.what, doing.done, doing.total) if doing else ("waiting", 0, 0)
            tell({"progress": {"what": what or "waiting", "done": at, "total": total}})
        return done.result().json()
