"""A restore point's page: what it is, what is proven of it, and the hosts that offer to do something with it."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request, Response
from sqlalchemy import Connection

from headstart import errors
from headstart.host.booter import MOST_HOURS
from headstart.server import hosts, orders, repositories, snapshots, vms
from headstart.server.api.request import Here
from headstart.server.call import Call
from headstart.server.orders import OFFERS, Kind, Wish
from headstart.server.pages import files, proofs, render
from headstart.server.pages.forms import Sent
from headstart.server.pages.visitor import Visitor

router = APIRouter(include_in_schema=False, route_class=render.PageRoute)

_FORMATS = ("qcow2", "raw")
#: Orders that are shown.
_ORDERS = 10


@router.get("/snapshots/{snapshot}")
def show(request: Request, here: Here, call: Visitor, snapshot: str) -> Response:
    with here.database.read() as connection:
        copies = snapshots.copies(connection, call, snapshot)
        point = copies[0]
        places = [repositories.named(connection, each["tenant"], each["repository"]) for each in copies]
        known = hosts.listed(connection, call)
        named = [each for each in vms.listed(connection, call) if each["name"] == point["vm"]]
        mine = _orders(connection, call, point)
    return render.page(
        request,
        call,
        "snapshot.html",
        point=point,
        proof=proofs.of(point),
        repository=", ".join(place.name for place in places if place is not None),
        vms=named,
        offers={kind.value: [each for each in known if _offers(each, kind, copies)] for kind in OFFERS},
        formats=_FORMATS,
        orders=mine,
        vm={"id": ""},
        unlocked=files.is_unlocked(request, here, call, snapshot),
        hours=f"{orders.HOURS:.0f}",
        most_hours=f"{MOST_HOURS:.0f}",
    )


@router.get("/snapshots/{snapshot}/orders")
def given(request: Request, here: Here, call: Visitor, snapshot: str) -> Response:
    """The part of the page that moves."""
    with here.database.read() as connection:
        point = snapshots.get(connection, call, snapshot)
        mine = _orders(connection, call, point)
    return render.page(request, call, "part/given.html", point=point, orders=mine, vm={"id": ""})


def _orders(connection: Connection, call: Call, point: dict[str, Any]) -> list[dict[str, Any]]:
    told = orders.listed(connection, call, point["vm"], limit=50)
    return [each for each in told if each["arguments"].get("snapshot") == point["id"]][:_ORDERS]


def _offers(host: dict[str, Any], kind: Kind, copies: list[dict[str, Any]]) -> bool:
    mine = [each for each in copies if each["repository"] == host["repository"]]
    has = any(not each["place"] or each["host"] == host["name"] for each in mine)
    return has and bool(host["state"].get(OFFERS[kind]))


@router.post("/snapshots/{snapshot}/orders")
def order(here: Here, call: Visitor, form: Sent, snapshot: str) -> Response:
    """A host rehearses it, boots it, or restores its disks into a new folder of its own."""
    kind = form.line("kind", 16)
    if kind not in {each.value for each in OFFERS}:
        raise errors.Usage("There is no such order.")
    chosen = form.line("format", 8) or _FORMATS[0]
    if chosen not in _FORMATS:
        raise errors.Usage("There is no such format of images.")
    hours = form.number("hours")
    wish = Wish(
        Kind(kind),
        snapshot,
        folder=form.line("folder", 64),
        format=chosen,
        hours=orders.HOURS if hours is None else hours,
    )
    with here.database.write() as connection:
        snapshots.get(connection, call, snapshot)
        orders.to_host(connection, call, form.line("host", 32), wish)
    return render.go(f"/snapshots/{snapshot}", "ordered")
