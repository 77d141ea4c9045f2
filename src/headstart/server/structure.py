"""The key of a repository's structure, which opens no content: given to the server, taken back, and worked with."""

from __future__ import annotations

from collections.abc import Callable

from sqlalchemy import Connection, select, update

from headstart import errors, repository
from headstart.repository.keys import Secrets
from headstart.repository.repo import Repository
from headstart.server import audit, repositories, tables, tended
from headstart.server.call import Call
from headstart.server.repositories import Place
from headstart.server.roles import Right
from headstart.server.site import Site
from headstart.server.tended import Tended


class NotGiven(errors.Usage):
    """The server cannot open the repository."""

    def __init__(self) -> None:
        super().__init__(
            "The server was given no key of this repository's structure. Make one with 'headstart key add"
            " --structure-only', and give its password to the server."
        )


def open_repository(site: Site, place: Place, beat: Callable[[], None] = tended.quiet) -> Repository:
    """Without content, also where the key would open it, and without a cache. ``beat`` is called all the time, and ends
    the work by what it raises. Raises ``NotGiven``, what opening one raises."""
    store = Tended(site, place, beat)
    password = _password(site, place)

    def asked() -> bytes:
        if password is None:
            raise NotGiven
        return password

    opened = repository.open(store, asked, structure_is_enough=True)
    if not opened.secrets.opens_content:
        return opened
    alone = opened.secrets.structure_alone()
    opened.close()
    return repository.open_with(store, alone)


def _password(site: Site, place: Place) -> bytes | None:
    with site.database.read() as connection:
        wrapped = sealed_password(connection, place)
    return None if wrapped is None else site.sealer.open(repositories.STRUCTURE, wrapped)


def sealed_password(connection: Connection, place: Place) -> bytes | None:
    """None: the server was given none."""
    its = tables.repositories.c
    query = select(its.structure).where(its.id == place.id, its.tenant == place.tenant)
    found: bytes | None = connection.execute(query).scalar()
    return found


def secrets(site: Site, place: Place, password: bytes) -> Secrets:
    """What a password opens. Costs a moment and 64 MiB, on purpose. Raises ``WrongPassword``, ``NoRepository``."""
    with repository.open(place.store(site), lambda: password, structure_is_enough=True) as opened:
        return opened.secrets


def deposit(site: Site, call: Call, name: str, password: str) -> None:
    """Give the server the password of a key that opens the structure alone. Raises ``WrongPassword``, ``Usage`` for one
    that opens content: that is none of the server's business."""
    call.who.require(Right.CONFIGURE)
    with site.database.read() as connection:
        place = repositories.get(connection, call.who, name)
    if secrets(site, place, password.encode()).opens_content:
        raise errors.Usage(
            "This password opens the content, which the server must not. Make one that does not: 'headstart key add"
            " --structure-only'."
        )
    _keep(site, call, place, site.sealer.seal(repositories.STRUCTURE, password.encode()), "repository.structure.give")


def withdraw(site: Site, call: Call, name: str) -> None:
    """Jobs that need the structure fail from then on."""
    call.who.require(Right.CONFIGURE)
    with site.database.read() as connection:
        place = repositories.get(connection, call.who, name)
    _keep(site, call, place, None, "repository.structure.withdraw")


def _keep(site: Site, call: Call, place: Place, wrapped: bytes | None, act: str) -> None:
    with site.database.write() as connection:
        change = update(tables.repositories).where(tables.repositories.c.id == place.id)
        connection.execute(change.values(structure=wrapped))
        audit.note(connection, call, act, place.id)
