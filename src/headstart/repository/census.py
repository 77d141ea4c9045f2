"""The census: what should be there, by what other objects say, is there and is what was written. Packs are not read.

===================  ==============================================================
object               who misses it
===================  ==============================================================
config               its twin; whoever opens the repository
keys/                the newest manifest
indexes/, losses/    later index objects, manifests and draft records link them
snapshots/           their twins, and the host that published them
twins/               the manifests
drafts/              a later record of the same draft, and the host that it belongs to
===================  ==============================================================
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from headstart import errors
from headstart.repository import config, draft, keys, layout, manifest, objects, snapshot
from headstart.repository.link import Link
from headstart.repository.manifest import Manifest
from headstart.repository.repo import Repository
from headstart.store.contract import Missing


@dataclass(frozen=True, slots=True)
class Remembered:
    """What a host knows of the repository: ``snapshots`` that it published, the number of records of its ``drafts``."""

    snapshots: tuple[str, ...] = ()
    drafts: Mapping[str, int] = field(default_factory=dict)


NOTHING = Remembered()


@dataclass(frozen=True, slots=True)
class Census:
    """``manifests``: of all snapshots, of those whose own cannot be read by their twins. ``damaged``: an error for each
    object that is damaged or missing."""

    manifests: tuple[Manifest, ...]
    damaged: tuple[errors.Damaged, ...]


@dataclass(frozen=True, slots=True)
class Pair:
    """What stands under the key of a manifest, and its twin: payload, error, or None where nothing is."""

    id: str
    own: bytes | errors.Damaged | None
    twin: bytes | errors.Damaged | None

    @property
    def payload(self) -> bytes | None:
        """What it is, by whichever of the two tells."""
        return next((each for each in (self.own, self.twin) if isinstance(each, bytes)), None)


def take(repo: Repository, remembered: Remembered) -> Census:
    pairs = list(all_pairs(repo))
    drafts = draft.names(repo)
    manifests = tuple(
        sorted((found for pair in pairs if (found := manifest_of(pair))), key=lambda found: (found.created, found.id))
    )
    records, unreadable = _records(repo, drafts)
    ended = {pair.id for pair in pairs}
    damaged = [
        *_configs(repo),
        *_keys(repo, manifests),
        *_linked(repo, manifests, records),
        *(error for pair in pairs for error in _disagreeing(repo, pair, drafts)),
        *unreadable,
        *_forgotten(repo, remembered, ended, drafts),
    ]
    return Census(manifests, tuple(_unique(repo, damaged)))


def all_pairs(repo: Repository) -> Iterator[Pair]:
    ids = {
        name.removeprefix(prefix)
        for prefix in (layout.SNAPSHOTS, layout.TWINS)
        for name in objects.names(repo.store, prefix)
    }
    for each in sorted(ids):
        yield read_pair(repo, each)


def read_pair(repo: Repository, snapshot_id: str) -> Pair:
    twin = _payload(repo, layout.Kind.TWIN, snapshot.twin_of(snapshot_id))
    own = _payload(repo, layout.Kind.SNAPSHOT, snapshot.key_of(snapshot_id))
    return Pair(snapshot_id, own, twin)


def _payload(repo: Repository, kind: layout.Kind, name: str) -> bytes | errors.Damaged | None:
    try:
        payload = repo.get_object(kind, name)
        if not snapshot.is_tombstone(payload) and manifest.decode(payload).id != name.rpartition("/")[2]:
            raise ValueError("another id")
    except Missing:
        return None
    except errors.Damaged as error:
        return error
    except (ValueError, KeyError, TypeError):
        return errors.Damaged(f"{name} is damaged: it cannot be decoded.", object=name)
    return payload


def manifest_of(pair: Pair) -> Manifest | None:
    """None for a tombstone, and where nothing can be read."""
    payload = pair.payload
    return None if payload is None or snapshot.is_tombstone(payload) else manifest.decode(payload)


def _disagreeing(repo: Repository, pair: Pair, drafts: Mapping[str, object]) -> Iterator[errors.Damaged]:
    own, twin = snapshot.key_of(pair.id), snapshot.twin_of(pair.id)
    if isinstance(pair.own, bytes) and pair.twin is None:
        # Its run may not have come to that: then there is still the draft, and if it has now, the twin.
        if snapshot.has_twin(pair.own) and pair.id not in drafts and read_pair(repo, pair.id).twin is None:
            yield _missing(twin, f"{own} says that it was written. The snapshot is whole")
        return
    for name, found, other in ((own, pair.own, twin), (twin, pair.twin, own)):
        if isinstance(found, errors.Damaged):
            yield found
        elif found is None:
            yield _missing(name, f"{other} says that it was written")
    if isinstance(pair.own, bytes) and isinstance(pair.twin, bytes) and pair.own != pair.twin:
        for name, other in ((own, twin), (twin, own)):
            yield errors.Damaged(
                f"{name} is not what {other} says: one of the two is of another time or of a copy of this repository, "
                "and was put in place of the right one.",
                object=name,
            )


def _configs(repo: Repository) -> Iterator[errors.Damaged]:
    own, twin = _config(repo, layout.CONFIG_KEY), _config(repo, layout.CONFIG_TWIN)
    if isinstance(own, errors.Damaged):
        yield own
    if isinstance(twin, errors.Damaged) and (isinstance(own, errors.Damaged) or own.twin):
        yield twin
    if isinstance(own, config.StoredConfig) and isinstance(twin, config.StoredConfig) and own.data != twin.data:
        for name, other in ((layout.CONFIG_KEY, layout.CONFIG_TWIN), (layout.CONFIG_TWIN, layout.CONFIG_KEY)):
            yield errors.Damaged(f"{name} is not what {other} says: one of the two was replaced.", object=name)


def _config(repo: Repository, name: str) -> config.StoredConfig | errors.Damaged:
    try:
        found = config.read(repo.store, name)
        found.check(repo.secrets)
    except errors.NoRepository:
        return errors.Damaged(f"{name} is missing, or no config at all.", object=name)
    except (errors.Damaged, errors.Unsupported) as error:
        return errors.Damaged(str(error), object=name)
    if found.config.repository_id != repo.secrets.repository_id:
        return errors.Damaged(f"{name} is of another repository.", object=name)
    return found


def _keys(repo: Repository, manifests: Iterable[Manifest]) -> Iterator[errors.Damaged]:
    for error in keys.unusable(repo.store):
        if isinstance(error, errors.Damaged):
            yield error
    newest = max((each for each in manifests if each.keys), key=lambda each: each.created, default=None)
    there = set(repo.key_names())
    for name in newest.keys if newest else ():
        if name not in there:
            yield _missing(name, f"it was there when snapshot {newest.id if newest else ''} was made")


def _linked(
    repo: Repository, manifests: Iterable[Manifest], records: Iterable[draft.Record]
) -> Iterator[errors.Damaged]:
    index = repo.index
    repo.holdings.refresh()
    yield from repo.holdings.damaged
    links = {Link(name, digest) for name, digest in index.linked().items()}
    links.update(link for each in manifests for link in each.links)
    links.update(link for each in records for link in each.links)
    unreadable = {error.facts["object"] for error in repo.holdings.damaged}
    for link in sorted(links):
        if link.name in unreadable or index.given_up(link.name):
            continue
        digest = index.digest(link.name) or _digest(repo, link.name)
        if digest is None:
            yield _missing(link.name, "objects that were written after it name it")
        elif digest != link.digest:
            yield errors.Damaged(
                f"{link.name} is not the object that was written: another one was put in its place.", object=link.name
            )


def _digest(repo: Repository, name: str) -> bytes | None:
    """Of what was written since the index was loaded."""
    try:
        return Link.to(name, repo.store.read(name)).digest
    except Missing:
        return None
    except errors.Damaged:
        return b""


def _records(repo: Repository, drafts: Mapping[str, list[str]]) -> tuple[list[draft.Record], list[errors.Damaged]]:
    found: list[draft.Record] = []
    damaged: list[errors.Damaged] = []
    for draft_id, names in drafts.items():
        last = int(names[-1].rpartition("/")[2])
        for number in range(last + 1):
            name = draft.key_of(draft_id, number)
            try:
                found.append(draft.read(repo, name))
            except Missing:
                # They are removed from the last on, once their snapshot is published.
                if names[-1] in draft.names(repo).get(draft_id, ()):
                    damaged.append(_missing(name, "a later record of its draft is there"))
            except errors.Damaged as error:
                damaged.append(error)
    return found, damaged


def _forgotten(
    repo: Repository, remembered: Remembered, ended: set[str], drafts: Mapping[str, list[str]]
) -> Iterator[errors.Damaged]:
    for each in remembered.snapshots:
        if each not in ended:
            yield _missing(snapshot.key_of(each), "this host published it")
    for draft_id, count in remembered.drafts.items():
        last = max((int(name.rpartition("/")[2]) for name in drafts.get(draft_id, ())), default=-1)
        # Published while we looked, it is gone as it should be.
        if last + 1 < count and draft_id not in ended and read_pair(repo, draft_id).own is None:
            yield from (
                _missing(draft.key_of(draft_id, number), "this host wrote it") for number in range(last + 1, count)
            )


def _missing(name: str, why: str) -> errors.Damaged:
    return errors.Damaged(f"{name} is missing: {why}.", object=name)


def _unique(repo: Repository, damaged: Iterable[errors.Damaged]) -> Iterator[errors.Damaged]:
    """The first that is said of each object, without those that a repair has given up."""
    named: set[object] = set()
    for error in damaged:
        name = error.facts["object"]
        if name not in named and not repo.index.given_up(str(name)):
            named.add(name)
            yield error
