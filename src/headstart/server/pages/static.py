"""Style, scripts and pictures of the pages: read once, named by what they hold, so that browsers may keep them."""

from __future__ import annotations

import gzip
import hashlib
from dataclasses import dataclass
from pathlib import Path

from fastapi import APIRouter, Request, Response

from headstart import errors

_FOLDER = Path(__file__).with_name("static")
_MEDIA = {".css": "text/css; charset=utf-8", ".js": "text/javascript; charset=utf-8", ".svg": "image/svg+xml"}

router = APIRouter(include_in_schema=False)


@dataclass(frozen=True, slots=True)
class _File:
    data: bytes
    packed: bytes
    media: str
    version: str


def _load() -> dict[str, _File]:
    found = {}
    for path in _FOLDER.iterdir():
        if path.suffix in _MEDIA:
            data = path.read_bytes()
            version = hashlib.sha256(data).hexdigest()[:16]
            found[path.name] = _File(data, gzip.compress(data, 9, mtime=0), _MEDIA[path.suffix], version)
    return found


_FILES = _load()


def address(name: str) -> str:
    return f"/static/{name}?{_FILES[name].version}"


@router.get("/static/{name}")
def show(request: Request, name: str) -> Response:
    file = _FILES.get(name)
    if file is None:
        raise errors.NotFound(f"There is no file {name!r} here.")
    headers = {"Cache-Control": "public, max-age=31536000, immutable", "Vary": "Accept-Encoding"}
    if request.url.query != file.version:
        headers["Cache-Control"] = "no-cache"
    if "gzip" in request.headers.get("accept-encoding", ""):
        return Response(file.packed, headers={**headers, "Content-Encoding": "gzip"}, media_type=file.media)
    return Response(file.data, headers=headers, media_type=file.media)
