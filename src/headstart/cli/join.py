"""``headstart join``: become a host of a server's fleet."""

from __future__ import annotations

import argparse
import socket

from headstart import __version__, errors
from headstart.cli import arguments
from headstart.cli.session import Session
from headstart.store import membership
from headstart.store.membership import Membership
from headstart.wire.https import Client, Identity


def add(verbs: arguments.Verbs) -> None:
    parser = arguments.add_verb(verbs, "join", run, "Join this host to a server, with a token that its admin made.")
    parser.add_argument("url", metavar="URL", help="https://HOST[:PORT]")
    parser.add_argument("token", metavar="TOKEN", help="hsj_..., which serves once")
    parser.add_argument(
        "--name", metavar="NAME", default=socket.gethostname(), help="of this host (default: %(default)s)"
    )


def run(session: Session, given: argparse.Namespace) -> None:
    # hsj_<id>_<secret>_<fingerprint>: whom to trust comes with what only the right one knows.
    words = given.token.strip().split("_")
    if words[0] != "hsj" or len(words) not in (3, 4):
        raise errors.Usage("That is no token to join with: one begins with hsj_. An admin of the tenant makes it.")
    fingerprint = words[3] if len(words) == 4 else ""
    url = membership.server_of(given.url)
    with session.journal() as journal:
        asked = {
            "token": given.token.strip(),
            "name": given.name,
            "installation": journal.installation,
            "version": __version__,
        }
    client = Client(Identity(url, "", fingerprint))
    told = client.call("POST", "/v1/host/join", asked)
    joined = Membership(
        url=url,
        token=told["token"],
        fingerprint=fingerprint,
        tenant=told["tenant"],
        host=told["host"],
        repository=told["repository"],
        expires=told["expires"],
    )
    membership.save(session.settings.state / membership.FILE, joined)
    session.output.result(
        {"url": url, "tenant": joined.tenant, "host": given.name, "repository": joined.address},
        f"This host is {given.name} of the tenant {joined.tenant}. Its repository is {joined.address}: make it with"
        " 'headstart --repository URL init', unless another host has. 'headstart run' does the rest.",
    )
