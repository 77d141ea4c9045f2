"""A copy of the catalogue into the store, and names beside what is there."""

from __future__ import annotations

from typing import Any

from headstart.server import dumps, signposts
from headstart.server.jobs import Job
from headstart.server.site import Site
from headstart.server.work.contract import Beat


def run(site: Site, job: Job, beat: Beat) -> dict[str, Any]:
    named = signposts.put(site)
    beat("copying the catalogue")
    return {"named": named, "copy": dumps.make(site)}
