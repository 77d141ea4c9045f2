"""What a page sends back: small forms, read in bounded memory and time."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Annotated
from urllib.parse import parse_qs

from fastapi import Depends, Request

from headstart import errors
from headstart.server import body
from headstart.server.api.request import SAFE

#: A policy's text, each character of it as %XX, and some more.
LONGEST = 512 << 10
_SECONDS = 30.0
_MOST = 200


class Form:
    """Fields as text; of several of a name, the first one counts."""

    def __init__(self, values: Mapping[str, list[str]]) -> None:
        self._values = values

    def text(self, name: str, longest: int = 255) -> str:
        """Empty where it was not sent. Raises ``Usage`` for a longer one."""
        found = self._values.get(name, [""])[0]
        if len(found) > longest:
            raise errors.Usage(f"The field '{name}' is too long: {longest} characters at most.")
        return found

    def line(self, name: str, longest: int = 255) -> str:
        """Without the blanks around it, which nobody meant."""
        return self.text(name, longest).strip()

    def number(self, name: str) -> float | None:
        """None: left empty. Raises ``Usage``."""
        told = self.line(name)
        if not told:
            return None
        try:
            found = float(told)
        except ValueError:
            found = -1.0
        if not 0 <= found < 1e15:
            raise errors.Usage(f"{told!r} is not a number from 0 on.")
        return found

    def __contains__(self, name: str) -> bool:
        return name in self._values


async def sent(request: Request) -> Form:
    """Nothing, for a request that changes nothing. Raises ``Usage``, ``TooLarge``, ``Slow``."""
    if request.method in SAFE:
        return Form({})
    data = bytearray()
    try:
        async with asyncio.timeout(_SECONDS):
            async for piece in request.stream():
                data += piece
                if len(data) > LONGEST:
                    raise body.TooLarge("The form is too large.")
    except TimeoutError:
        raise body.Slow("The form did not come in time.") from None
    try:
        return Form(parse_qs(data.decode(), keep_blank_values=True, max_num_fields=_MOST, errors="strict"))
    except ValueError as error:
        raise errors.Usage("That is no form of a page's.") from error


Sent = Annotated[Form, Depends(sent)]
