"""Tells tenants of their events: in every process, on a thread that nobody waits for.

A row of ``notices`` belongs to who has claimed it. The cursor moves once all addresses have taken a message, or it was
given up: so what a process that died had sent already may come twice, and nothing is lost.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from sqlalchemy import ColumnElement, and_, exists, or_, select, update

from headstart import errors, plain
from headstart.server import events, heralds, lapses, notices, tables, turns
from headstart.server.site import Site

_log = logging.getLogger("headstart.server.notices")

LOOK_SECONDS = 60.0
#: After a message of a tenant's, what else happens is gathered for so long.
GATHER_SECONDS = 300.0
#: Longer than sending takes.
CLAIM_SECONDS = heralds.SECONDS + 120.0
#: What no address took is tried again after so long, doubled each time, and then given up: after about a day.
AGAIN_SECONDS, AGAIN_AT_MOST, ATTEMPTS = 60.0, 7200.0, 18
#: After the start hosts that were cut off with us come back.
_SETTLE_SECONDS = 600.0
_MOST_EVENTS = 5000
_MOST_LINES = 30
_MOST_TENANTS = 50


class Teller:
    """``start`` it, ``stop`` it."""

    def __init__(self, site: Site, settle: float = _SETTLE_SECONDS) -> None:
        self._site = site
        self._settled = time.monotonic() + settle
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="teller", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """What is being sent is left behind."""
        self._stop.set()

    def _run(self) -> None:
        while not self._stop.wait(LOOK_SECONDS):
            try:
                if time.monotonic() >= self._settled:
                    look(self._site)
                tell(self._site)
            except errors.HeadstartError as error:
                _log.warning("Nobody can be told of anything just now: %s", error)
            except Exception as error:
                _log.error("A bug; it is tried again.", exc_info=error)


def look(site: Site) -> None:
    """For what is amiss; one process of several does it."""
    now = site.clock()
    with site.database.write() as connection:
        mine = turns.take(connection, "lapses", now, LOOK_SECONDS * 0.9)
    if mine:
        lapses.look(site)


@contextlib.contextmanager
def running(site: Site) -> Iterator[None]:
    teller = Teller(site)
    teller.start()
    try:
        yield
    finally:
        teller.stop()


def tell(site: Site) -> int:
    """How many messages were sent. Any number of processes may do it at once."""
    now, its = site.clock(), tables.notices.c
    newer = exists().where(tables.events.c.tenant == its.tenant, tables.events.c.id > its.cursor)
    query = select(tables.notices).where(_is_free(now), newer)
    with site.database.read() as connection:
        rows = [dict(row) for row in connection.execute(query.order_by(its.due)).mappings()]
    # Those in whose hours nothing is sent are in nobody's way.
    awake = [row for row in rows if not _is_quiet(row, now)]
    return sum(_try(site, row["tenant"]) for row in awake[:_MOST_TENANTS])


def _is_free(now: float) -> ColumnElement[bool]:
    """What lies too far ahead is of a clock that was wrong: nobody waits for that."""
    its = tables.notices.c
    due = or_(its.due <= now, its.due > now + 2 * AGAIN_AT_MOST)
    return and_(due, or_(its.claimed < now, its.claimed > now + 2 * CLAIM_SECONDS))


def _try(site: Site, tenant: str) -> bool:
    """What is wrong with one of them keeps it from nobody else."""
    try:
        return _tell_one(site, tenant)
    except errors.StoreFailed:
        raise
    except errors.HeadstartError as error:
        _log.warning("A tenant cannot be told of anything: %s", error, extra={"tenant": tenant})
        return False


def _is_quiet(row: dict[str, Any], now: float) -> bool:
    quiet = notices.quiet_of(row)
    return quiet is not None and quiet.holds(now)


def _tell_one(site: Site, tenant: str) -> bool:
    row = _claim(site, tenant)
    if row is None:
        return False
    with site.database.read() as connection:
        found = events.after(connection, tenant, row["cursor"], _MOST_EVENTS)
    if row["upto"] is not None:
        found = [each for each in found if each["id"] <= row["upto"]]
    if not found:
        _settle(site, row, {"upto": None, "remaining": None})
        return False
    wanted = {kind for each in row["kinds"] for kind in notices.KINDS.get(each, ())}
    chosen = [each for each in found if each["kind"] in wanted]
    end = found[-1]["id"]
    if not chosen:
        _settle(site, row, {"cursor": end, "upto": None, "remaining": None})
        return False
    _send(site, row, chosen, end)
    return True


def _claim(site: Site, tenant: str) -> dict[str, Any] | None:
    now, its = site.clock(), tables.notices.c
    with site.database.write() as connection:
        change = update(tables.notices).where(its.tenant == tenant, _is_free(now)).values(claimed=now + CLAIM_SECONDS)
        if not connection.execute(change).rowcount:
            return None
        row = connection.execute(select(tables.notices).where(its.tenant == tenant)).mappings().one()
        return dict(row)


def _settle(site: Site, row: dict[str, Any], values: dict[str, Any]) -> None:
    """Unless somebody changed what is told meanwhile, or took it over."""
    its = tables.notices.c
    with site.database.write() as connection:
        mine = (its.tenant == row["tenant"]) & (its.claimed == row["claimed"])
        connection.execute(update(tables.notices).where(mine).values(claimed=0.0, **values))


def _send(site: Site, row: dict[str, Any], chosen: Sequence[dict[str, Any]], end: int) -> None:
    urls = notices.urls_of(site, row)
    numbers = list(range(len(urls))) if row["remaining"] is None else row["remaining"]
    title, body = message(chosen)
    try:
        results = heralds.send([urls[each] for each in numbers], title, body, private=site.settings.notices_private)
    except errors.TooOften as error:
        _settle(site, row, {"error": str(error)})
        return
    failed = [(number, why) for number, why in zip(numbers, results, strict=True) if why]
    now = site.clock()
    over = {"cursor": end, "upto": None, "remaining": None, "failures": 0}
    if not failed:
        _settle(site, row, {**over, "error": None, "due": now + GATHER_SECONDS})
        return
    said = "; ".join(f"{notices.masked(urls[number])}: {plain.joined(why, 200)}" for number, why in failed)
    _log.warning("A notice was not taken.", extra={"tenant": row["tenant"], "failures": row["failures"] + 1})
    if row["failures"] + 1 >= ATTEMPTS:
        _settle(site, row, {**over, "error": f"Given up. {said}", "due": now + GATHER_SECONDS})
        return
    pause = min(AGAIN_SECONDS * 2 ** row["failures"], AGAIN_AT_MOST)
    again = {"upto": end, "remaining": [number for number, _ in failed], "failures": row["failures"] + 1}
    _settle(site, row, {**again, "error": said, "due": now + pause})


_WORDS = {
    "backup.failed": "backup failed",
    "publish.failed": "backup failed to be published",
    "backup.late": "backup late",
    "backup.caught-up": "backup not late any longer",
    "host.away": "host away",
    "host.back": "host back",
    "host.left": "host left",
    "job.failed": "job failed",
    "policies.refused": "policies refused",
    "quota.near": "quota nearly used up",
    "vm.refused": "VM beyond the quota",
    "rehearse.failed": "rehearsal failed",
    "order.rehearse.failed": "rehearsal failed",
    "repository.damaged": "repository damaged",
}


def message(chosen: Sequence[dict[str, Any]]) -> tuple[str, str]:
    """Title and body: one of all of them, whatever their number."""
    counts = Counter(_WORDS.get(each["kind"], each["kind"]) for each in chosen)
    title = "Headstart: " + ", ".join(f"{what} ({count})" if count > 1 else what for what, count in counts.items())
    lines = [_line(each) for each in chosen[:_MOST_LINES]]
    if len(chosen) > _MOST_LINES:
        lines.append(f"... and {len(chosen) - _MOST_LINES} more: see the server's pages.")
    return title, "\n".join(lines)


def _line(event: dict[str, Any]) -> str:
    moment = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(event["moment"]))
    subject = " on ".join(str(each) for each in (event["vm"], event["host"]) if each)
    error = event["facts"].get("error")
    told = f"{moment} {_WORDS.get(event['kind'], event['kind'])}: {subject}"
    return plain.joined(f"{told}: {error}" if error else told, 300)
