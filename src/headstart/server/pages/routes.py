"""All pages, in one router."""

from __future__ import annotations

from fastapi import APIRouter

from headstart.server.pages import (
    hosts,
    keys,
    login,
    mine,
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
    *(static, login, overview, vm, points, ordering, hosts, simulate, policies, stores),
    *(work, people, keys, tenancy, records, mine),
):
    router.include_router(_module.router)
