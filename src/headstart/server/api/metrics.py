"""For Prometheus: the site's numbers, and those of a tenant's VMs."""

from __future__ import annotations

import hmac
from typing import Any

from fastapi import APIRouter, Request, Response

from headstart.server import metrics
from headstart.server.api.request import Caller, Here
from headstart.server.principal import NobodyKnown
from headstart.server.roles import Right
from headstart.server.site import TOKEN_FILE

router = APIRouter(tags=["metrics"])

_TEXT: dict[int | str, dict[str, Any]] = {200: {"content": {"text/plain": {"schema": {"type": "string"}}}}}


@router.get("/metrics", include_in_schema=False)
def of_site(request: Request, here: Here) -> Response:
    scheme, _, text = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not hmac.compare_digest(text.strip().encode(), here.metrics_token.encode()):
        raise NobodyKnown(f"Send the token that stands in the file {TOKEN_FILE} of the server's data.")
    found: metrics.Metrics = request.app.state.metrics
    return Response(found.page(), media_type=metrics.MEDIA)


@router.get("/v1/metrics", response_class=Response, responses=_TEXT, summary="Of the tenant's VMs.")
def of_tenant(here: Here, call: Caller) -> Response:
    return Response(metrics.of_tenant(here, call.who.of(Right.SEE)), media_type=metrics.MEDIA)
