"""Collecting garbage: what no snapshot needs is condemned, and deleted when its quarantine is over."""

from __future__ import annotations

from typing import Any

from headstart.repository import collect
from headstart.repository.collect import Order
from headstart.server import structure
from headstart.server.jobs import Job
from headstart.server.site import Site
from headstart.server.tended import Tended
from headstart.server.work.contract import Beat, place_of

_TOLD = 100


def run(site: Site, job: Job, beat: Beat) -> dict[str, Any]:
    place = place_of(site, job)
    with structure.open_repository(site, place, beat) as repo:
        order = Order(float(job.arguments.get("quarantine", collect.QUARANTINE)))
        done = collect.collect(repo, order, beat)
        locked = repo.store.locked if isinstance(repo.store, Tended) else 0
    return {
        "snapshots": done.snapshots,
        "freed_bytes": done.freed_bytes,
        "deleted_packs": done.deleted_packs,
        "condemned_bytes": done.condemned_bytes,
        "waiting_bytes": done.waiting_bytes,
        "waiting_seconds": done.waiting_seconds,
        "repacked_bytes": done.repacked_bytes,
        "revoked_drafts": len(done.revoked),
        # Garbage that is immutable still.
        "locked_packs": locked,
        "kept": dict(list(done.kept.items())[:_TOLD]),
    }
