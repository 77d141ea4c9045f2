"""Files of a snapshot, for who may restore and has unlocked its repository with its password."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any, Literal
from urllib.parse import parse_qs, quote

from fastapi import APIRouter, Depends, Header, Query, Request, Response
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, Field

from headstart import errors
from headstart.repository.keys import Secrets
from headstart.restore.files.contents import Contents
from headstart.restore.files.filetree import File
from headstart.server import audit, browsing, evidence, repositories, snapshots, unlocking
from headstart.server.api.request import Caller, Here
from headstart.server.api.sending import Sending
from headstart.server.browsing import Key, Shelf
from headstart.server.call import Call
from headstart.server.repositories import Place
from headstart.server.roles import Right
from headstart.server.site import Site
from headstart.server.tended import Tended
from headstart.server.unlocking import NotUnlocked

router = APIRouter(prefix="/v1", tags=["files"])

#: Files of a directory that are listed at once.
PAGE = 2000
_BYTES: dict[int | str, dict[str, Any]] = {
    200: {"content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}}
}
#: What is sent acts nowhere, whatever a browser takes it for.
_INERT = {"Content-Security-Policy": "default-src 'none'; sandbox", "X-Content-Type-Options": "nosniff"}

Unlock = Annotated[str, Header(alias="X-Unlock", max_length=2048, description="As /unlock has told it.")]
Volume = Annotated[str, Query(max_length=255, description="As /volumes names it; without, as the guest sees files.")]


def _path(request: Request, path: Annotated[str, Query(max_length=4096)] = "/") -> str:
    return _as_sent(request, "path", path)


def _after(request: Request, after: Annotated[str, Query(max_length=255)] = "") -> str:
    return _as_sent(request, "after", after)


def _as_sent(request: Request, name: str, told: str) -> str:
    """Bytes that are no UTF-8 stay what they are, as in the names of files: what was decoded has lost them."""
    found = parse_qs(request.scope["query_string"].decode("latin-1"), errors="surrogateescape").get(name)
    return found[-1] if found else told


Path = Annotated[str, Depends(_path)]
After = Annotated[str, Depends(_after)]


class Password(BaseModel):
    password: str = Field(min_length=1, max_length=1024, description="Of the repository. It is not kept.")


class Opened(BaseModel):
    unlock: str = Field(description="To be sent as X-Unlock; it is of no use to anybody else.")
    expires: float


class Listed(BaseModel):
    name: str
    quoted: str | None = Field(
        None, description="Where the name is no UTF-8, and is shown with \\x: its bytes, as they stand in an address."
    )
    kind: str
    size: int
    modified: float
    mode: int


class Listing(BaseModel):
    """``more``: there are others; ``after`` the last name goes on."""

    path: str
    files: list[Listed]
    more: bool
    notes: list[str]


class VolumeSeen(BaseModel):
    name: str
    content: str
    size: int
    label: str
    mounted: str


@router.post("/repositories/{repository}/unlock", summary="Look into its snapshots for half an hour.")
def unlock(here: Here, call: Caller, repository: str, wanted: Password) -> Opened:
    made = unlocking.unlock(here, call, repository, wanted.password)
    return Opened(unlock=made.text, expires=made.expires)


@dataclass(frozen=True, slots=True)
class Asked:
    """What is looked into, by whom, and with what it was unlocked."""

    site: Site
    shelf: Shelf
    call: Call
    snapshot: str
    unlock: str

    def unlocked(self) -> tuple[Place, Secrets]:
        """A repository of the snapshot, and what opens it. Raises ``Denied``, ``NotFound``, ``NotUnlocked``."""
        self.call.who.require(Right.RESTORE)
        with self.site.database.read() as connection:
            copies = snapshots.copies(connection, self.call, self.snapshot)
            here = [row["repository"] for row in copies if not row["place"]]
            if not here:
                raise errors.NotFound(f"This snapshot lies in {copies[0]['place']}, where this server has no access.")
            *others, last = [repositories.get(connection, self.call.who, each) for each in here]
        for place in others:
            with contextlib.suppress(NotUnlocked):
                return place, unlocking.secrets_of(self.site, self.call, place, self.unlock)
        return last, unlocking.secrets_of(self.site, self.call, last, self.unlock)

    @contextlib.contextmanager
    def open(self) -> Iterator[Contents]:
        """Raises as ``unlocked``, and what opening raises."""
        place, secrets = self.unlocked()
        key = Key(self.call.who.id, place.id, self.snapshot)
        with self.shelf.contents(key, Tended(self.site, place), secrets) as contents:
            yield contents


def asked(request: Request, here: Here, call: Caller, snapshot: str, unlock: Unlock = "") -> Asked:
    return Asked(here, request.app.state.shelf, call, snapshot, unlock)


Into = Annotated[Asked, Depends(asked)]


@router.get("/snapshots/{snapshot}/volumes", summary="What lies on its disks.")
def volumes(into: Into) -> list[VolumeSeen]:
    with into.open() as contents:
        return [
            VolumeSeen(
                name=each.volume.name,
                content=each.volume.content,
                size=each.volume.size,
                label=browsing.shown(each.volume.label or each.volume.partition_label),
                mounted=browsing.shown(each.mounted),
            )
            for each in contents.seen()
        ]


@router.get("/snapshots/{snapshot}/files", summary="A directory, by name.")
def files(into: Into, path: Path, after: After, volume: Volume = "") -> Listing:
    with into.open() as contents:
        top, found, more = listing(contents, volume, path, after)
        notes = [browsing.shown(note) for note in contents.notes]
    return Listing(path=browsing.shown(top.path), files=[_listed(file) for file in found], more=more, notes=notes)


def _listed(file: File) -> Listed:
    name = browsing.shown(file.name)
    return Listed(
        name=name,
        quoted=None if name == file.name else quote(file.name, errors="surrogateescape"),
        kind=file.node.kind,
        size=file.node.size,
        modified=file.node.mtime / 10**9,
        mode=file.node.mode,
    )


def listing(contents: Contents, volume: str, path: str, after: str = "") -> tuple[File, list[File], bool]:
    """What was found there; that itself, or what is in it, by name; whether there is more."""
    tree, top = browsing.find(contents, volume, path)
    found = tree.files_in(top) if top.node.kind == "directory" else [top]
    rest = [file for file in found if file.name > after]
    return top, rest[:PAGE], len(rest) > PAGE


@router.get("/snapshots/{snapshot}/file", response_class=StreamingResponse, responses=_BYTES, summary="A file.")
def file(into: Into, path: Path, volume: Volume = "") -> StreamingResponse:
    return download(into, volume, path, "file")


@router.get(
    "/snapshots/{snapshot}/archive",
    response_class=StreamingResponse,
    responses=_BYTES,
    summary="A directory and all below it, as tar.",
)
def archive(into: Into, path: Path, volume: Volume = "") -> StreamingResponse:
    return download(into, volume, path, "archive")


@router.get(
    "/snapshots/{snapshot}/screenshot",
    response_class=Response,
    responses={200: {"content": {"image/png": {"schema": {"type": "string", "format": "binary"}}}}},
    summary="The guest's screen, as its newest rehearsal saw it.",
)
def screenshot(into: Into) -> Response:
    return picture(into)


def picture(into: Asked) -> Response:
    """Raises ``NoPicture``, and as ``Asked.unlocked``."""
    place, secrets = into.unlocked()
    found = evidence.screenshot(Tended(into.site, place), secrets, into.snapshot)
    with into.site.database.write() as connection:
        audit.note(connection, into.call, "screenshot.download", into.snapshot)
    return Response(found, headers=_INERT, media_type="image/png")


def download(into: Asked, volume: str, path: str, kind: Literal["file", "archive"]) -> StreamingResponse:
    """Errors come before the first byte; what breaks later cuts the answer off. The snapshot stays open until then."""
    with contextlib.ExitStack() as stack:
        contents = stack.enter_context(into.open())
        tree, top = browsing.find(contents, volume, path)
        name = top.name or contents.manifest.vm.replace("/", "_").lstrip(".") or "root"
        if kind == "file":
            pieces, size, called = browsing.content(top), top.node.size, name
        else:
            pieces, size, called = browsing.archive(tree, top, name), None, f"{name}.tar"
        with into.site.database.write() as connection:
            named = f"{into.snapshot}{browsing.shown(top.path)}"[:255]
            audit.note(connection, into.call, f"{kind}.download", named, volume=volume)
        headers = {**_INERT, "Content-Disposition": disposition(called)}
        if size is not None:
            headers["Content-Length"] = str(size)
        kept = stack.pop_all()
    return Sending(pieces, kept, headers, "application/octet-stream")


def disposition(name: str) -> str:
    """RFC 6266: for every name that a guest can give a file; ``filename*`` is percent-encoded UTF-8 (RFC 8187)."""
    plain = "".join(each if each.isascii() and (each.isalnum() or each in "._-") else "_" for each in name)
    whole = quote(name.encode("utf-8", "surrogateescape"), safe="")
    return f"attachment; filename=\"{plain or 'file'}\"; filename*=UTF-8''{whole}"
