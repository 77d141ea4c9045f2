"""What is protected, what is not, and why."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from headstart.server.pages import render
from headstart.server.pages.visitor import Visitor

router = APIRouter(include_in_schema=False, route_class=render.PageRoute)


@router.get("/")
def show(request: Request, call: Visitor) -> Response:
    return render.page(request, call, "overview.html")
