"""What a rehearsal saw, for who has unlocked the repository: the picture of the guest's screen.

A guest has drawn it, and a host has put it there. It is passed on as it is, and never decoded here.
"""

from __future__ import annotations

import threading

from headstart import errors, repository, units
from headstart.repository import layout, proof
from headstart.repository.keys import Secrets
from headstart.store.contract import Store

PNG = b"\x89PNG\r\n\x1a\n"
LONGEST = 8 * units.MIB
#: An object with such a picture and what goes with it: in base64, and the end of the console.
_OBJECT = 12 * units.MIB
_PROOF = 256 * units.KIB
#: Rehearsals of a snapshot that are looked through for the newest one.
_MOST = 500
#: At a time in one process: each takes a few times its size.
_AT_A_TIME = threading.BoundedSemaphore(2)


class NoPicture(errors.NotFound):
    """None that could be shown."""


def screenshot(store: Store, secrets: Secrets, snapshot: str) -> bytes:
    """PNG, as far as its first bytes say; of the newest rehearsal. Raises ``NoPicture``, what opening raises."""
    with _AT_A_TIME, repository.open_with(store, secrets) as repo:
        _require_small(store, snapshot)
        try:
            found = proof.latest(repo, snapshot, most=_OBJECT)
        except errors.Damaged as error:
            raise NoPicture("What was seen at the rehearsal is damaged, or larger than it may be.") from error
    picture = b"" if found is None else found[1].screenshot
    if not picture:
        raise NoPicture("No picture came of a rehearsal of this snapshot: there was none, or the VM has no screen.")
    if not picture.startswith(PNG) or len(picture) > LONGEST:
        raise NoPicture("The picture of the rehearsal is no PNG, or larger than it may be: it is not shown.")
    return picture


def _require_small(store: Store, snapshot: str) -> None:
    """Before anything is read: whoever has the key of the structure can put objects of any size there."""
    for folder, longest in ((layout.PROOFS, _PROOF), (layout.EVIDENCE, _OBJECT)):
        for number, (_, size) in enumerate(store.list(f"{folder}{snapshot}/")):
            if size > longest or number >= _MOST:
                raise NoPicture("What was noted of rehearsals of this snapshot is larger than it may be.")
