"""All pages, in one router."""

from __future__ import annotations

from fastapi import APIRouter

from headstart.server.pages import (
    files,
    hosts,
    login,
    mine,
    notices,
    oidc,
    ordering,
    overview,
    people,
    points,
    policies,
    records,
    simulate,
    static,
    stores,
    tenancy,
    tokens,
    vm,
    work,
)

router = APIRouter()
for _module in (
    *(static, login, oidc, overview, vm, points, files, ordering, hosts, simulate, policies, stores),
    *(work, people, tokens, notices, tenancy, records, mine),
):
    router.include_router(_module.router)
