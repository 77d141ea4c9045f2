"""What a job gets, and what ends it early."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from headstart import errors
from headstart.server import repositories
from headstart.server.jobs import Job
from headstart.server.repositories import Place
from headstart.server.site import Site


class Halted(errors.HeadstartError):
    """The job is to end: somebody wants it, the worker ends, or another one has it by now."""


class Beat(Protocol):
    """What is done now, how much of it is done, and how much there is. Call it often: it raises ``Halted``."""

    def __call__(self, what: str = "", done: int = 0, total: int = 0) -> None: ...


#: Returns the result that is told of it.
Run = Callable[[Site, Job, Beat], dict[str, Any]]


def place_of(site: Site, job: Job) -> Place:
    """Raises ``NotFound`` when it is gone, ``StoreFailed`` where the place of the objects is: what is not mounted just
    now is not gone."""
    site.require_place()
    with site.database.read() as connection:
        found = repositories.named(connection, job.tenant or "", job.repository or "")
    if found is None or found.id != job.repository:
        raise errors.NotFound("The repository is there no longer.")
    return found
