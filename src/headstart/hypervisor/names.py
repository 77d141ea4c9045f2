"""Names of ours inside a hypervisor: they tell the installation, so that two do not disturb each other."""

from __future__ import annotations

import re
from dataclasses import dataclass

#: QEMU's limit for node names is 31 characters; ids of exports and jobs share the form.
NODE_LIMIT = 31


def node(installation: str, role: str) -> str:
    name = f"hs-{installation}-{role}"
    if len(name) > NODE_LIMIT:
        raise ValueError(f"QEMU takes node names of {NODE_LIMIT} characters: {name}")
    return name


def is_node_of(installation: str, name: str) -> bool:
    return name.startswith(f"hs-{installation}-")


def is_any_node(name: str) -> bool:
    """Ours, of any installation."""
    return re.match(r"hs-[0-9a-f]{8}-", name) is not None


def owner(name: str) -> str:
    """Whose a node, an export or a job is, for people; empty if no Headstart made it."""
    found = re.match(r"hs-([0-9a-f]{8})-", name)
    return f"of another Headstart, installation {found[1]}" if found else ""


@dataclass(frozen=True, slots=True)
class Track:
    """A bitmap of ours. ``kind`` is ``base`` (``id`` begins with that of the snapshot whose point
    in time it precedes) or ``round`` (``id`` is random). ``nonce`` ties it to one disk of one VM entry."""

    installation: str
    kind: str
    nonce: str
    id: str

    @property
    def name(self) -> str:
        return f"headstart-{self.installation}-{self.kind}-{self.nonce}-{self.id}"


_TRACK = re.compile(r"headstart-([0-9a-f]{8})-(base|round)-([0-9a-f]+)-([0-9a-z]+)")


def parse(name: str) -> Track | None:
    """None if the bitmap is not one of ours (of any installation)."""
    found = _TRACK.fullmatch(name)
    return Track(*found.groups()) if found else None
