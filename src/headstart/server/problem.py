"""Errors as answers: ``application/problem+json`` (RFC 9457). The statuses are those of ``errors.HTTP_STATUS``, and of
what only HTTP tells apart."""

from __future__ import annotations

import logging
import math
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from sqlalchemy import exc
from starlette.exceptions import HTTPException

from headstart import errors
from headstart.server import body
from headstart.server.objects import WrongDigest
from headstart.store import contract

_log = logging.getLogger("headstart.server")

_STATUS: dict[type[errors.HeadstartError], int] = {
    body.TooLarge: 413,
    body.Slow: 408,
    WrongDigest: 422,
    contract.Exists: 412,
    contract.Missing: 404,
}
#: Seconds after which to ask again, where the error does not say.
_AGAIN = 5
MEDIA = "application/problem+json"


def status_of(error: errors.HeadstartError) -> int:
    return next((_STATUS[kind] for kind in type(error).__mro__ if kind in _STATUS), errors.http_status(error))


def answer(error: errors.HeadstartError) -> JSONResponse:
    status = status_of(error)
    headers = {}
    if status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    if status in (429, 503):
        seconds = error.facts.get("seconds", _AGAIN)
        headers["Retry-After"] = str(max(math.ceil(seconds), 1) if isinstance(seconds, int | float) else _AGAIN)
    told = {"title": errors.kind(error), "status": status, "detail": str(error)}
    return JSONResponse(told, status, headers, MEDIA)


def install(app: FastAPI) -> None:
    @app.exception_handler(errors.HeadstartError)
    async def ours(request: Request, error: errors.HeadstartError) -> Response:
        if status_of(error) >= 500:
            _log.warning("%s", error, extra={"request": request.state.id})
        return answer(error)

    @app.exception_handler(RequestValidationError)
    async def wrong(request: Request, error: RequestValidationError) -> Response:
        where = ("/".join(map(str, each["loc"])) + f": {each['msg']}" for each in error.errors())
        return plain(422, "Usage", "; ".join(where)[:2000])

    @app.exception_handler(HTTPException)
    async def refused(request: Request, error: HTTPException) -> Response:
        return plain(error.status_code, "HTTP", str(error.detail), dict(error.headers or {}))

    @app.exception_handler(exc.IntegrityError)
    async def taken(request: Request, error: exc.IntegrityError) -> Response:
        return plain(409, "TargetRefused", "Somebody else made or removed the same just now. Look, and try again.")

    @app.exception_handler(exc.DataError)
    async def unkept(request: Request, error: exc.DataError) -> Response:
        # PostgreSQL has no text with a zero in it, and narrower numbers than JSON.
        return plain(400, "Usage", "The request has a text or a number in it that nothing can have.")


def bug(request: str) -> JSONResponse:
    """Of what nobody expected: only its id leads into the log."""
    return plain(500, "Bug", f"Something is wrong with the server itself: its log tells more of the request {request}.")


def plain(status: int, title: str, detail: str, headers: dict[str, str] | None = None) -> JSONResponse:
    told: dict[str, Any] = {"title": title, "status": status, "detail": detail}
    return JSONResponse(told, status, headers, MEDIA)
