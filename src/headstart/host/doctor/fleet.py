"""The server that this host has joined: whether it answers and knows us, and what becomes of its policies."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

from headstart import errors
from headstart.host import document
from headstart.host.doctor.finding import Finding, Level, of_error
from headstart.host.doctor.subject import Subject
from headstart.host.policy import Config
from headstart.host.remote import Remote
from headstart.store import membership
from headstart.store.membership import Membership

_DAY = 86400.0
#: The daemon replaces a token long before.
_ENDS_SOON_DAYS = 14.0


def server(subject: Subject) -> Iterator[Finding]:
    check, path = "server", subject.state / membership.FILE
    joined = membership.load(path)
    if joined is None:
        return
    if path.stat().st_mode & 0o077:
        yield Finding(check, Level.WARNING, f"{path} can be read by others", f"chmod 600 {path}")
    remote = Remote(joined)
    try:
        # What is there is there still, or there is another one: both are an answer.
        remote.policies(document.kept(subject.state))
    except errors.StoreFailed as error:
        yield of_error(check, error, Level.WARNING)
        yield Finding(check, Level.NOTE, "backups go on by the last policies while the server is away")
    except errors.HeadstartError as error:
        yield of_error(check, error)
    else:
        yield Finding(check, Level.OK, f"{joined.url} answers; this host is one of the tenant {joined.tenant}")
    finally:
        remote.close()
    yield from _token(check, subject, joined)
    yield from _policies(check, subject)


def _token(check: str, subject: Subject, joined: Membership) -> Iterator[Finding]:
    days = (joined.expires - subject.clock()) / _DAY
    if days < _ENDS_SOON_DAYS:
        when = f"{datetime.fromtimestamp(joined.expires):%Y-%m-%d}"
        said = f"its token ends on {when}, and was not replaced"
        yield Finding(check, Level.WARNING, said, "'headstart run' replaces it: see whether it runs, and reaches it.")


def _policies(check: str, subject: Subject) -> Iterator[Finding]:
    config = subject.config
    if not isinstance(config, Config):
        return
    if config.refused[1]:
        said = "the policies that were kept of the server cannot be used"
        yield Finding(
            check, Level.PROBLEM, said, "The log of 'headstart run' says why; an admin of the tenant mends them."
        )
    if config.overridden:
        said = f"this host's own configuration comes before the server's: {', '.join(config.overridden)}"
        yield Finding(check, Level.NOTE, said)
