"""Destructive acts that wait for a second person or a delay: ``/v1/approvals``."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter
from pydantic import BaseModel

from headstart.server import approvals
from headstart.server.api.request import Caller, Here

router = APIRouter(prefix="/v1/approvals", tags=["approvals"])


class Approval(BaseModel):
    id: str
    act: str
    arguments: dict[str, Any]
    state: approvals.State
    asker: str
    second_person: bool
    created: float
    due: float
    decider: str | None
    decided: float | None
    error: str | None


class Decided(BaseModel):
    state: approvals.State


@router.get("", summary="All that wait, then what became of others; newest first.")
def list_approvals(here: Here, call: Caller) -> list[Approval]:
    with here.database.read() as connection:
        return [Approval(**each) for each in approvals.listed(connection, call)]


@router.get("/{approval}")
def show_approval(here: Here, call: Caller, approval: str) -> Approval:
    with here.database.read() as connection:
        return Approval(**approvals.get(connection, call, approval))


@router.post("/{approval}/approve", summary="By another admin than the one who asked.")
def approve(here: Here, call: Caller, approval: str) -> Decided:
    with here.database.write() as connection:
        return Decided(state=approvals.approve(connection, call, approval))


@router.post("/{approval}/reject", status_code=204, summary="By any admin, also by the one who asked.")
def reject(here: Here, call: Caller, approval: str) -> None:
    with here.database.write() as connection:
        approvals.reject(connection, call, approval)
