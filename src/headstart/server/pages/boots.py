"""A VM that runs by order, as its host tells of it: until when, and how somebody at that host comes to its screen."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from headstart.host.account import number
from headstart.server.orders import Kind, State

#: Consoles and notes that are shown.
_MOST = 8
_PLACES = (
    ("screen", "Screen (VNC, a unix socket there)"),
    ("monitor", "Monitor (QMP, a unix socket there)"),
    ("qga", "qemu-guest-agent (a unix socket there)"),
    ("domain", "Domain of libvirt's there"),
    ("libvirt", "At"),
)


@dataclass(frozen=True, slots=True)
class Boot:
    """``places``: what there is, and where; ``can_stop``: its host runs it, and was not asked to end it yet.
    ``forward``: the socket of its screen, for a way there by ssh; else empty."""

    what: str
    until: float | None
    places: tuple[tuple[str, str], ...]
    forward: str
    notes: tuple[str, ...]
    can_stop: bool


def of(order: Mapping[str, Any]) -> Boot | None:
    """None for an order that runs no VM now. Whatever a host says, it is text here."""
    if order["kind"] != Kind.BOOT or order["state"] not in (State.TAKEN, State.STOPPING):
        return None
    told = _table(order["progress"])
    reach = _table(told.get("reach"))
    places = [(title, str(reach[name])) for name, title in _PLACES if reach.get(name)]
    places += [("Console (a file there)", str(each)) for each in _items(reach.get("consoles"))]
    return Boot(
        str(told.get("what") or "starts"),
        number(told.get("until")),
        tuple(places),
        str(reach.get("screen") or ""),
        tuple(str(each) for each in _items(told.get("notes"))),
        order["state"] == State.TAKEN,
    )


def _table(told: object) -> Mapping[str, Any]:
    return told if isinstance(told, Mapping) else {}


def _items(told: object) -> list[Any]:
    return told[:_MOST] if isinstance(told, list) else []
