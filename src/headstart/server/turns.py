"""Who of several processes does what is to be done now and then: whoever comes first."""

from __future__ import annotations

from sqlalchemy import Connection, exc, insert, or_, update

from headstart.server import tables


def take(connection: Connection, name: str, now: float, seconds: float) -> bool:
    """Whether it is this process's turn; then it is nobody's for ``seconds``."""
    its = tables.turns.c
    # So late is of a clock that was ahead, and is right now.
    free = or_(its.due <= now, its.due > now + 2 * seconds)
    mine = update(tables.turns).where(its.name == name, free).values(due=now + seconds)
    if connection.execute(mine).rowcount:
        return True
    try:
        with connection.begin_nested():
            connection.execute(insert(tables.turns).values(name=name, due=now + seconds))
    except exc.IntegrityError:
        return False
    return True
