"""The key of a repository's structure, which opens no content: given to the server, taken back, and worked with."""

from __future__ import annotations

from collections.abc import Callable

from sqlalchemy import Connection, select, update

from headstart import errors, repository
from headstart.repository.keys import Secrets
from headstart.repository.repo import Repository
from headstart.server import attempts, audit, repositories, tables, tended, unlocking
from headstart.server.call import Call
from headstart.server.repositories import Place
from headstart.server.roles import Right
from headstart.server.site import Site
from headstart.server.tended import Tended


class NotGiven(errors.Usage):
    """The server cannot open the repository."""

    def __init__(self) -> None:
        super().__init__(
            "The server was given no key of this repository's structure: it cannot forget, collect or verify there."
            " Make one with 'headstart key add --structure-only', and give its password to the server, on its page"
            " Repositories."
        )


def require_given(place: Place) -> None:
    """Before anything is promised that takes it. Raises ``NotGiven``."""
    if not place.has_structure:
        raise NotGiven


def open_repository(site: Site, place: Place, beat: Callable[[], None] = tended.quiet) -> Repository:
    """Without content, also where the key would open it, and without a cache. ``beat`` is called all the time, and ends
    the work by what it raises. Raises ``NotGiven``, what opening one raises."""
    store = Tended(site, place, beat)
    password = _password(site, place)

    def asked() -> bytes:
        if password is None:
            raise NotGiven
        return password

    try:
        opened = repository.open(store, asked, structure_is_enough=True)
    except errors.WrongPassword as error:
        raise errors.WrongPassword(
            "The key of the structure that the server was given opens this repository no longer. Give it another one,"
            " on its page Repositories."
        ) from error
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
    """Give the server the password of a key that opens the structure alone. Raises ``WrongPassword``, ``TooOften``
    after some of them; ``Usage`` for one that opens content: that is none of the server's business; ``NoRepository``.
    """
    call.who.require(Right.CONFIGURE)
    guesses = unlocking.guesses_of(call)
    with site.database.write() as connection:
        place = repositories.get(connection, call.who, name)
        attempts.begin(connection, guesses, call.now)
    if _opens_content(site, place, password):
        raise errors.Usage(
            "This password opens the content, which the server must not. Make one that does not: 'headstart key add"
            " --structure-only'."
        )
    sealed = site.sealer.seal(repositories.STRUCTURE, password.encode())
    with site.database.write() as connection:
        attempts.taken_back(connection, guesses)
        _keep(connection, call, place, sealed, "repository.structure.give")


def _opens_content(site: Site, place: Place, password: str) -> bool:
    try:
        with unlocking.GUESSES:
            return secrets(site, place, password.encode()).opens_content
    except errors.NoRepository as error:
        raise errors.NoRepository("There is no key yet: no host has made its repository here.") from error


def withdraw(site: Site, call: Call, name: str) -> None:
    """Jobs that need the structure fail from then on."""
    call.who.require(Right.CONFIGURE)
    with site.database.write() as connection:
        place = repositories.get(connection, call.who, name)
        _keep(connection, call, place, None, "repository.structure.withdraw")


def _keep(connection: Connection, call: Call, place: Place, wrapped: bytes | None, act: str) -> None:
    change = update(tables.repositories).where(tables.repositories.c.id == place.id)
    connection.execute(change.values(structure=wrapped))
    audit.note(connection, call, act, place.id)
