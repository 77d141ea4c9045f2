"""The product, with a bug in one of its server's routes."""

from __future__ import annotations

import sys
from typing import Any

from headstart.cli.main import main
from headstart.server import tenants


def buggy(*_: Any) -> Any:
    """Stands in for ``tenants.overview``."""
    raise RuntimeError("a secret detail")


if __name__ == "__main__":
    tenants.overview = buggy  # type: ignore[assignment]
    sys.exit(main())
