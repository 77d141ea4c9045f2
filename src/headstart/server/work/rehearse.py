"""Rehearsals: a host that offers itself starts a snapshot and tells what it saw. The server cannot by itself: it has no
key of the content."""

from __future__ import annotations

from typing import Any

from headstart import errors
from headstart.server.jobs import Job
from headstart.server.site import Site
from headstart.server.work.contract import Beat


def run(site: Site, job: Job, beat: Beat) -> dict[str, Any]:
    raise errors.Unsupported("No host of the tenant offers itself for rehearsals.")
