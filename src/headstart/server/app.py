"""The application: routes, what surrounds each request, and answers to errors."""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable

import anyio.to_thread
from fastapi import FastAPI, Request, Response

from headstart import __version__, errors
from headstart.server import problem
from headstart.server.api import (
    answers,
    approvals,
    audit,
    body,
    fleet,
    health,
    host,
    jobs,
    me,
    objects,
    orders,
    repositories,
    session,
    stream,
    tenants,
    tokens,
    users,
)
from headstart.server.api.request import is_secure
from headstart.server.limits import Buckets, Limits
from headstart.server.pages import routes as pages
from headstart.server.settings import LARGEST_BODY
from headstart.server.site import Site
from headstart.server.streams import Streams

#: Requests that work at a time; the others wait.
_THREADS = 64
_ROUTERS = (
    *(health, session, me, tenants, users, tokens, approvals, audit, repositories, objects, host, fleet, jobs),
    *(orders, stream),
)
#: Of every answer that does not say otherwise, as pages do.
_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
_HSTS = f"max-age={365 * 86400}"

Next = Callable[[Request], Awaitable[Response]]


def make(site: Site) -> FastAPI:
    app = FastAPI(
        title="Headstart",
        version=__version__,
        openapi_url="/v1/openapi.json",
        docs_url=None,
        redoc_url=None,
        lifespan=_lifespan,
    )
    app.state.site = site
    app.state.budget = body.Budget()
    app.state.limits = Limits(Buckets(site.settings.known_rate), Buckets(site.settings.stranger_rate))
    app.state.streams = Streams(site.database, site.clock)
    for module in _ROUTERS:
        app.include_router(module.router, responses=answers.problems())
    app.include_router(pages.router)
    app.middleware("http")(_surround)
    problem.install(app)
    return app


@contextlib.asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    anyio.to_thread.current_default_thread_limiter().total_tokens = _THREADS
    yield


async def _surround(request: Request, go_on: Next) -> Response:
    request.state.id = secrets.token_hex(8)
    refused = _refused(request)
    answer = await go_on(request) if refused is None else problem.answer(refused)
    answer.headers["X-Request-Id"] = request.state.id
    for name, value in _HEADERS.items():
        answer.headers.setdefault(name, value)
    # A browser that was told so never again lets anybody pass a bad certificate: not for one of the server's own.
    if is_secure(request) and not request.app.state.site.fingerprint:
        answer.headers["Strict-Transport-Security"] = _HSTS
    return answer


def _refused(request: Request) -> errors.HeadstartError | None:
    """What is too large to be read at all; objects are bounded where they are read."""
    if request.url.path.startswith("/v1/repositories/") and "/objects/" in request.url.path:
        return None
    if "transfer-encoding" in request.headers:
        return errors.Usage("A request comes with its Content-Length.")
    length = request.headers.get("content-length", "0")
    if not length.isdecimal():
        return errors.Usage("The Content-Length is no number.")
    return body.TooLarge("The request is too large.") if int(length) > LARGEST_BODY else None
