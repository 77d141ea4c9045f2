"""Every error that leaves a layer, cut by what the caller can do next.

::

    HeadstartError                 1   something failed; the message says what and what to do
    |- Usage                       2   change the command
    |- Incomplete                  3   done, but something was left out; the message says which
    |- NoRepository               10   create it, or correct the URL
    |- Locked                     11   another process holds it: wait
    |- WrongPassword              12   correct the password
    |- Damaged                    13   an object is damaged or missing: verify, restore another snapshot
    |- Unsupported                14   written by a newer version, or a place that lacks what we need
    |- NotFound                   15   no VM, disk or snapshot of that name
    |- Unreachable                20   the VM cannot be talked to: wrong socket, busy socket, gone
    |- Busy                       21   somebody else works on the VM's disks: wait or end it
    |- PointLost                  22   the point in time broke; the guest was not hurt: try again
    |- NoSpace                    23   make room, or name another place
    |- TargetRefused              24   the target exists, is too small, or is in use
    |- StoreFailed                25   the store did not do what was asked: try again
    |- HookFailed                 26   a hook failed or ran out of time
    |- NotReady                   27   the doctor found a problem: do what it advises
    |- NotProven                 28   a rehearsal has not passed: see what it saw, try another snapshot
    |- Denied                    29   whoever asked may not do that: ask for the right, or somebody who has it
    |- TooOften                  30   asked too often: wait, then ask again
    |- Interrupted               130   ended by the user

``EXIT_CODES`` and ``HTTP_STATUS`` are the only places where a status is chosen.
"""

from __future__ import annotations


class HeadstartError(Exception):
    """An error for the user: ``str(error)`` is one or more plain sentences.

    ``facts`` holds the values behind the sentence for ``--json`` and for callers.
    """

    def __init__(self, message: str, **facts: object) -> None:
        super().__init__(message)
        self.facts = facts


class Usage(HeadstartError):
    """The command cannot mean anything as given."""


class Incomplete(HeadstartError):
    """The work was done, except for what the message names."""


class NoRepository(HeadstartError):
    """There is no repository at this address."""


class Locked(HeadstartError):
    """Another process of ours holds the VM or the state."""


class WrongPassword(HeadstartError):
    """No key of the repository opens with this password."""


class Damaged(HeadstartError):
    """A stored object is not what was written, or is missing."""


class Unsupported(HeadstartError):
    """A newer format, or a place that cannot keep our promises."""


class NotFound(HeadstartError):
    """Nothing of that name."""


class Unreachable(HeadstartError):
    """The VM (or its guest agent) does not answer."""


class Busy(HeadstartError):
    """A foreign job, filter or migration is in the way."""


class PointLost(HeadstartError):
    """The point in time does not hold any longer. The guest goes on, this backup does not."""


class NoSpace(HeadstartError):
    """A file system is full, or too small for what is about to be done."""


class TargetRefused(HeadstartError):
    """The place to restore to must not or cannot be written."""


class StoreFailed(HeadstartError):
    """The store failed in a way that may pass."""


class HookFailed(HeadstartError):
    """A user's hook failed."""


class NotReady(HeadstartError):
    """Something keeps backups from working, or from coming."""


class NotProven(HeadstartError):
    """A snapshot was started, and did not live as it should."""


class Denied(HeadstartError):
    """Whoever asks is known, and has no right to it."""


class TooOften(HeadstartError):
    """More was asked than is good for everybody. ``facts["seconds"]``: after which to ask again."""


class Interrupted(HeadstartError):
    """The user ended the command."""


#: Exit status by class; the nearest base class decides.
EXIT_CODES: dict[type[HeadstartError], int] = {
    HeadstartError: 1,
    Usage: 2,
    Incomplete: 3,
    NoRepository: 10,
    Locked: 11,
    WrongPassword: 12,
    Damaged: 13,
    Unsupported: 14,
    NotFound: 15,
    Unreachable: 20,
    Busy: 21,
    PointLost: 22,
    NoSpace: 23,
    TargetRefused: 24,
    StoreFailed: 25,
    HookFailed: 26,
    NotReady: 27,
    NotProven: 28,
    Denied: 29,
    TooOften: 30,
    Interrupted: 130,
}

#: HTTP status by class; what is not named here is 500.
HTTP_STATUS: dict[type[HeadstartError], int] = {
    HeadstartError: 500,
    Usage: 400,
    Incomplete: 200,
    NoRepository: 404,
    Locked: 423,
    WrongPassword: 401,
    NotFound: 404,
    Unreachable: 503,
    Busy: 409,
    PointLost: 503,
    NoSpace: 507,
    TargetRefused: 409,
    StoreFailed: 503,
    Denied: 403,
    TooOften: 429,
}


def _nearest(table: dict[type[HeadstartError], int], error: HeadstartError) -> int:
    for kind in type(error).__mro__:
        if kind in table:
            return table[kind]
    raise AssertionError("HeadstartError itself is in every table")


def kind(error: HeadstartError) -> str:
    """The documented class: those of single modules are its subclasses."""
    return next(each.__name__ for each in type(error).__mro__ if each in EXIT_CODES)


def exit_code(error: HeadstartError) -> int:
    return _nearest(EXIT_CODES, error)


def http_status(error: HeadstartError) -> int:
    return _nearest(HTTP_STATUS, error)
