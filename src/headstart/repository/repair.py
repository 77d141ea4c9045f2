"""Repair: what can be put right is, and what is lost is noted for all who come later.

::

    examine -> a loss, durable: from here on no backup counts a bad copy as stored
            -> objects put back from their twins, or from a copy of the repository
            -> healing: good copies go into new packs
            -> an index object: packs that none listed, and which index objects it stands in for

Packs are neither deleted nor changed. The only objects that are removed are those in whose place their own content is
put back, while it is in hand and in the store under another name. Killed anywhere, it is repeated. What the store does
not let go stays ``open``, and holds nothing else up.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from headstart import errors
from headstart.repository import census, config, heal, keys, layout, lease, loss, lost, pack, seal, snapshot, verify
from headstart.repository.census import Pair, Remembered
from headstart.repository.donor import Donor
from headstart.repository.heal import Healed
from headstart.repository.loss import Copies, Hurt, Loss
from headstart.repository.manifest import Manifest
from headstart.repository.repo import Repository
from headstart.repository.verify import Examination, Finding, Progress
from headstart.store.contract import Exists


@dataclass(frozen=True, slots=True)
class Mended:
    """An object that is whole again, or that nobody needs any longer, and how that was done."""

    object: str
    how: str


@dataclass(frozen=True, slots=True)
class Report:
    """``hurt``: what is still lost (``dry_run``: before anything is healed); ``lost_snapshots`` (ids) have no readable
    manifest. ``open``: objects that can neither be put back nor done without."""

    findings: tuple[Finding, ...]
    mended: tuple[Mended, ...]
    healed: tuple[Healed, ...]
    hurt: tuple[Hurt, ...]
    lost_snapshots: tuple[str, ...]
    open: tuple[str, ...]
    loss: str | None
    notes: tuple[str, ...]
    dry_run: bool


@dataclass(frozen=True, slots=True)
class Sources:
    """``mirrors``: copies of this very repository. ``donors``: images of the disks that were backed up."""

    mirrors: Sequence[Repository] = ()
    donors: Sequence[Donor] = ()


@dataclass(frozen=True, slots=True)
class Order:
    """``now`` in seconds since 1970, UTC. ``dry_run``: tell what would be done."""

    now: float
    remembered: Remembered = census.NOTHING
    sources: Sources = field(default_factory=Sources)
    dry_run: bool = False


def run(repo: Repository, order: Order, progress: Progress) -> Report:
    """Raises ``Damaged`` where nothing can be read for sure, ``lease.Held`` while somebody forgets, collects or
    repairs, and what the store raises; may be repeated after that, or after having been killed."""
    _require_one_config(repo)
    # A collector that has marked before a loss is noted may be about to delete the good copy of what is bad elsewhere;
    # and what is being forgotten must not be put back from the twin that is still there.
    if order.dry_run:
        return _run(repo, order, progress, None)
    with lease.collecting(repo, "repair") as held:
        return _run(repo, order, progress, held)


def _run(repo: Repository, order: Order, progress: Progress, held: lease.Beat | None) -> Report:
    found = verify.examine(repo, progress, order.remembered)
    if not found.report.findings and not repo.index.has_losses:
        return Report((), (), (), (), (), (), None, (), order.dry_run)
    work = _Repair(repo, order)
    work.decide(found)
    copies = _bad_copies(repo, found)
    if held is not None:
        held.require()
    repo.holdings.doubt(copies)
    _doubt_deleted(repo)
    noted = work.note(copies, _hurt(repo, found.census.manifests))
    work.put_back()
    manifests = tuple(filter(None, (census.manifest_of(pair) for pair in census.all_pairs(repo))))
    healing = heal.Healing(repo, manifests, order.sources.mirrors, order.sources.donors, dry_run=order.dry_run)
    healing.run()
    hurt = _hurt(repo, manifests)
    if not order.dry_run:
        # A node that was healed tells what is lost below it; so do manifests that were put back.
        noted = work.note({}, hurt) or noted
        repo.holdings.write(sorted(work.replaced))
    return Report(
        found.report.findings,
        tuple(work.mended),
        tuple(healing.healed),
        hurt,
        tuple(work.lost_snapshots),
        tuple(work.open),
        noted,
        tuple(dict.fromkeys([*work.notes, *healing.notes])),
        order.dry_run,
    )


def _doubt_deleted(repo: Repository) -> None:
    """Packs that a collector of garbage has deleted, if it was killed before it took them out of the index: they were
    not examined, and a copy in them heals nothing."""
    there = {pack_id for pack_id, _ in pack.stored(repo.store)}
    repo.holdings.refresh()  # what was needed of them has been copied
    repo.holdings.doubt(dict.fromkeys((repo.index.doomed & repo.index.packs()) - there))


def _hurt(repo: Repository, manifests: Iterable[Manifest]) -> tuple[Hurt, ...]:
    return tuple(each for manifest in manifests for each in lost.hurt(repo, manifest))


def _bad_copies(repo: Repository, found: Examination) -> dict[bytes, Copies]:
    """By pack, those that no loss names yet. All where its own index is broken: none could be rebuilt from it."""
    copies = dict(found.copies)
    for error in found.census.damaged:
        pack_id = pack.id_of(str(error.facts["object"]))
        if pack_id is not None:
            copies[pack_id] = None
    known = {pack_id: loss.copies_of(repo.index.all_losses(), pack_id) for pack_id in copies}
    return {
        pack_id: bad
        for pack_id, bad in copies.items()
        if (noted := known[pack_id]) is not None and (bad is None or not bad <= noted)
    }


def _is_noted(hurt: Hurt, noted: Copies) -> bool:
    return noted is None or (hurt.chunks is not None and noted.issuperset(hurt.chunks))


class _Repair:
    """What happens to objects other than packs."""

    def __init__(self, repo: Repository, order: Order) -> None:
        self._repo = repo
        self._order = order
        self.mended: list[Mended] = []
        #: Index objects and losses whose content was found again elsewhere.
        self.replaced: list[str] = []
        self.given_up: list[str] = []
        self.lost_snapshots: list[str] = []
        self.open: list[str] = []
        self.notes: list[str] = []
        self._puts: list[tuple[str, bytes, str]] = []

    def decide(self, found: Examination) -> None:
        pairs: set[str] = set()
        for error in found.census.damaged:
            name = str(error.facts["object"])
            folder, _, rest = name.rpartition("/")
            if name in (layout.CONFIG_KEY, layout.CONFIG_TWIN):
                self._config(name)
            elif f"{folder}/" in (layout.SNAPSHOTS, layout.TWINS):
                pairs.add(rest)
            elif f"{folder}/" == layout.KEYS:
                self._key(name)
            elif f"{folder}/" == layout.INDEXES:
                self._stand_in(name, "what it listed was read from the packs")
            elif f"{folder}/" == layout.LOSSES:
                self._stand_in(name, "what it noted was found again")
            elif name.startswith(layout.DRAFTS):
                self._give_up(name, "its draft may lose its head start, and ends with the next backup")
        for each in sorted(pairs):
            self._pair(census.read_pair(self._repo, each))

    def note(self, copies: Mapping[bytes, Copies], hurt: Sequence[Hurt]) -> str | None:
        """The loss, if there is anything to note; its id."""
        index = self._repo.index
        known = loss.hurt_by(index.all_losses())
        fresh = tuple(each for each in hurt if not _is_noted(each, known.get((each.snapshot, each.name), loss.NONE)))
        told = {each for noted in index.all_losses() for each in noted.snapshots}
        given_up = all(map(index.given_up, self.given_up))
        if not copies and not fresh and given_up and told.issuperset(self.lost_snapshots):
            return None
        loss_id = os.urandom(layout.OBJECT_ID_LENGTH).hex()
        noted = Loss(loss_id, self._order.now, copies, tuple(self.given_up), tuple(self.lost_snapshots), fresh)
        if not self._order.dry_run:
            self._repo.holdings.lose(noted)
        return loss_id

    def _config(self, name: str) -> None:
        other = layout.CONFIG_TWIN if name == layout.CONFIG_KEY else layout.CONFIG_KEY
        places = [(self._repo, other), *((mirror, name) for mirror in self._order.sources.mirrors)]
        for repo, source in places:
            try:
                stored = config.read(repo.store, source)
                stored.check(self._repo.secrets)
            except errors.HeadstartError:
                continue
            how = "put back from its twin" if repo is self._repo else "put back from the copy of the repository"
            self._put(name, stored.data, how)
            return
        self.open.append(name)

    def _key(self, name: str) -> None:
        for mirror in self._order.sources.mirrors:
            try:
                data = mirror.store.read(name)
                keys.KeyObject.decode(name, data)
            except errors.HeadstartError:
                continue
            self._put(name, data, "put back from the copy of the repository")
            return
        self._give_up(name, "its password opens nothing any longer; the others do")

    def _pair(self, pair: Pair) -> None:
        own, twin = snapshot.key_of(pair.id), snapshot.twin_of(pair.id)
        if isinstance(pair.own, bytes) and isinstance(pair.twin, bytes):
            if pair.own != pair.twin:
                self.open += [own, twin]
            return
        payload = pair.payload or self._of_mirror(pair.id)
        if payload is None:
            self.lost_snapshots.append(pair.id)
            self.open.append(own)
            return
        for kind, name, stored in ((layout.Kind.TWIN, twin, pair.twin), (layout.Kind.SNAPSHOT, own, pair.own)):
            if not isinstance(stored, bytes):
                how = "put back from its twin" if pair.payload else "put back from the copy of the repository"
                self._put(name, seal.seal_object(self._repo.secrets, kind, name, payload), how)

    def _of_mirror(self, snapshot_id: str) -> bytes | None:
        for mirror in self._order.sources.mirrors:
            payload = census.read_pair(mirror, snapshot_id).payload
            if payload is not None:
                return payload
        return None

    def _stand_in(self, name: str, how: str) -> None:
        self.replaced.append(name)
        self.mended.append(Mended(name, how))

    def _give_up(self, name: str, how: str) -> None:
        self.given_up.append(name)
        self.mended.append(Mended(name, how))

    def _put(self, name: str, data: bytes, how: str) -> None:
        self._puts.append((name, data, how))

    def put_back(self) -> None:
        """In place of what is damaged. Its content stands elsewhere until it is done."""
        for name, data, how in self._puts:
            try:
                if not self._order.dry_run:
                    self._replace(name, data)
            except (errors.StoreFailed, errors.Unsupported) as error:
                self.open.append(name)
                self.notes.append(f"{name} could not be put back: {error}")
            else:
                self.mended.append(Mended(name, how))

    def _replace(self, name: str, data: bytes) -> None:
        """What is missing need not be deleted, which not everybody may."""
        try:
            self._repo.store.create(name, data)
        except Exists:
            self._repo.store.delete(name)
            self._repo.store.create(name, data)


def _require_one_config(repo: Repository) -> None:
    contents = {name: _config_of(repo, name) for name in (layout.CONFIG_KEY, layout.CONFIG_TWIN)}
    if len({data for data in contents.values() if data is not None}) > 1:
        raise errors.Damaged(
            f"{' and '.join(contents)} are both of this repository, and say different things: nothing was touched. "
            "Put the right one back from a copy of the repository, under both names.",
            object=layout.CONFIG_KEY,
            objects=list(contents),
        )


def _config_of(repo: Repository, name: str) -> bytes | None:
    """The content of a config that is whole, else None."""
    try:
        stored = config.read(repo.store, name)
        stored.check(repo.secrets)
    except errors.HeadstartError:
        return None
    return stored.data
