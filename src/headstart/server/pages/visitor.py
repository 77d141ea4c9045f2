"""Who looks at a page: somebody who has logged in, whose forms carry the token of the session."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Request

from headstart.server.api.request import CSRF, Here, known
from headstart.server.call import Call
from headstart.server.pages.forms import Sent

#: The hidden field of every form that changes something.
FIELD = "csrf"


def visitor(request: Request, here: Here, form: Sent) -> Call:
    """Raises ``NobodyKnown``; ``Denied`` for a form that a page of somebody else's made a browser send."""
    return known(request, here, request.headers.get(CSRF) or form.text(FIELD))


Visitor = Annotated[Call, Depends(visitor)]
