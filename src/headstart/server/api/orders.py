"""Orders to hosts: ``/v1/orders``, and of a VM or a host, to give one."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query
from pydantic import BaseModel, Field

from headstart.host.booter import MOST_HOURS
from headstart.server import orders
from headstart.server.api.request import Caller, Here
from headstart.server.api.tenants import Created
from headstart.server.orders import Kind, Wish

router = APIRouter(prefix="/v1", tags=["orders"])

Disk = Annotated[str, Field(min_length=1, max_length=255)]


class NewOrder(BaseModel):
    kind: Kind
    snapshot: str | None = Field(None, max_length=32, description="What to restore, rehearse or boot.")
    disks: list[Disk] = Field(default_factory=list, max_length=100, description="Of the snapshot; none: all.")
    folder: str = Field("", max_length=64, description="A new one, where the host's owner lets snapshots be restored.")
    format: Literal["raw", "qcow2"] = "qcow2"
    seconds: float = Field(
        orders.WAITS_SECONDS, strict=True, gt=0, le=30 * 86400, description="It waits for its host for so long."
    )

    hours: float = Field(
        orders.HOURS, strict=True, gt=0, le=MOST_HOURS, description="A booted VM runs for so long at most."
    )

    def wish(self) -> Wish:
        return Wish(self.kind, self.snapshot, tuple(self.disks), self.folder, self.format, self.seconds, self.hours)


@router.post("/vms/{vm}/orders", status_code=201, summary="Ask the VM's host: it comes and fetches the order.")
def order_for_vm(here: Here, call: Caller, vm: str, wanted: NewOrder) -> Created:
    with here.database.write() as connection:
        return Created(id=orders.to_vm(connection, call, vm, wanted.wish()))


@router.post(
    "/hosts/{host}/orders", status_code=201, summary="Ask a host to restore, rehearse or boot any VM's snapshot."
)
def order_for_host(here: Here, call: Caller, host: str, wanted: NewOrder) -> Created:
    with here.database.write() as connection:
        return Created(id=orders.to_host(connection, call, host, wanted.wish()))


@router.get("/orders", summary="Newest first.")
def list_orders(
    here: Here,
    call: Caller,
    vm: Annotated[str | None, Query(max_length=255, description="Its name.")] = None,
    open_only: Annotated[bool, Query(alias="open", description="Those that are not over.")] = False,
    limit: Annotated[int, Query(ge=1, le=500)] = 100,
) -> list[dict[str, Any]]:
    with here.database.read() as connection:
        return orders.listed(connection, call, vm, open_only, limit)


@router.get("/orders/{order}")
def show_order(here: Here, call: Caller, order: str) -> dict[str, Any]:
    with here.database.read() as connection:
        return orders.get(connection, call, order)


@router.delete(
    "/orders/{order}", status_code=204, summary="Withdraw it before its host has it; stop a VM that runs by it."
)
def withdraw_order(here: Here, call: Caller, order: str) -> None:
    with here.database.write() as connection:
        orders.withdraw(connection, call, order)
