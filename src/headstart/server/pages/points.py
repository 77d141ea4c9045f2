"""A restore point's page: what it is, what is proven of it, and the hosts that offer to restore or rehearse it."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request, Response

from headstart import errors
from headstart.server import hosts, orders, repositories, snapshots, vms
from headstart.server.api.request import Here
from headstart.server.orders import OFFERS, Kind, Wish
from headstart.server.pages import proofs, render
from headstart.server.pages.forms import Sent
from headstart.server.pages.visitor import Visitor

router = APIRouter(include_in_schema=False, route_class=render.PageRoute)

_FORMATS = ("qcow2", "raw")


@router.get("/snapshots/{snapshot}")
def show(request: Request, here: Here, call: Visitor, snapshot: str) -> Response:
    with here.database.read() as connection:
        point = snapshots.get(connection, call, snapshot)
        place = repositories.named(connection, point["tenant"], point["repository"])
        known = hosts.listed(connection, call)
        named = [each for each in vms.listed(connection, call) if each["name"] == point["vm"]]
        told = orders.listed(connection, call, point["vm"], limit=50)
    mine = [each for each in told if each["arguments"].get("snapshot") == point["id"]]
    return render.page(
        request,
        call,
        "snapshot.html",
        point=point,
        proof=proofs.of(point),
        repository="" if place is None else place.name,
        vms=named,
        offers={kind.value: [each for each in known if _offers(each, kind, point)] for kind in OFFERS},
        formats=_FORMATS,
        orders=mine[:10],
        vm={"id": ""},
    )


def _offers(host: dict[str, Any], kind: Kind, point: dict[str, Any]) -> bool:
    same = host["repository"] == point["repository"] and (not point["place"] or point["host"] == host["name"])
    return same and bool(host["state"].get(OFFERS[kind]))


@router.post("/snapshots/{snapshot}/orders")
def order(here: Here, call: Visitor, form: Sent, snapshot: str) -> Response:
    """A host rehearses it, or restores its disks into a new folder of its own."""
    kind = form.line("kind", 16)
    if kind not in {each.value for each in OFFERS}:
        raise errors.Usage("There is no such order.")
    chosen = form.line("format", 8) or _FORMATS[0]
    if chosen not in _FORMATS:
        raise errors.Usage("There is no such format of images.")
    wish = Wish(Kind(kind), snapshot, folder=form.line("folder", 64), format=chosen)
    with here.database.write() as connection:
        snapshots.get(connection, call, snapshot)
        orders.to_host(connection, call, form.line("host", 32), wish)
    return render.go(f"/snapshots/{snapshot}", "ordered")
