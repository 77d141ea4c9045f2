r"""How a file in a snapshot is named.

::

    SNAPSHOT:                     all volumes
    SNAPSHOT:/etc/hosts           as the guest sees it, its other file systems in their places
    SNAPSHOT:C:\Users\ann         the volume that Windows is on
    SNAPSHOT:vda/1:/hosts         a volume by name (DISK, DISK/PARTITION, GROUP/LOGICAL VOLUME)
    SNAPSHOT:LABEL=data:/hosts    ... by its label, or by UUID=
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from headstart import errors

#: An id or the beginning of one, or VM@latest; names of VMs may have colons.
_PATH = re.compile(r"(?P<snapshot>[0-9a-fA-F]+|.+?@[^:/\\]+):(?P<rest>.*)", re.DOTALL)
_DRIVE = re.compile(r"(?P<volume>[A-Za-z]:)(?P<path>[/\\].*)?", re.DOTALL)
_VOLUME = re.compile(r"(?P<volume>.+?):(?P<path>[/\\].*)?", re.DOTALL)


@dataclass(frozen=True, slots=True)
class GuestPath:
    """``volume`` empty: the one that the guest's system is on; ``C:`` and so on: as Windows calls it. ``path`` empty:
    nothing was said."""

    snapshot: str
    volume: str
    path: str


def parse(text: str) -> GuestPath:
    """Raises ``Usage``."""
    found = _PATH.fullmatch(text)
    if found is None:
        raise errors.Usage(f"{text!r} names no file of a snapshot: that is SNAPSHOT:/PATH, as web@latest:/etc/hosts.")
    snapshot, rest = found["snapshot"], found["rest"]
    if rest.startswith(("/", "\\")) or not rest:
        return GuestPath(snapshot, "", rest)
    if "\0" in rest:
        raise errors.Usage("A path has no NUL in it.")
    split = _DRIVE.fullmatch(rest) or _VOLUME.fullmatch(rest)
    if split is None:
        return GuestPath(snapshot, rest, "")
    return GuestPath(snapshot, split["volume"], split["path"] or "/")


def is_drive(volume: str) -> bool:
    return len(volume) == 2 and volume[1] == ":"


def parts_of(path: str, *, backslashes: bool = False) -> list[str]:
    """Without what changes nothing. ``..`` stays: where it leads, links decide."""
    if backslashes:
        path = path.replace("\\", "/")
    return [part for part in path.split("/") if part not in ("", ".")]


def joined(parts: Sequence[str]) -> str:
    return "/" + "/".join(parts)
