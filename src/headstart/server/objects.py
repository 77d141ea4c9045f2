"""Objects of a repository, as they are stored: added and read, never replaced.

The server needs no key for it: it sees that an object's name fits its first bytes, and that its bytes are those that
the client meant. An object is removed only by who may delete, and not before the repository's days are over, by the
store's clock. A host takes away nothing but its own leases and records of drafts.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import hashlib
import hmac
import re

from sqlalchemy import Connection, delete, exc, insert, select

from headstart import errors
from headstart.repository import layout, protection
from headstart.server import audit, caution, tables
from headstart.server.call import Call
from headstart.server.checking import Checker
from headstart.server.repositories import Place
from headstart.server.roles import Right
from headstart.server.site import Site
from headstart.server.stock import EPHEMERAL, Stock, forget_owner
from headstart.store import contract

_DAY = 86400.0
#: Which kind an object below each prefix is of.
KINDS = {
    layout.KEYS: layout.Kind.KEY,
    layout.PACKS: layout.Kind.PACK,
    layout.INDEXES: layout.Kind.INDEX,
    layout.SNAPSHOTS: layout.Kind.SNAPSHOT,
    layout.DRAFTS: layout.Kind.DRAFT,
    layout.LOSSES: layout.Kind.LOSS,
    layout.LABELS: layout.Kind.LABEL,
    layout.PROOFS: layout.Kind.PROOF,
    layout.EVIDENCE: layout.Kind.EVIDENCE,
    layout.LEASES: layout.Kind.LEASE,
    layout.CONDEMNED: layout.Kind.CONDEMNED,
    layout.DOOMED: layout.Kind.DOOMED,
    layout.TWINS: layout.Kind.TWIN,
}
_DIGEST = re.compile(r"sha-256=:([A-Za-z0-9+/=]{44}):")


class WrongDigest(errors.Usage):
    """What came is not what the client meant."""


def check_key(key: str) -> str:
    """Raises ``NotFound``: nothing can be of such a name."""
    try:
        return contract.check_key(key)
    except ValueError:
        raise errors.NotFound(f"No object can be called {key[:200]!r}.") from None


def _check_new(key: str, data: bytes | bytearray, digest: str | None) -> None:
    """Raises ``Usage`` for what is no object of that name, or not as ``digest`` says (RFC 9530)."""
    found = _DIGEST.search(digest or "")
    if found is None:
        raise errors.Usage("An object comes with its digest: Content-Digest: sha-256=:...:")
    with contextlib.suppress(binascii.Error):
        if hmac.compare_digest(hashlib.sha256(data).digest(), base64.b64decode(found[1])):
            _check_kind(key, data)
            return
    raise WrongDigest("What came is not what Content-Digest says: send it again.")


def _check_kind(key: str, data: bytes | bytearray) -> None:
    prefix = "".join(key.partition("/")[:2])
    kind = layout.Kind.CONFIG if key in (layout.CONFIG_KEY, layout.CONFIG_TWIN) else KINDS.get(prefix)
    if kind is None:
        raise errors.Usage(f"{key!r} is the name of nothing that a repository has.")
    try:
        layout.version_of(bytes(data[: layout.HEADER_LENGTH]), kind, key)
    except errors.Damaged as error:
        raise errors.Usage(str(error)) from error


def add(
    site: Site, call: Call, place: Place, key: str, data: bytes | bytearray, digest: str | None, checker: Checker
) -> None:
    """Durable when this returns. ``digest`` as in the header ``Content-Digest``. Raises ``contract.Exists``, ``Usage``,
    ``NoSpace``, what the store raises."""
    call.who.require(Right.ADD)
    try:
        _check_new(key, data, digest)
        checker.check(site, place, key, data)
    except errors.Usage:
        # Of a name that is taken, that is the answer: clients try whether a store refuses.
        if Stock.of(site, place).size(key) is not None:
            raise contract.Exists(f"{key} is there already.", object=key) from None
        raise
    site.require_place()

    noted = False

    def note(connection: Connection) -> None:
        nonlocal noted
        noted = key.startswith(EPHEMERAL) and _note_owner(connection, call, place, key)

    try:
        Stock.of(site, place).add(key, data, note=note)
    except contract.Exists:
        if noted:  # it is there, and was nobody's: the server's own, or older than the database
            with site.database.write() as connection:
                forget_owner(connection, place, key)
        raise


def _note_owner(connection: Connection, call: Call, place: Place, key: str) -> bool:
    """Whether it had none."""
    with contextlib.suppress(exc.IntegrityError), connection.begin_nested():
        connection.execute(insert(tables.ephemera).values(repository=place.id, key=key, token=_owner(call)))
        return True
    return False


def remove(site: Site, call: Call, place: Place, key: str) -> None:
    """No error where there is none. Raises ``Denied``, ``Busy`` for what is still immutable."""
    site.require_place()
    stock = Stock.of(site, place)
    size = stock.size(key)
    with site.database.write() as connection:
        own = key.startswith(EPHEMERAL) and _is_own(connection, call, place, key)
        if not own:
            call.who.require(Right.DELETE)
            caution.require_approved(connection, call)
            until = stock.locked_until(connection, key)
            if until > stock.store.clock():
                raise errors.Busy(f"{key} is immutable until {until:.0f} (seconds since 1970).", until=until)
            audit.note(connection, call, "object.delete", f"{place.id}/{key}")
    stock.take_away(key, size)


def _is_own(connection: Connection, call: Call, place: Place, key: str) -> bool:
    its = tables.ephemera.c
    query = select(its.token).where(its.repository == place.id, its.key == key)
    return connection.execute(query).scalar() == _owner(call)


def _owner(call: Call) -> str:
    """A host's tokens are replaced from time to time."""
    return call.who.host or call.who.id


def extend(site: Site, call: Call, place: Place, key: str, until: float) -> None:
    """Lock it longer. Raises ``Denied`` for shorter, and for longer than anything that is made now is; ``Missing``."""
    call.who.require(Right.ADD)
    stock = Stock.of(site, place)
    whole = protection.of(place.immutable_days).seconds if place.immutable_days else 0.0
    if until > stock.store.clock() + whole + _DAY:
        raise errors.Denied(f"The repository keeps objects for {place.immutable_days} days, and none for longer.")
    with site.database.write() as connection:
        if until < stock.locked_until(connection, key):
            raise errors.Denied(f"{key} is locked for longer than that, and no lock is made shorter.")
        connection.execute(delete(tables.locks).where(tables.locks.c.repository == place.id, tables.locks.c.key == key))
        connection.execute(insert(tables.locks).values(repository=place.id, key=key, until=until))
