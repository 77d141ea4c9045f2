"""The files of a restore point: unlocked with the repository's password, browsed, downloaded."""

from __future__ import annotations

from typing import Annotated, Any
from urllib.parse import quote, unquote

from fastapi import APIRouter, Depends, Query, Request, Response
from fastapi.responses import StreamingResponse

from headstart import errors
from headstart.restore.files import guestpath
from headstart.server import browsing, repositories, snapshots, unlocking
from headstart.server.api import files
from headstart.server.api.files import Asked, Path
from headstart.server.api.request import Here, is_secure
from headstart.server.call import Call
from headstart.server.pages import render
from headstart.server.pages.forms import Sent
from headstart.server.pages.visitor import Visitor
from headstart.server.roles import Right
from headstart.server.site import Site
from headstart.server.unlocking import NotUnlocked

router = APIRouter(prefix="/snapshots/{snapshot}", include_in_schema=False, route_class=render.PageRoute)

#: Holds what unlocking gave: for this restore point's pages alone, out of reach of every script.
_COOKIE = "headstart-unlock"

Volume = Annotated[str, Query(max_length=255)]
#: Of a path in a form, each byte of it as %XX.
_LONGEST = 3 * 4096


def _asked(request: Request, here: Here, call: Visitor, snapshot: str) -> Asked:
    return files.asked(request, here, call, snapshot, request.cookies.get(_COOKIE, ""))


Into = Annotated[Asked, Depends(_asked)]


@router.get("/files")
def show(request: Request, into: Into, path: Path, volume: Volume = "") -> Response:
    point, place = _point(into.site, into.call, into.snapshot)
    try:
        with into.open() as contents:
            top, found, more = files.listing(contents, volume, path)
            seen, notes = contents.seen(), contents.notes
    except NotUnlocked:
        return _locked(request, into.call, point, place, volume=volume, path=path, wrong=False)
    crumbs = [(part, guestpath.joined(top.parts[: number + 1])) for number, part in enumerate(top.parts)]
    values: dict[str, Any] = {"point": point, "volume": volume, "path": top.path, "crumbs": crumbs}
    values |= {"files": found, "more": more, "notes": notes, "seen": seen, "shown": browsing.shown}
    return render.page(request, into.call, "files.html", **values)


@router.get("/unlock")
def ask(request: Request, here: Here, call: Visitor, snapshot: str) -> Response:
    """For what the restore point's own page shows."""
    point, place = _point(here, call, snapshot)
    return _locked(request, call, point, place, volume="", path="/", wrong=False, back=True)


@router.get("/screenshot.png")
def screenshot(into: Into) -> Response:
    return files.picture(into)


def is_unlocked(request: Request, here: Site, call: Call, snapshot: str) -> bool:
    """Whether whoever looks has given the password of its repository."""
    try:
        _asked(request, here, call, snapshot).unlocked()
    except (NotUnlocked, errors.Denied, errors.NotFound):
        return False
    return True


@router.post("/unlock")
def unlock(request: Request, here: Here, call: Visitor, form: Sent, snapshot: str) -> Response:
    point, place = _point(here, call, snapshot)
    volume, back = form.text("volume"), "back" in form
    path = unquote(form.text("path", _LONGEST), errors="surrogateescape")
    try:
        made = unlocking.unlock(here, call, point["repository"], form.text("password", 1024))
    except errors.WrongPassword:
        return _locked(request, call, point, place, volume=volume, path=path, wrong=True, back=back)
    files_page = render.go(f"/snapshots/{snapshot}/files", volume=volume, path=path)
    answer = render.go(f"/snapshots/{snapshot}") if back else files_page
    answer.set_cookie(
        _COOKIE,
        made.text,
        max_age=int(unlocking.SECONDS),
        path=f"/snapshots/{snapshot}",
        secure=is_secure(request),
        httponly=True,
        samesite="strict",
    )
    return answer


@router.get("/file")
def file(into: Into, path: Path, volume: Volume = "") -> StreamingResponse:
    return files.download(into, volume, path, "file")


@router.get("/archive")
def archive(into: Into, path: Path, volume: Volume = "") -> StreamingResponse:
    return files.download(into, volume, path, "archive")


def _point(here: Site, call: Call, snapshot: str) -> tuple[dict[str, Any], str]:
    """And the name of its repository."""
    call.who.require(Right.RESTORE)
    with here.database.read() as connection:
        point = snapshots.get(connection, call, snapshot)
        place = repositories.get(connection, call.who, point["repository"])
    return point, place.name


def _locked(
    request: Request,
    call: Call,
    point: dict[str, Any],
    place: str,
    *,
    volume: str,
    path: str,
    wrong: bool,
    back: bool = False,
) -> Response:
    """``back``: to the restore point's page, and not to its files."""
    values = {"point": point, "repository": place, "volume": volume, "wrong": wrong, "back": back}
    quoted = quote(path, errors="surrogateescape")
    return render.page(request, call, "locked.html", 401 if wrong else 200, path=quoted, **values)
