"""Labels: tags of snapshots, and their protection. A manifest is never changed, so they are objects beside it.

``labels/<snapshot id>/<random id>`` says one thing. Who may only add can tag and protect; taking that back is a
deletion.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from headstart import errors
from headstart.repository import layout, lease, snapshot, values
from headstart.repository.repo import Repository
from headstart.store.contract import Missing

#: A tag: what a shell and a table take without quotes.
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:+@-]{0,63}")


@dataclass(frozen=True, slots=True)
class Labels:
    """Of one snapshot."""

    tags: frozenset[str] = frozenset()
    protected: bool = False


NONE = Labels()


def check_tag(tag: str) -> str:
    """``tag`` itself; ``Usage`` when it cannot be one."""
    if not _TAG.fullmatch(tag):
        raise errors.Usage(
            f"{tag!r} cannot be a tag: it takes letters, digits, '_', '.', ':', '+', '@' and '-', 64 at most."
        )
    return tag


def all_labels(repo: Repository, snapshot_id: str = "") -> Mapping[str, Labels]:
    """By snapshot; of one, if it is named. What cannot be read may have been a protection, and counts as one."""
    found: dict[str, Labels] = {}
    for labelled, name in _names(repo, snapshot_id):
        known = found.get(labelled, NONE)
        try:
            tag = _read(repo, name)
        except Missing:
            continue
        except errors.Damaged:
            tag = None
        found[labelled] = Labels(known.tags | ({tag} if tag else set()), known.protected or tag is None)
    return found


def protect(repo: Repository, snapshot_id: str) -> None:
    """Raises ``NotFound`` when it was forgotten meanwhile, and ``lease.Held`` when that may be going on: who forgets
    takes a lease before he looks at labels, and here it is looked for after one is written."""
    if not of(repo, snapshot_id).protected:
        _write(repo, snapshot_id, {"protected": True})
    try:
        lease.look_for(repo, "forget")
    except lease.Held as error:
        raise lease.Held(f"{error} The protection may have come too late: repeat it then.", **error.facts) from None
    snapshot.load(repo, snapshot_id)


def tag(repo: Repository, snapshot_id: str, tags: Iterable[str]) -> None:
    for each in sorted(set(tags) - of(repo, snapshot_id).tags):
        _write(repo, snapshot_id, {"tag": check_tag(each)})


def unprotect(repo: Repository, snapshot_id: str) -> None:
    """Also what cannot be read goes."""
    _remove(repo, snapshot_id, {None})


def untag(repo: Repository, snapshot_id: str, tags: Iterable[str]) -> None:
    _remove(repo, snapshot_id, set(tags))


def drop(repo: Repository, snapshot_id: str) -> None:
    """All of them: the snapshot is forgotten."""
    for _, name in list(_names(repo, snapshot_id)):
        repo.store.delete(name)


def of(repo: Repository, snapshot_id: str) -> Labels:
    return all_labels(repo, snapshot_id).get(snapshot_id, NONE)


def _remove(repo: Repository, snapshot_id: str, wanted: set[str | None]) -> None:
    for _, name in list(_names(repo, snapshot_id)):
        try:
            tag = _read(repo, name)
        except errors.Damaged:
            tag = None
        if tag in wanted:
            repo.store.delete(name)


def _names(repo: Repository, snapshot_id: str = "") -> list[tuple[str, str]]:
    prefix = layout.LABELS + (f"{snapshot_id}/" if snapshot_id else "")
    found = [(name.split("/"), name) for name, _ in repo.store.list(prefix)]
    return sorted((parts[1], name) for parts, name in found if len(parts) == 3 and layout.is_object_id(parts[1]))


def _write(repo: Repository, snapshot_id: str, told: Mapping[str, object]) -> None:
    key = f"{layout.LABELS}{snapshot_id}/{os.urandom(layout.OBJECT_ID_LENGTH).hex()}"
    repo.put_object(layout.Kind.LABEL, key, json.dumps(told, separators=(",", ":")).encode())


def _read(repo: Repository, name: str) -> str | None:
    """The tag; None is a protection."""
    try:
        told = values.parse(repo.get_object(layout.Kind.LABEL, name))
        return None if told.get("protected") is True else check_tag(values.text(told["tag"]))
    except (ValueError, KeyError, errors.Usage):
        raise errors.Damaged(f"{name} is damaged: it cannot be decoded.", object=name) from None
