"""Notices: where a tenant is told of what happens, of what, and when not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fastapi import APIRouter, Request, Response

from headstart import errors
from headstart.server import notices
from headstart.server.api.request import Here
from headstart.server.call import Call
from headstart.server.notices import Quiet
from headstart.server.pages import render
from headstart.server.pages.forms import Form, Sent
from headstart.server.pages.visitor import Visitor

router = APIRouter(include_in_schema=False, route_class=render.PageRoute)

_LONGEST = 2000
#: What each kind is, for who chooses.
_WORDS = {
    "backup.failed": "A backup failed, or could not be published",
    "backup.late": "A backup is late",
    "host.away": "A host is away, or has left",
    "job.failed": "A job of the server's failed",
    "policies.refused": "A host cannot use its policies",
    "quota": "The quota is nearly used up, or a VM is beyond it",
    "rehearsal.failed": "A rehearsal failed",
    "verify.failed": "A repository is damaged",
}


@router.get("/notices")
def show(request: Request, here: Here, call: Visitor) -> Response:
    return _page(request, here, call)


def _page(request: Request, here: Here, call: Call, results: Sequence[Mapping[str, str]] = ()) -> Response:
    told = notices.get(here, call)
    quiet: Mapping[str, Any] | None = told["quiet"]
    return render.page(
        request,
        call,
        "notices.html",
        urls=told["urls"],
        error=told["error"],
        kinds=[(kind, _WORDS.get(kind, kind), kind in told["kinds"]) for kind in sorted(notices.KINDS)],
        begin=_clock(quiet["begin"]) if quiet else "",
        end=_clock(quiet["end"]) if quiet else "",
        zone=quiet["zone"] if quiet else "UTC",
        results=results,
        most=notices.MOST_URLS,
    )


@router.post("/notices/addresses")
def add(here: Here, call: Visitor, form: Sent) -> Response:
    notices.add(here, call, form.line("url", _LONGEST))
    return render.go("/notices", "saved")


@router.post("/notices/addresses/remove")
def remove(here: Here, call: Visitor, form: Sent) -> Response:
    number = form.number("number")
    notices.drop(here, call, -1 if number is None else int(number), form.text("url", _LONGEST))
    return render.go("/notices", "removed")


@router.post("/notices")
def choose(here: Here, call: Visitor, form: Sent) -> Response:
    kinds = [kind for kind in notices.KINDS if f"kind-{kind}" in form]
    notices.put(here, call, None, kinds, _quiet(form))
    return render.go("/notices", "saved")


@router.post("/notices/test")
def test(request: Request, here: Here, call: Visitor) -> Response:
    return _page(request, here, call, notices.test(here, call))


def _quiet(form: Form) -> Quiet | None:
    """None: both left empty."""
    begin, end = form.line("begin", 8), form.line("end", 8)
    if not begin and not end:
        return None
    return Quiet(_minute(begin), _minute(end), form.line("zone", 64) or "UTC")


def _minute(told: str) -> int:
    """Of the day. Raises ``Usage``."""
    hour, _, minute = told.partition(":")
    if not (hour.isdecimal() and minute.isdecimal() and int(minute) < 60):
        raise errors.Usage("Say when it is quiet as 22:00 and 06:30, or leave both empty.")
    return int(hour) * 60 + int(minute)


def _clock(minute: int) -> str:
    return f"{minute // 60:02d}:{minute % 60:02d}"
