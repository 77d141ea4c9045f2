"""Waiting for what another thread or process does, where no event tells of it."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

SECONDS = 60.0
_STEP_SECONDS = 0.01

Found = TypeVar("Found")


def wait_until(found: Callable[[], Found | None], seconds: float = SECONDS) -> Found:
    """What ``found`` returns, once it is something."""
    end = time.monotonic() + seconds
    while not (result := found()):
        assert time.monotonic() < end, f"it did not come to that in {seconds:.0f} s"
        time.sleep(_STEP_SECONDS)
    return result
