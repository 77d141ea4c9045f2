"""All pages, in one router."""

from __future__ import annotations

from fastapi import APIRouter

from headstart.server.pages import (
    files,
    hosts,
    keys,
    login,
    mine,
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
    vm,
    work,
)

router = APIRouter()
for _module in (
    *(static, login, oidc, overview, vm, points, files, ordering, hosts, simulate, policies, stores),
    *(work, people, keys, tenancy, records, mine),
):
    router.include_router(_module.router)
