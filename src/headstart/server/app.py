"""The application: routes, what surrounds each request, and answers to errors."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator

import anyio.to_thread
from fastapi import FastAPI

from headstart import __version__
from headstart.server import body, problem
from headstart.server.api import (
    answers,
    approvals,
    audit,
    files,
    fleet,
    health,
    host,
    jobs,
    me,
    metrics,
    notices,
    objects,
    orders,
    repositories,
    session,
    stream,
    tenants,
    tokens,
    users,
)
from headstart.server.browsing import Shelf
from headstart.server.checking import Checker
from headstart.server.limits import Buckets, Limits
from headstart.server.metrics import Metrics
from headstart.server.pages import render
from headstart.server.pages import routes as pages
from headstart.server.provider import Provider
from headstart.server.site import Site
from headstart.server.streams import Streams
from headstart.server.surround import Surround

#: Requests that work at a time; the others wait.
_THREADS = 64
_ROUTERS = (
    *(health, session, me, tenants, users, tokens, approvals, audit, repositories, objects, host, fleet, jobs),
    *(orders, stream, metrics, files, notices),
)


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
    app.state.checker = Checker()
    app.state.metrics = Metrics(site)
    app.state.limits = Limits(Buckets(site.settings.known_rate), Buckets(site.settings.stranger_rate))
    oidc = site.settings.oidc
    app.state.provider = None if oidc is None else Provider(oidc, site.clock)
    app.state.shelf = Shelf()
    app.state.streams = Streams(site.database, site.clock)
    for module in _ROUTERS:
        app.include_router(module.router, responses=answers.problems())
    app.include_router(pages.router)
    app.add_middleware(Surround, own_certificate=bool(site.fingerprint), metrics=app.state.metrics)
    problem.install(app)
    render.install(app)
    return app


@contextlib.asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    anyio.to_thread.current_default_thread_limiter().total_tokens = _THREADS
    try:
        yield
    finally:
        app.state.shelf.close()
