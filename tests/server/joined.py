"""A simulated host (``tests.host.home``) that has joined a real server, and hurries."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any
from unittest import mock

from headstart.host import liaison, remote
from headstart.host.daemon import Daemon
from headstart.host.policy import Config, Host
from headstart.store import membership
from headstart.store.membership import Membership
from tests.host.home import Home
from tests.kit.server import Tenant
from tests.kit.waiting import wait_until

NIGHTLY = """
audit = "all"
[schedule]
calendar = "02:00"
timezone = "UTC"
[head_start]
transports = ["host"]
"""
HURRY: dict[str, Any] = {"TICK_SECONDS": 0.02, "AWAY_SECONDS": 0.1, "AWAY_AT_MOST": 0.3, "REFUSED_SECONDS": 0.3}


def bare(home: Home, **host: Any) -> None:
    """The host's own files say nothing of policies."""
    home.config = Config(home.folder / "headstart.toml", (), Host(**host))


def join(home: Home, joined: Membership) -> None:
    membership.save(home.folder / "state" / membership.FILE, joined)


@contextlib.contextmanager
def serving(home: Home) -> Iterator[Daemon]:
    with (
        mock.patch.multiple(liaison, **HURRY),
        mock.patch.multiple(remote, _SOONEST=0.05, _LATEST=0.2),
        home.serving() as daemon,
    ):
        yield daemon


def standing(home: Home) -> dict[str, Any]:
    """What ``headstart status`` says of the server."""
    found: dict[str, Any] | None = home.ask("status")["server"]
    return found or {"state": "none"}


def wait_connected(home: Home) -> None:
    wait_until(lambda: standing(home)["state"] == "connected")


def vm_of(tenant: Tenant, name: str = "web") -> dict[str, Any]:
    found: dict[str, Any] = next(each for each in tenant.admin.get("/v1/vms") if each["name"] == name)
    return found


def wait_vm(tenant: Tenant, name: str = "web") -> dict[str, Any]:
    wait_until(lambda: any(each["name"] == name for each in tenant.admin.get("/v1/vms")))
    return vm_of(tenant, name)
