"""Orders to the host of a VM: back it up now, leave it alone, end what is under way."""

from __future__ import annotations

from fastapi import APIRouter, Response

from headstart import errors
from headstart.server import orders, snapshots, vms
from headstart.server.api.request import Here
from headstart.server.orders import Kind, State, Wish
from headstart.server.pages import render, waits
from headstart.server.pages.forms import Sent
from headstart.server.pages.visitor import Visitor

router = APIRouter(include_in_schema=False, route_class=render.PageRoute)

#: Those that need nothing said beside them.
_SIMPLE = {kind.value: kind for kind in (Kind.BACKUP, Kind.PAUSE, Kind.RESUME, Kind.CANCEL)}


@router.post("/vms/{vm}/orders")
def order(here: Here, call: Visitor, form: Sent, vm: str) -> Response:
    kind = _SIMPLE.get(form.line("kind", 16))
    if kind is None:
        raise errors.Usage("There is no such order.")
    with here.database.write() as connection:
        orders.to_vm(connection, call, vm, Wish(kind))
    return render.go(f"/vms/{vm}", "ordered")


@router.post("/orders/{order}/withdraw")
def withdraw(here: Here, call: Visitor, form: Sent, order: str) -> Response:
    """Before its host has it; a VM that runs by it is stopped."""
    with here.database.write() as connection:
        if snapshot := form.line("snapshot", 32):
            back = f"/snapshots/{snapshots.get(connection, call, snapshot)['id']}"
        else:
            back = f"/vms/{vms.get(connection, call, form.line('vm', 32))['id']}"
        state = orders.withdraw(connection, call, order)
    return render.go(back, "stopping" if state is State.STOPPING else "removed")


@router.post("/vms/{vm}/remove")
def remove(here: Here, call: Visitor, vm: str) -> Response:
    with here.database.write() as connection:
        return waits.do(connection, call, "vm.remove", "/", "removed", vm=vm)
