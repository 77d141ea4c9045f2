"""Acts that wait: asked for by one, approved by another, or done when their delay is over.

::

    ask --> waiting --approve--> (approved, until it is due) --> done, failed
               |--reject-----------> rejected
               '--30 days, or whoever asked lost the right--> lapsed
"""

from __future__ import annotations

import enum
import logging
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, and_, delete, exc, func, insert, or_, select, update

from headstart import errors
from headstart.server import acts, audit, caution, events, ids, tables
from headstart.server.call import Call
from headstart.server.principal import Principal
from headstart.server.roles import Right, Role
from headstart.server.site import Site

_log = logging.getLogger("headstart.server")
#: What nobody decides is nobody's wish any longer.
_LAPSE_SECONDS = 30 * 86400.0
#: Of those that are decided.
_PAGE = 200
#: Of one person: all that wait are shown, and none is to be hidden among them.
MOST_OPEN = 200


class State(enum.StrEnum):
    WAITING = "waiting"
    APPROVED = "approved"
    DONE = "done"
    FAILED = "failed"
    REJECTED = "rejected"
    LAPSED = "lapsed"


#: It may still be done.
OPEN = (State.WAITING, State.APPROVED)


@dataclass(frozen=True, slots=True)
class Asked:
    """It waits. ``due``: not before that, seconds since 1970."""

    id: str
    second_person: bool
    due: float


def ask(connection: Connection, call: Call, name: str, arguments: Mapping[str, Any]) -> Asked | None:
    """None: it is done already, because nothing is required for it. What waits already is asked for once.

    Raises what the act raises, as if it were done at once; ``Usage`` for text that could not be kept then;
    ``TooOften``."""
    if any("\0" in text for text in _texts(arguments.values())):
        raise errors.Usage("No text has a NUL in it.")
    act = acts.ALL[name]
    needed = act.is_destructive(connection, call, arguments)
    wanted = caution.of(connection, call.who.tenant)
    if call.who.tenant is None or not needed or not wanted:
        act.do(connection, call, arguments)
        return None
    its = tables.approvals.c
    mine = its.person == call.who.person if call.who.person else its.asker_id == call.who.id
    open_ = and_(its.tenant == call.who.tenant, its.state.in_(OPEN))
    known = select(tables.approvals).where(open_, its.act == name, its.asker_id == call.who.id)
    for row in connection.execute(known):
        if row.arguments == dict(arguments):
            return Asked(row.id, row.second_person, row.due)
    if (
        connection.execute(select(func.count()).select_from(tables.approvals).where(open_, mine)).scalar_one()
        >= MOST_OPEN
    ):
        raise errors.TooOften(f"{MOST_OPEN} acts that you asked for wait already: these first.", seconds=3600)
    asked = Asked(ids.new(), wanted.second_person, call.now + wanted.delay)
    connection.execute(
        insert(tables.approvals).values(
            id=asked.id,
            tenant=call.who.tenant,
            act=name,
            arguments=dict(arguments),
            state=State.WAITING,
            asker=call.who.name[:128],
            asker_id=call.who.id,
            person=call.who.person,
            second_person=asked.second_person,
            created=call.now,
            due=asked.due,
        )
    )
    audit.note(connection, call, "approval.ask", asked.id, wanted=name, arguments=_shown(name, arguments))
    return asked


def _texts(found: Iterable[Any]) -> Iterator[str]:
    for each in found:
        if isinstance(each, str):
            yield each
        elif isinstance(each, list | tuple):
            yield from _texts(each)


def _shown(name: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
    hidden = acts.ALL[name].hidden if name in acts.ALL else ()
    return {key: value for key, value in arguments.items() if key not in hidden}


def listed(connection: Connection, call: Call) -> list[dict[str, Any]]:
    """All that may still be done, and then the newest of the others: nothing hides what waits. Newest first."""
    tenant = call.who.of(Right.CONFIGURE)
    its = tables.approvals.c
    query = select(tables.approvals).where(its.tenant == tenant).order_by(its.created.desc())
    open_, over = query.where(its.state.in_(OPEN)), query.where(its.state.not_in(OPEN)).limit(_PAGE)
    return [_told(row) for each in (open_, over) for row in connection.execute(each)]


def get(connection: Connection, call: Call, approval: str) -> dict[str, Any]:
    """Raises ``NotFound``."""
    return _told(_row(connection, call, approval))


def _told(row: Row[Any]) -> dict[str, Any]:
    told = dict(row._mapping)
    kept = ("id", "act", "state", "asker", "second_person", "created", "due", "decider", "decided", "error")
    return {**{name: told[name] for name in kept}, "arguments": _shown(row.act, row.arguments)}


def _row(connection: Connection, call: Call, approval: str) -> Row[Any]:
    tenant = call.who.of(Right.CONFIGURE)
    its = tables.approvals.c
    query = select(tables.approvals).where(its.id == approval, its.tenant == tenant).with_for_update()
    row = connection.execute(query).first()
    if row is None:
        raise errors.NotFound(f"There is no approval {approval!r} here.")
    return row


def approve(connection: Connection, call: Call, approval: str) -> State:
    """By another admin than the one who asked, and no program: a token is of whoever made it. Raises ``Denied``,
    also for one's own way in, ``NotFound``, ``Busy`` for what does not wait any longer."""
    row = _row(connection, call, approval)
    if row.state != State.WAITING:
        raise errors.Busy(f"That does not wait any longer: it is {row.state}.")
    if not row.second_person:
        raise errors.Busy("That waits for its time alone. Reject it, or wait.")
    if not call.who.is_person:
        raise errors.Denied("A person approves, and no token.")
    if call.who.person == row.person or row.person is None:
        raise errors.Denied("Another admin than the one who asked approves.")
    if acts.is_about(row.act, row.arguments, call.who.person):
        raise errors.Denied(
            "This is about you: whoever asked for it would have your account. Reject it, unless a third admin is to"
            " decide."
        )
    _decide(connection, row, State.APPROVED, call)
    audit.note(connection, call, "approval.approve", row.id, wanted=row.act, asker=row.asker)
    return State.APPROVED if row.due > call.now else _carry_out(connection, row, call.now)


def reject(connection: Connection, call: Call, approval: str) -> None:
    """By any admin, also by the one who asked. Raises ``NotFound``, ``Busy``."""
    row = _row(connection, call, approval)
    if row.state not in OPEN:
        raise errors.Busy(f"That does not wait any longer: it is {row.state}.")
    _decide(connection, row, State.REJECTED, call)
    audit.note(connection, call, "approval.reject", row.id, wanted=row.act, asker=row.asker)


def _decide(connection: Connection, row: Row[Any], state: State, call: Call) -> None:
    values: dict[str, Any] = {"state": state, "decider": call.who.name[:128], "decided": call.now}
    if state not in OPEN:
        values["arguments"] = _shown(row.act, row.arguments)
    connection.execute(update(tables.approvals).where(tables.approvals.c.id == row.id).values(values))


def lapse(connection: Connection, which: ColumnElement[bool], now: float, error: str | None = None) -> None:
    """Of those that may still be done; what was hidden of them is not kept."""
    its = tables.approvals.c
    query = select(tables.approvals).where(its.state.in_(OPEN), which).order_by(its.id).with_for_update()
    for row in connection.execute(query).all():
        values = {"state": State.LAPSED, "decided": now, "error": error, "arguments": _shown(row.act, row.arguments)}
        connection.execute(update(tables.approvals).where(its.id == row.id).values(values))


def forget_old(connection: Connection, now: float) -> None:
    """The audit log has them still."""
    its = tables.approvals.c
    connection.execute(delete(tables.approvals).where(its.state.not_in(OPEN), its.due < now - events.KEPT_SECONDS))


def due(site: Site) -> int:
    """Do what waited long enough; how many were done, or failed. Any process may call it, also several at once."""
    now, count = site.clock(), 0
    its = tables.approvals.c
    ready = or_(its.state == State.APPROVED, and_(its.state == State.WAITING, its.second_person.is_(False)))
    old = and_(its.state == State.WAITING, its.second_person.is_(True), its.created < now - _LAPSE_SECONDS)
    with site.database.write() as connection:
        lapse(connection, old, now)
    one = select(tables.approvals).where(ready, its.due <= now).order_by(its.due).limit(1)
    left: list[str] = []
    while True:
        row = None
        try:
            with site.database.write() as connection:
                row = connection.execute(one.where(its.id.not_in(left)).with_for_update(skip_locked=True)).first()
                if row is None:
                    return count
                _carry_out(connection, row, now)
        except Exception as error:
            if row is None:
                raise
            # It stays as it is until the next time, and is in nobody's way.
            _log.error("%s, which was asked for by %s, cannot be done just now.", row.act, row.asker, exc_info=error)
            left.append(row.id)
        else:
            count += 1


def _carry_out(connection: Connection, row: Row[Any], now: float) -> State:
    """In the name of whoever asked, if he still has the right to it."""
    state, error = State.DONE, None
    who = _asker(connection, row, now)
    if who is None:
        state, error = State.LAPSED, "Whoever asked for it is no admin any longer."
    elif row.act not in acts.ALL:
        state, error = State.FAILED, "This release of the server knows no such act."
    else:
        call = Call(who, now, "", f"approval-{row.id}"[:32], approved=row.id)
        try:
            with connection.begin_nested():
                acts.ALL[row.act].do(connection, call, row.arguments)
        except errors.HeadstartError as failed:
            state, error = State.FAILED, str(failed)
            _log.warning("%s, which was asked for by %s, failed: %s", row.act, row.asker, failed)
        except (exc.OperationalError, exc.InterfaceError):
            raise  # the database is away, or in the way of itself: that may pass
        except exc.DataError:
            state, error = State.FAILED, "There is a text or a number in it that nothing can have."
        except exc.IntegrityError:
            state, error = State.FAILED, "Somebody else made or removed the same meanwhile. Look, and ask again."
        except Exception as bug:
            state, error = State.FAILED, "Something is wrong with the server itself: its log tells more."
            _log.error("%s, which was asked for by %s, met a bug.", row.act, row.asker, exc_info=bug)
    # What was hidden is not kept longer than needed.
    values = {"state": state, "error": error, "arguments": _shown(row.act, row.arguments)}
    connection.execute(update(tables.approvals).where(tables.approvals.c.id == row.id).values(values))
    return state


def _asker(connection: Connection, row: Row[Any], now: float) -> Principal | None:
    people, tokens = tables.users.c, tables.tokens.c
    person = select(people.name).where(
        people.id == row.asker_id, people.tenant == row.tenant, people.role == Role.ADMIN, people.disabled.is_(False)
    )
    token = select(tokens.id).where(
        tokens.id == row.asker_id, tokens.tenant == row.tenant, tokens.revoked.is_(False), tokens.expires > now
    )
    if connection.execute(person).first() is None and connection.execute(token).first() is None:
        return None
    return Principal(row.asker_id, row.asker, Role.ADMIN, row.tenant, person=row.person)
