"""Sources of other releases of the agent."""

from __future__ import annotations

from collections.abc import Mapping

from headstart.agentd import release
from headstart.guest import package

RELEASE = "headstart/agentd/release.py"


def variant(number: int, protocols: tuple[int, int] = release.PROTOCOLS, more: str = "") -> Mapping[str, str]:
    """The sources of another release."""
    texts = package.sources()
    text = texts[RELEASE].replace(f"RELEASE = {release.RELEASE}\n", f"RELEASE = {number}\n")
    return texts | {RELEASE: f"{text}PROTOCOLS = {protocols}\n{more}"}
