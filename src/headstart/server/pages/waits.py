"""Acts that may have to wait for a second person or a delay, as the pages order them."""

from __future__ import annotations

from typing import Any

from fastapi import Response
from sqlalchemy import Connection

from headstart.server import approvals
from headstart.server.call import Call
from headstart.server.pages import render


def do(connection: Connection, call: Call, act: str, place: str, done: str, **arguments: Any) -> Response:
    """To ``place``, where it is said that it is done, or that it waits. Raises what the act raises."""
    asked = approvals.ask(connection, call, act, arguments)
    return render.go(place, done if asked is None else "asked")
