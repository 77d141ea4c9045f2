"""Where a tenant wants to be told of what happens, and of what."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo

from sqlalchemy import Connection, delete, insert, select

from headstart import errors
from headstart.server import audit, events, heralds, tables
from headstart.server.call import Call
from headstart.server.roles import Right
from headstart.server.site import Site

#: What URLs are sealed for.
PURPOSE = "notices"
MOST_URLS = 10
#: Minutes.
_DAY = 1440
#: What can be told, and by which events.
KINDS: dict[str, tuple[str, ...]] = {
    "backup.failed": ("backup.failed", "publish.failed"),
    "backup.late": ("backup.late", "backup.caught-up"),
    "host.away": ("host.away", "host.back", "host.left"),
    "job.failed": ("job.failed",),
    "policies.refused": ("policies.refused",),
    "quota": ("quota.near", "vm.refused"),
    "rehearsal.failed": ("rehearse.failed", "order.rehearse.failed"),
    "verify.failed": ("repository.damaged",),
}
#: Of these the name of the host, or of the server, is secret itself or says nothing.
_HOST_SHOWN = frozenset({"json", "jsons", "xml", "xmls", "form", "forms", "mailto", "mailtos"})


@dataclass(frozen=True, slots=True)
class Quiet:
    """Minutes of a day: nothing is sent from ``begin`` until ``end``, the latter excluded, which may be the next day's.
    ``zone``: a name of the time zone database."""

    begin: int
    end: int
    zone: str = "UTC"

    def __post_init__(self) -> None:
        """Raises ``Usage``."""
        if not (0 <= self.begin < _DAY and 0 <= self.end < _DAY):
            raise errors.Usage("A time of the day is from 00:00 to 23:59.")
        try:
            ZoneInfo(self.zone)
        except (KeyError, ValueError, OSError) as error:
            raise errors.Usage(f"{self.zone!r} is no name of a time zone, such as Europe/Berlin.") from error

    def holds(self, now: float) -> bool:
        local = datetime.fromtimestamp(now, ZoneInfo(self.zone))
        minute = local.hour * 60 + local.minute
        if self.begin <= self.end:
            return self.begin <= minute < self.end
        return minute >= self.begin or minute < self.end


def masked(url: str) -> str:
    """What shows which one it is, and no secret."""
    try:
        found = urlsplit(url)
        host = found.hostname or ""
    except ValueError:
        return "..."
    return f"{found.scheme}://{host if found.scheme in _HOST_SHOWN else ''}..."


def urls_of(site: Site, row: Mapping[str, Any]) -> list[str]:
    return [str(each) for each in json.loads(site.sealer.open(PURPOSE, row["urls"]))]


def quiet_of(row: Mapping[str, Any]) -> Quiet | None:
    return None if row["quiet"] is None else Quiet(**row["quiet"])


def get(site: Site, call: Call) -> dict[str, Any]:
    tenant = call.who.of(Right.CONFIGURE)
    with site.database.read() as connection:
        row = _row(connection, tenant)
    if row is None:
        return {"urls": [], "kinds": sorted(KINDS), "quiet": None, "error": None}
    return {
        "urls": [masked(url) for url in urls_of(site, row)],
        "kinds": row["kinds"],
        "quiet": row["quiet"],
        "error": row["error"],
    }


def put(site: Site, call: Call, urls: Sequence[str] | None, kinds: Sequence[str], quiet: Quiet | None) -> None:
    """``urls`` None: those before; none at all: nobody is. What happened before the first address is not told, what
    is held back or tried again is. Raises ``Usage`` for what is no address of apprise's."""
    tenant = call.who.of(Right.CONFIGURE)
    if unknown := sorted(set(kinds) - KINDS.keys()):
        raise errors.Usage(f"There is no kind {unknown[0]!r} of notice: there are {', '.join(sorted(KINDS))}.")
    if urls is not None:
        with site.database.read() as connection:
            known = _wanted(site, _row(connection, tenant)).urls
        _check([url for url in urls if url not in known])
    _change(
        site,
        call,
        lambda before: Wanted(before.urls if urls is None else tuple(urls), tuple(sorted(set(kinds))), quiet),
    )


def _check(urls: Sequence[str]) -> None:
    """Takes its time: in no transaction."""
    results = heralds.check(urls) if urls else []
    for url, why in zip(urls, results, strict=True):
        if why:
            raise errors.Usage(f"{masked(url)}: {why}")


def add(site: Site, call: Call, url: str) -> None:
    """One more address; all else stays. Raises ``Usage``."""
    call.who.of(Right.CONFIGURE)
    _check([url])

    def added(before: Wanted) -> Wanted:
        if url in before.urls:
            raise errors.Usage("That address is told already.")
        if len(before.urls) >= MOST_URLS:
            raise errors.Usage(f"So many addresses are too many: {MOST_URLS} at most.")
        return replace(before, urls=(*before.urls, url))

    _change(site, call, added)


def drop(site: Site, call: Call, number: int, shown: str) -> None:
    """The address of that number, from 0 on, which has to be the one that was ``shown``. Raises ``NotFound``."""

    def dropped(before: Wanted) -> Wanted:
        if not 0 <= number < len(before.urls) or masked(before.urls[number]) != shown:
            raise errors.NotFound("There is no such address any longer. Load the page again.")
        return replace(before, urls=before.urls[:number] + before.urls[number + 1 :])

    _change(site, call, dropped)


@dataclass(frozen=True, slots=True)
class Wanted:
    urls: tuple[str, ...]
    kinds: tuple[str, ...]
    quiet: Quiet | None


def _wanted(site: Site, row: Mapping[str, Any] | None) -> Wanted:
    if row is None:
        return Wanted((), tuple(sorted(KINDS)), None)
    return Wanted(tuple(urls_of(site, row)), tuple(row["kinds"]), quiet_of(row))


def _change(site: Site, call: Call, change: Callable[[Wanted], Wanted]) -> None:
    """Of two who change it at once, the second one changes what the first one has made."""
    tenant = call.who.of(Right.CONFIGURE)
    its = tables.notices.c
    with site.database.write() as connection:
        connection.execute(
            select(tables.tenants.c.id).where(tables.tenants.c.id == tenant).with_for_update(key_share=True)
        )
        row = _row(connection, tenant)
        before = _wanted(site, row)
        wanted = change(before)
        connection.execute(delete(tables.notices).where(its.tenant == tenant))
        if wanted.urls:
            place = _first(events.last(connection, tenant)) if row is None else _going_on(row, before, wanted)
            quiet = wanted.quiet
            values = {
                "tenant": tenant,
                "urls": site.sealer.seal(PURPOSE, json.dumps(wanted.urls).encode()),
                "kinds": list(wanted.kinds),
                "quiet": None if quiet is None else {"begin": quiet.begin, "end": quiet.end, "zone": quiet.zone},
            }
            # Whoever sends just now has other addresses in hand: what comes of it is not noted, and it is sent again.
            connection.execute(insert(tables.notices).values(**values, **place, due=0.0, claimed=0.0))
        facts = {"urls": [masked(url) for url in wanted.urls], "kinds": list(wanted.kinds)}
        audit.note(connection, call, "notices.set", tenant, **facts)


def _first(cursor: int) -> dict[str, Any]:
    return {"cursor": cursor, "upto": None, "remaining": None, "failures": 0, "error": None}


def _going_on(row: Mapping[str, Any], before: Wanted, wanted: Wanted) -> dict[str, Any]:
    """How far it was, with the numbers that addresses have now."""
    kept = {name: row[name] for name in ("cursor", "upto", "remaining", "failures", "error")}
    if row["remaining"] is None:
        return kept
    lacking = {before.urls[number] for number in row["remaining"]}
    remaining = [number for number, url in enumerate(wanted.urls) if url in lacking]
    return {**kept, "remaining": remaining} if remaining else _first(row["upto"])


def test(site: Site, call: Call) -> list[dict[str, str]]:
    """Tell each address that this is a test. Raises ``NotFound`` where there is none, ``TooOften``."""
    tenant = call.who.of(Right.CONFIGURE)
    with site.database.read() as connection:
        row = _row(connection, tenant)
    if row is None:
        raise errors.NotFound("Nobody is told of anything here: name addresses first.")
    urls = urls_of(site, row)
    title, body = "Headstart: a test", f"{call.who.name} asked the backup server to say that its notices arrive."
    results = heralds.send(urls, title, body, private=site.settings.notices_private)
    return [{"url": masked(url), "error": why} for url, why in zip(urls, results, strict=True)]


def _row(connection: Connection, tenant: str) -> dict[str, Any] | None:
    row = connection.execute(select(tables.notices).where(tables.notices.c.tenant == tenant)).mappings().first()
    return None if row is None else dict(row)
