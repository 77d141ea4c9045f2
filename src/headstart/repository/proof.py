"""Proofs: what rehearsals of a snapshot have shown. Objects beside its manifest, which is never changed.

``proofs/<snapshot id>/<random id>`` tells one, ``evidence/...`` of the same name what was seen on the way: that comes
out of the guest, is large, and is sealed as content is.
"""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import json
import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from headstart import errors
from headstart.repository import layout, snapshot, values
from headstart.repository.repo import Repository
from headstart.store.contract import Missing

#: Clocks of hosts may differ by less than that.
_AHEAD = 86400.0


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


def record(repo: Repository, snapshot_id: str, proof: Proof, evidence: Evidence) -> None:
    """Raises ``keys.NoContent`` for who may not see what is in the guest, ``NotFound`` for a snapshot that was
    forgotten: then nothing of it is left."""
    name = f"{snapshot_id}/{os.urandom(layout.OBJECT_ID_LENGTH).hex()}"
    repo.put_object(layout.Kind.EVIDENCE, layout.EVIDENCE + name, _encoded(evidence))
    repo.put_object(layout.Kind.PROOF, layout.PROOFS + name, _json(dataclasses.asdict(proof)))
    # Whoever forgets the snapshot removes it first, and then what there is of its proofs.
    try:
        repo.store.read(snapshot.key_of(snapshot_id))
    except Missing:
        drop(repo, snapshot_id)
        raise errors.NotFound(
            f"Snapshot {snapshot_id} was forgotten while it was rehearsed.", snapshot=snapshot_id
        ) from None


def all_proofs(repo: Repository, snapshot_id: str = "") -> Mapping[str, tuple[Proof, ...]]:
    """By snapshot, oldest first; of one, if it is named. What cannot be read proves nothing, and is left out."""
    found: dict[str, list[Proof]] = {}
    for name in _names(repo, layout.PROOFS, snapshot_id):
        with contextlib.suppress(errors.Damaged):
            proof = _read(repo, name)
            found.setdefault(name.split("/")[1], []).append(proof)
    return {each: tuple(sorted(proofs, key=_moment)) for each, proofs in found.items()}


def latest(repo: Repository, snapshot_id: str, most: int = layout.MAX_OBJECT_LENGTH) -> tuple[Proof, Evidence] | None:
    """The newest; None where there is no proof. ``keys.NoContent``, ``Damaged``, also for objects that hold more than
    ``most`` bytes."""
    proofs = {name: _read(repo, name, most) for name in _names(repo, layout.PROOFS, snapshot_id)}
    if not proofs:
        return None
    newest = max(proofs, key=lambda name: _moment(proofs[name]))
    name = layout.EVIDENCE + newest.removeprefix(layout.PROOFS)
    payload = repo.get_object(layout.Kind.EVIDENCE, name, most)
    try:
        return proofs[newest], _decoded(payload)
    except (ValueError, KeyError):
        raise _damaged(name) from None


def drop(repo: Repository, snapshot_id: str) -> None:
    """All of them: the snapshot is forgotten."""
    for folder in (layout.PROOFS, layout.EVIDENCE):
        for name in list(_names(repo, folder, snapshot_id)):
            repo.store.delete(name)


def _moment(proof: Proof) -> float:
    """Before all others where a clock was ahead: what it dated hides nothing that comes."""
    return proof.time if proof.time <= time.time() + _AHEAD else 0.0


def _names(repo: Repository, folder: str, snapshot_id: str) -> Iterator[str]:
    for name, _ in repo.store.list(folder + (f"{snapshot_id}/" if snapshot_id else "")):
        parts = name.split("/")
        if len(parts) == 3 and layout.is_object_id(parts[1]) and layout.is_object_id(parts[2]):
            yield name


def _read(repo: Repository, name: str, most: int = layout.MAX_OBJECT_LENGTH) -> Proof:
    """``Damaged``, or ``Missing`` (which is one)."""
    payload = repo.get_object(layout.Kind.PROOF, name, most)
    try:
        return _proof(values.parse(payload))
    except (ValueError, KeyError):
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
    return _json({"screenshot": screenshot, "console": evidence.console, "answers": dict(evidence.answers)})


def _json(told: Mapping[str, Any]) -> bytes:
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
