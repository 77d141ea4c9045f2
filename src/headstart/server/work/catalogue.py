"""The catalogue of a repository's snapshots, made anew from the repository itself."""

from __future__ import annotations

import dataclasses
from typing import Any

from sqlalchemy import delete, insert, select, update

from headstart.batches import batched
from headstart.repository import proof, snapshot
from headstart.repository.manifest import Manifest
from headstart.repository.proof import Proof
from headstart.server import structure, tables
from headstart.server.jobs import Job
from headstart.server.repositories import Place
from headstart.server.site import Site
from headstart.server.work.contract import Beat, place_of

_BATCH = 500


def run(site: Site, job: Job, beat: Beat) -> dict[str, Any]:
    """Nothing that the catalogue knows beyond the manifests is lost."""
    place = place_of(site, job)
    its = tables.snapshots.c
    mine = (its.tenant == place.tenant, its.repository == place.id)
    # Before: what is published meanwhile is not taken for forgotten.
    with site.database.read() as connection:
        # Those that a host has elsewhere are not missing here.
        known = set(connection.execute(select(its.id).where(*mine, its.place.is_(None))).scalars())
    with structure.open_repository(site, place, beat) as repo:
        beat("reading manifests")
        listing = snapshot.all_manifests(repo)
        proofs = proof.all_proofs(repo)
    there = {each.id: each for each in listing.manifests}
    unread = {str(error.facts.get("object", "")).rpartition("/")[2] for error in listing.damaged}
    gone = known - there.keys() - unread
    fresh = [each for each in listing.manifests if each.id not in known]
    with site.database.write() as connection:
        for batch in batched(sorted(gone), _BATCH):
            connection.execute(delete(tables.snapshots).where(*mine, its.id.in_(batch)))
        # A host may have reported one since.
        now_known = set(connection.execute(select(its.id).where(*mine)).scalars())
        for some in batched([each for each in fresh if each.id not in now_known], _BATCH):
            connection.execute(insert(tables.snapshots), [_row(place, each) for each in some])
        for each, shown in proofs.items():
            if each in there:
                # A clock that was ahead must not hide what comes after it.
                values = {"proof": _told(shown[-1]), "rehearsed": min(shown[-1].time, site.clock())}
                connection.execute(update(tables.snapshots).where(*mine, its.id == each).values(values))
    return {"snapshots": len(there), "added": len(fresh), "removed": len(gone), "damaged": len(listing.damaged)}


def _row(place: Place, manifest: Manifest) -> dict[str, Any]:
    return {
        "repository": place.id,
        "tenant": place.tenant,
        "id": manifest.id,
        "vm": manifest.vm[:255],
        "host": manifest.host[:255],
        "created": manifest.created,
        "consistency": manifest.consistency[:32],
        "size": sum(disk.size for disk in manifest.disks),
    }


def _told(shown: Proof) -> dict[str, Any]:
    return dataclasses.asdict(shown)
