"""All pages, in one router."""

from __future__ import annotations

from fastapi import APIRouter

from headstart.server.pages import login, overview, static, vm

router = APIRouter()
for _module in (static, login, overview, vm):
    router.include_router(_module.router)
