"""All pages, in one router."""

from __future__ import annotations

from fastapi import APIRouter

from headstart.server.pages import hosts, login, overview, policies, simulate, static, stores, vm

router = APIRouter()
for _module in (static, login, overview, vm, hosts, simulate, policies, stores):
    router.include_router(_module.router)
