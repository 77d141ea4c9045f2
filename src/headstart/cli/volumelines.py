"""A table of volumes, and where in them changes are, for people."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from headstart import units
from headstart.cli import text


def lines(volumes: Iterable[Mapping[str, Any]], counted: str, heading: str) -> list[str]:
    """Of those with changes, or left out; none where there are none. ``counted``: the key of the last number."""
    rows = [
        (
            each["name"],
            ", ".join(each["mounted"]) or each["label"] or "-",
            each["content"] or "-",
            *map(units.format_bytes, (each["size"], each["changed_bytes"], each[counted])),
            "left out" if each["excluded_bytes"] else "",
        )
        for each in volumes
        if each["changed_bytes"] or each["excluded_bytes"]
    ]
    return [text.table(("VOLUME", "MOUNTED AT", "HOLDS", "SIZE", "CHANGED", heading, ""), rows)] if rows else []
