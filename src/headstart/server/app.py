"""The application: routes, what surrounds each request, and answers to errors."""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable

import anyio.to_thread
from fastapi import FastAPI, Request, Response

from headstart import __version__
from headstart.server import problem
from headstart.server.api import (
    body,
    fleet,
    health,
    host,
    objects,
    orders,
    repositories,
    session,
    stream,
    tenants,
    tokens,
    users,
)
from headstart.server.settings import LARGEST_BODY
from headstart.server.site import Site
from headstart.server.streams import Streams

#: Requests that work at a time; the others wait.
_THREADS = 64
_ROUTERS = (health, session, tenants, users, tokens, repositories, objects, host, fleet, orders, stream)

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
    app.state.streams = Streams(site.database, site.clock)
    for module in _ROUTERS:
        app.include_router(module.router)
    app.middleware("http")(_surround)
    problem.install(app)
    return app


@contextlib.asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    anyio.to_thread.current_default_thread_limiter().total_tokens = _THREADS
    yield


async def _surround(request: Request, go_on: Next) -> Response:
    request.state.id = secrets.token_hex(8)
    length = request.headers.get("content-length", "0")
    if "/objects/" not in request.url.path and length.isdecimal() and int(length) > LARGEST_BODY:
        return problem.answer(body.TooLarge("The request is too large."))
    answer = await go_on(request)
    answer.headers["X-Request-Id"] = request.state.id
    answer.headers["X-Content-Type-Options"] = "nosniff"
    answer.headers.setdefault("Cache-Control", "no-store")
    return answer
