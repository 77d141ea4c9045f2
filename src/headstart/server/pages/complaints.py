"""What hosts do not do as they are told, and what is not taken in from them: read with care, as all that hosts say."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Complaint:
    """Of a host. ``policies``: why it cannot use those of the server, ``mistake``: what is wrong with its own
    configuration; those before go on, if it ``has_policies`` of the server's. ``refused``: VMs beyond the tenant's
    quota, and ``why``."""

    host: str
    policies: str
    mistake: str
    refused: tuple[str, ...]
    why: str
    has_policies: bool


def of(hosts: Iterable[Mapping[str, Any]]) -> dict[str, Complaint]:
    """By the id of the host, of those that have any; ``hosts`` as ``hosts.listed`` tells of them."""
    found = {each["id"]: _of(each["name"], each["state"]) for each in hosts}
    return {host: each for host, each in found.items() if each.policies or each.mistake or each.refused}


def _of(name: str, state: Mapping[str, Any]) -> Complaint:
    policies, refused = _table(state.get("policies")), _table(state.get("refused"))
    why = next(iter(refused.values()), "")
    found = _text(policies.get("refused")), _text(state.get("mistake")), tuple(refused), _text(why)
    return Complaint(name, *found, bool(policies.get("version")))


def _table(told: object) -> dict[str, Any]:
    return told if isinstance(told, dict) else {}


def _text(told: object) -> str:
    return told if isinstance(told, str) else ""
