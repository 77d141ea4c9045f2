"""What is known of an index object that was read or written: all but the tables of its packs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from headstart.repository import layout, link
from headstart.repository.link import Link


@dataclass(frozen=True, slots=True)
class Known:
    """``itself``: its name and digest. ``packs``: the ids of those that it lists, one after the other."""

    itself: Link
    links: tuple[Link, ...]
    replaced: tuple[str, ...]
    packs: bytes

    @property
    def name(self) -> str:
        return self.itself.name

    def pack_ids(self) -> Iterator[bytes]:
        length = layout.OBJECT_ID_LENGTH
        return (self.packs[start : start + length] for start in range(0, len(self.packs), length))


def told(known: Iterable[Known]) -> list[dict[str, Any]]:
    """As JSON, but for the ids of the packs."""
    return [
        {
            "name": each.name,
            "digest": each.itself.digest.hex(),
            "links": [[other.name, other.digest.hex()] for other in each.links],
            "replaced": each.replaced,
            "packs": len(each.packs),
        }
        for each in known
    ]


def of_json(told: Iterable[Mapping[str, Any]], packs: bytes) -> list[Known]:
    """``packs``: the ids of all, one after the other. ``ValueError``, ``KeyError``, ``TypeError`` where it is none."""
    found, start = list[Known](), 0
    for each in told:
        end = start + each["packs"]
        links = tuple(link.of_json(*other) for other in each["links"])
        itself = link.of_json(each["name"], each["digest"])
        found.append(Known(itself, links, tuple(each["replaced"]), packs[start:end]))
        start = end
    return found
