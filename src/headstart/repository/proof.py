"""Proofs: what rehearsals of a snapshot have shown. Objects beside its manifest, which is never changed.

``proofs/<snapshot id>/<random id>`` tells one. Whether it passed can be read with the structure secret; what was seen
on the way comes out of the guest, and is sealed as content is.
"""

from __future__ import annotations

import base64
import binascii
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from cryptography.exceptions import InvalidTag

from headstart import errors
from headstart.repository import layout, seal, values
from headstart.repository.repo import Repository


@dataclass(frozen=True, slots=True)
class Check:
    """One of those that a rehearsal was asked for, such as ``service:nginx``."""

    name: str
    passed: bool


@dataclass(frozen=True, slots=True)
class Proof:
    """``time``: seconds since 1970, when it was begun; ``seconds`` until it was decided. ``awaited``: the sign of life
    that was waited for. ``reason``: why it has not passed, else empty."""

    time: float
    host: str
    passed: bool
    seconds: float
    awaited: str
    reason: str = ""
    checks: tuple[Check, ...] = ()


@dataclass(frozen=True, slots=True)
class Evidence:
    """``screenshot``: PNG, or empty. ``console``: the end of what the guest wrote there. ``answers``: to the checks."""

    screenshot: bytes = b""
    console: str = ""
    answers: Mapping[str, str] = field(default_factory=dict)


def record(repo: Repository, snapshot_id: str, proof: Proof, evidence: Evidence) -> str:
    """Returns the name of the object. Raises ``keys.NoContent`` for who may not see what is in the guest."""
    key = f"{layout.PROOFS}{snapshot_id}/{os.urandom(layout.OBJECT_ID_LENGTH).hex()}"
    sealed = seal.seal_evidence(repo.secrets, key, _encoded(evidence))
    told = {
        "time": proof.time,
        "host": proof.host,
        "passed": proof.passed,
        "seconds": proof.seconds,
        "awaited": proof.awaited,
        "reason": proof.reason,
        "checks": [{"name": check.name, "passed": check.passed} for check in proof.checks],
        "evidence": base64.b64encode(sealed).decode(),
    }
    repo.put_object(layout.Kind.PROOF, key, json.dumps(told, separators=(",", ":")).encode())
    return key


def all_proofs(repo: Repository, snapshot_id: str = "") -> Mapping[str, tuple[Proof, ...]]:
    """By snapshot, oldest first; of one, if it is named. What cannot be read proves nothing, and is left out."""
    found: dict[str, list[Proof]] = {}
    for name in _names(repo, snapshot_id):
        try:
            told = _read(repo, name)
        except errors.Damaged:
            continue
        found.setdefault(name.split("/")[1], []).append(told[0])
    return {each: tuple(sorted(proofs, key=lambda proof: proof.time)) for each, proofs in found.items()}


def latest_evidence(repo: Repository, snapshot_id: str) -> Evidence | None:
    """That of the newest proof; None where there is no proof. ``keys.NoContent``, ``Damaged``."""
    newest = max(((*_read(repo, name), name) for name in _names(repo, snapshot_id)), key=_moment, default=None)
    if newest is None:
        return None
    _, sealed, name = newest
    try:
        return _decoded(seal.open_evidence(repo.secrets, name, sealed))
    except (InvalidTag, ValueError, KeyError):
        raise _damaged(name) from None


def drop(repo: Repository, snapshot_id: str) -> None:
    """All of them: the snapshot is forgotten."""
    for name in list(_names(repo, snapshot_id)):
        repo.store.delete(name)


def _moment(read: tuple[Proof, bytes, str]) -> float:
    return read[0].time


def _names(repo: Repository, snapshot_id: str) -> Iterator[str]:
    prefix = layout.PROOFS + (f"{snapshot_id}/" if snapshot_id else "")
    for name, _ in repo.store.list(prefix):
        parts = name.split("/")
        if len(parts) == 3 and layout.is_object_id(parts[1]) and layout.is_object_id(parts[2]):
            yield name


def _read(repo: Repository, name: str) -> tuple[Proof, bytes]:
    """The proof, and its evidence as it is sealed. ``Damaged``, or ``Missing`` (which is one)."""
    payload = repo.get_object(layout.Kind.PROOF, name)
    try:
        told = values.parse(payload)
        return _proof(told), base64.b64decode(values.text(told["evidence"]), validate=True)
    except (ValueError, KeyError, binascii.Error):
        raise _damaged(name) from None


def _proof(told: Mapping[str, Any]) -> Proof:
    return Proof(
        time=values.moment(told["time"]),
        host=values.text(told["host"]),
        passed=told["passed"] is True,
        seconds=values.moment(told["seconds"]),
        awaited=values.text(told["awaited"]),
        reason=values.text(told["reason"]),
        checks=tuple(map(_check, values.items(told["checks"]))),
    )


def _check(told: object) -> Check:
    found = values.table(told)
    return Check(values.text(found["name"]), found["passed"] is True)


def _encoded(evidence: Evidence) -> bytes:
    screenshot = base64.b64encode(evidence.screenshot).decode()
    told = {"screenshot": screenshot, "console": evidence.console, "answers": dict(evidence.answers)}
    return json.dumps(told, separators=(",", ":")).encode()


def _decoded(payload: bytes) -> Evidence:
    told = values.parse(payload)
    return Evidence(
        base64.b64decode(values.text(told["screenshot"]), validate=True),
        values.text(told["console"]),
        {values.text(name): values.text(said) for name, said in values.table(told["answers"]).items()},
    )


def _damaged(name: str) -> errors.Damaged:
    return errors.Damaged(f"{name} is damaged: it cannot be decoded.", object=name)
