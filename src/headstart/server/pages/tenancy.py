"""Tenants and their bounds, for the site's admins: sizes and health, and nothing of what is theirs."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response
from sqlalchemy import func, select

from headstart import errors, units
from headstart.server import hosts, ids, passwords, tables, tenants, users
from headstart.server.api.request import Here
from headstart.server.pages import render
from headstart.server.pages.forms import Form, Sent
from headstart.server.pages.visitor import Visitor
from headstart.server.roles import Right, Role

router = APIRouter(include_in_schema=False, route_class=render.PageRoute)


@router.get("/tenants")
def show(request: Request, here: Here, call: Visitor) -> Response:
    call.who.require(Right.SITE)
    its = tables.hosts.c
    away = (its.seen.is_(None)) | (its.seen < call.now - hosts.AWAY_SECONDS)
    count = select(its.tenant, func.count(), func.count().filter(away)).group_by(its.tenant)
    with here.database.read() as connection:
        found = tenants.overview(connection, call)
        machines = {row[0]: (row[1], row[2]) for row in connection.execute(count)}
    shown = [{**each, "hosts": machines.get(each["id"], (0, 0))} for each in found]
    return render.page(request, call, "tenants.html", tenants=shown, shortest=passwords.SHORTEST, gib=units.GIB)


@router.post("/tenants")
def create(here: Here, call: Visitor, form: Sent) -> Response:
    """With its first admin, or not at all."""
    with here.database.write() as connection:
        tenant = tenants.create(connection, call, form.line("name", 64), *_quota(form))
        admin, password = form.line("admin", 64), form.text("password", passwords.LONGEST)
        users.create(connection, call, admin, password, Role.ADMIN, tenant)
    return render.go("/tenants", "made")


@router.post("/tenants/{tenant}/quota")
def bound(here: Here, call: Visitor, form: Sent, tenant: str) -> Response:
    with here.database.write() as connection:
        tenants.bound(connection, call, _known(tenant), *_quota(form))
    return render.go("/tenants", "saved")


@router.post("/tenants/{tenant}/remove")
def remove(here: Here, call: Visitor, tenant: str) -> Response:
    with here.database.write() as connection:
        tenants.remove(connection, call, _known(tenant))
    return render.go("/tenants", "removed")


def _known(tenant: str) -> str:
    if not ids.is_id(tenant):
        raise errors.NotFound(f"There is no tenant {tenant!r} here.")
    return tenant


def _quota(form: Form) -> tuple[int | None, int | None]:
    """Bytes and VMs; left empty: no limit."""
    gib, vms = form.number("quota_gib"), form.number("quota_vms")
    if (gib or 0) > 1e9 or (vms or 0) > 1e9:
        raise errors.Usage("That is more than can be counted.")
    return None if gib is None else round(gib * units.GIB), None if vms is None else int(vms)
