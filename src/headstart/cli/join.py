"""``headstart join`` and ``headstart leave``: become a host of a server's fleet, and be none any longer."""

from __future__ import annotations

import argparse
import socket

from headstart import errors
from headstart.cli import arguments
from headstart.cli.session import Session
from headstart.store import membership
from headstart.store.membership import Membership
from headstart.wire.https import Identity


def add(verbs: arguments.Verbs) -> None:
    parser = arguments.add_verb(verbs, "join", run, "Join this host to a server, with a token that its admin made.")
    parser.add_argument("url", metavar="URL", help="https://HOST[:PORT]")
    parser.add_argument("token", metavar="TOKEN", help="hsj_..., which serves once")
    parser.add_argument(
        "--name", metavar="NAME", default=socket.gethostname(), help="of this host (default: %(default)s)"
    )
    parser.add_argument(
        "--again", action="store_true", help="also where it has joined a server already: that one is left as it is"
    )
    leaving = arguments.add_verb(verbs, "leave", run_leave, "Be no host of the server any longer; snapshots stay.")
    leaving.add_argument(
        "--unheard", action="store_true", help="also where the server cannot be told: its admin revokes the token there"
    )


def run(session: Session, given: argparse.Namespace) -> None:
    # hsj_<id>_<secret>_<fingerprint>: whom to trust comes with what only the right one knows.
    words = given.token.strip().split("_")
    if words[0] != "hsj" or len(words) not in (3, 4):
        raise errors.Usage("That is no token to join with: one begins with hsj_. An admin of the tenant makes it.")
    identity = Identity(membership.server_of(given.url), "", words[3] if len(words) == 4 else "")
    before = _before(session)
    if before is not None and not given.again:
        raise errors.Usage(
            f"This host has joined {before.url} already, for the tenant {before.tenant}. 'headstart leave' first; or"
            " --again, to join anew what does not know it any longer."
        )
    # Of no use to other commands, and slow to load.
    from headstart.host import document, remote

    with session.journal() as journal:
        joined = remote.join(identity, given.token.strip(), given.name, journal.installation)
    membership.save(session.settings.joined, joined)
    if before is not None and before.host != joined.host:
        document.forget(session.settings.state)
    session.output.result(
        {"url": joined.url, "tenant": joined.tenant, "host": given.name, "repository": joined.address},
        f"This host is {given.name} of the tenant {joined.tenant}. Its repository is {joined.address}: make it with"
        " 'headstart --repository URL init', unless another host has. 'headstart run' does the rest.",
    )


def run_leave(session: Session, given: argparse.Namespace) -> None:
    from headstart.host import document, remote

    path = session.settings.joined
    joined = membership.load(path)
    if joined is None:
        raise errors.Usage("This host has joined no server.")
    heard = True
    try:
        remote.Remote(joined).leave()
    except errors.WrongPassword:
        # It does not know this host any longer: that is what was wanted.
        pass
    except errors.HeadstartError as error:
        if not given.unheard:
            raise errors.StoreFailed(f"{error} To leave without telling the server: --unheard.") from error
        heard = False
    path.unlink(missing_ok=True)
    document.forget(session.settings.state)
    told = "" if heard else " The server was not told: its admin revokes the token of this host there."
    session.output.result(
        {"url": joined.url, "tenant": joined.tenant, "told": heard},
        f"This host is none of {joined.url} any longer. What was backed up there stays; policies of the server do not"
        f" hold any longer.{told}",
    )


def _before(session: Session) -> Membership | None:
    try:
        return membership.load(session.settings.joined)
    except errors.Damaged:
        # Joining is what mends it.
        return None
