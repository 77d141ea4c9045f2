"""Flags that matter before the arguments are understood."""

from __future__ import annotations

from collections.abc import Sequence


def has(given: Sequence[str], *names: str) -> bool:
    """Whether one of these flags is among the arguments."""
    options = given[: given.index("--")] if "--" in given else given
    return any(name in options for name in names)
