"""``headstart server catalogue ...``: copies of the server's database, the way back, and beginning anew without one."""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from headstart import errors
from headstart.cli import arguments
from headstart.cli.session import Session

if TYPE_CHECKING:
    from headstart.server.settings import Settings
    from headstart.server.site import Site

MISSING = "The server needs more packages: install headstart-server (Debian), or 'headstart[server]' (pip, pipx)."
Chosen = Callable[[argparse.Namespace], "Settings"]


def add(group: arguments.Verbs, places: Callable[[argparse.ArgumentParser], None], chosen: Chosen) -> None:
    """``places`` adds the options that say where the server is, which ``chosen`` reads."""
    verbs = arguments.add_group(group, "catalogue", "Copies of the server's database in its store, and the way back.")

    def verb(name: str, run: Callable[[Session, Site, argparse.Namespace], None], summary: str) -> arguments.Parser:
        def with_site(session: Session, given: argparse.Namespace) -> None:
            with _opened(chosen(given)) as site:
                run(session, site, given)

        parser = arguments.add_verb(verbs, name, with_site, summary)
        places(parser)
        return parser

    verb("copy", run_copy, "Make a copy now; the server does so every day.")
    verb("list", run_list, "List the copies.")
    restoring = verb("restore", run_restore, "Fill an empty database, of either kind, from a copy.")
    restoring.add_argument("name", metavar="NAME", nargs="?", help="of a copy (default: the newest)")
    verb("rebuild", run_rebuild, "Without any copy: find tenants and repositories by their objects.")


@contextlib.contextmanager
def _opened(settings: Settings) -> Iterator[Site]:
    try:
        from headstart.server import site
    except ModuleNotFoundError as error:
        raise errors.Usage(MISSING) from error

    opened = site.open_site(settings)
    try:
        yield opened
    finally:
        opened.database.close()


def run_copy(session: Session, site: Site, given: argparse.Namespace) -> None:
    from headstart.server import dumps, signposts

    signposts.put(site)
    name = dumps.make(site)
    session.output.result({"name": name}, f"Made the copy {name}.")


def run_list(session: Session, site: Site, given: argparse.Namespace) -> None:
    from headstart.server import dumps

    found = dumps.names(site)
    lines = [f"{name}  {datetime.fromtimestamp(int(name), UTC):%Y-%m-%d %H:%M} UTC" for name in found]
    session.output.result({"copies": found}, "\n".join(lines) or "There is no copy.")


def run_restore(session: Session, site: Site, given: argparse.Namespace) -> None:
    from headstart.server import dumps

    name = given.name or next(reversed(dumps.names(site)), None)
    if name is None:
        raise errors.NotFound(
            "There is no copy in the store. 'headstart server catalogue rebuild' goes by the objects."
        )
    counts = dumps.restore(site, name)
    session.output.result(
        {"name": name, "rows": counts}, f"Restored {sum(counts.values())} rows of {len(counts)} tables from {name}."
    )


def run_rebuild(session: Session, site: Site, given: argparse.Namespace) -> None:
    from headstart.server import rebuild

    done = rebuild.rebuild(site)
    session.output.result(
        {"tenants": done.tenants, "repositories": done.repositories, "unnamed": done.unnamed},
        f"Found {done.tenants} tenants with {done.repositories} repositories ({done.unnamed} without their names)."
        " Make an admin of the site with 'headstart server admin', who makes the first ones of"
        " tenants; hosts join again.",
    )
