"""The keys of a repository: more of them, fewer, others. None of it touches anything but ``keys/`` and ``losses/``.

A key that was removed is noted in a loss, so that nobody misses it. Only what is provably not the last key is
removed: some other one has just opened the repository, and nobody is removing that.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

from headstart import errors
from headstart.repository import keys, layout, objects
from headstart.repository.keys import Argon2, KeyObject, Secrets
from headstart.repository.loss import Loss
from headstart.repository.repo import Repository
from headstart.store.contract import Missing


@dataclass(frozen=True, slots=True)
class Listed:
    """``now``: it is what opened the repository this time."""

    key: KeyObject
    now: bool


def listed(repo: Repository) -> list[Listed]:
    """All that are not damaged."""
    return [Listed(key, key.name in repo.opened_by) for key in keys.usable(repo.store)]


def add(
    repo: Repository,
    password: bytes,
    now: float,
    *,
    structure_alone: bool = False,
    cost: Argon2 = keys.DEFAULT_COST,
) -> str:
    """Wrap the secrets once more; the id of the key. It is durable, and opens, when this returns. ``now`` in seconds
    since 1970, UTC. Raises ``Usage``."""
    if not repo.encrypted:
        raise errors.Usage(
            "The repository is not encrypted: a password would guard nothing. Make another one with 'headstart init', "
            "and copy the snapshots into it with 'headstart copy'."
        )
    if not password:
        raise errors.Usage("The password is empty. Give one.")
    secrets = repo.secrets.structure_alone() if structure_alone else repo.secrets
    name, data = keys.wrap(secrets, password, cost, now)
    objects.put(repo.store, name, data)
    _require_that_it_opens(repo, name, password, secrets)
    return name.removeprefix(layout.KEYS)


def remove(repo: Repository, key_id: str, now: float) -> str:
    """The id of the key that is no more. ``key_id`` may be the beginning of one. Raises ``NotFound``, ``Usage``.

    May be repeated: killed in the middle, the key is still there, and nobody would miss it.
    """
    name = resolve(repo, key_id)
    if not repo.secrets.opens_content:
        raise keys.NoContent
    stay = [other for other in repo.opened_by if other != name]
    if not stay:
        raise errors.Usage(
            f"{_short(name)} is the key that opened the repository now, and it may be the last one that opens it. "
            "Give the password of the one that stays, or change this one with 'headstart key passwd'."
        )
    _remove(repo, name, now, stay)
    return name.removeprefix(layout.KEYS)


def replace(repo: Repository, password: bytes, now: float, cost: Argon2 = keys.DEFAULT_COST) -> tuple[str, list[str]]:
    """Another password in place of the one that opened the repository, with ``every_key``. The id of the new key, and
    of those removed.

    The old ones go once the new one opens; killed before, both passwords do.
    """
    old = repo.opened_by
    added = add(repo, password, now, cost=cost)
    for name in old:
        _remove(repo, name, now, [layout.KEYS + added])
    return added, [name.removeprefix(layout.KEYS) for name in old]


def resolve(repo: Repository, key_id: str) -> str:
    """The name of the key object whose id begins so. Raises ``NotFound``, ``Usage``."""
    found = [name for name in repo.key_names() if name.startswith(layout.KEYS + key_id.lower())]
    if not key_id or not found:
        raise errors.NotFound(f"There is no key {key_id!r}: 'headstart key list' shows those that are.", key=key_id)
    if len(found) > 1:
        raise errors.Usage(f"{key_id} is the beginning of several keys: {', '.join(map(_short, found))}.")
    return found[0]


def _short(name: str) -> str:
    return name.removeprefix(layout.KEYS)


def _require_that_it_opens(repo: Repository, name: str, password: bytes, secrets: Secrets) -> None:
    try:
        opens = KeyObject.decode(name, repo.store.read(name)).unwrap(password) == secrets
    except Missing:
        opens = False
    if not opens:
        raise errors.StoreFailed(f"{name} is not what was written: the store lost or changed it. Nothing was removed.")


def _remove(repo: Repository, name: str, now: float, stay: Sequence[str]) -> None:
    """The loss comes first: of two who remove each other's keys at once, one at least sees that of the other."""
    if not repo.index.given_up(name):
        repo.holdings.lose(Loss(os.urandom(layout.OBJECT_ID_LENGTH).hex(), now, objects=(name,)))
        repo.holdings.write()
    repo.holdings.refresh()
    there = repo.key_names()
    if not any(each in there and not repo.index.given_up(each) for each in stay):
        raise errors.Usage(
            f"Somebody else removes, or has removed, the key that you use ({', '.join(map(_short, stay))}). "
            f"{_short(name)} was not removed. Set another password with 'headstart key passwd', and try again."
        )
    repo.store.delete(name)
