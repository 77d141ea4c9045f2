"""Volume groups of LVM2: where logical volumes lie, from the metadata on their physical volumes.

Written here because nothing else does it all: the library that knows the format (dissect.volume) is AGPL-3.0,
and neither follows metadata around the end of its ring buffer nor reads stripes.

::

    label (sector 0-3)   "LABELONE", where the header is
    header               32 characters of id, size, data areas..., 0, metadata areas..., 0
    metadata area        512 bytes: magic, size, {offset, size} of the text; then a ring buffer
    text                 group { physical_volumes { pv0 { id, pe_start } } logical_volumes { ... } }

Format: LVM2's lib/format_text/layout.h and lib/label/label.h.
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from headstart.agentd import segments
from headstart.agentd.segments import Segment, Stripe
from headstart.volumes.filesystem import Malformed, Source
from headstart.volumes.volume import Volume, covers, in_order

_SECTOR = 512
_MAGIC = b" LVM2 x[5A%r0N*>"
_LONGEST_TEXT = 8 << 20
_TOKEN = re.compile(r'\s*(?:#[^\n]*\n\s*)*("(?:[^"\\]|\\.)*"|[{}\[\],=]|[^\s{}\[\],="#]+)', re.DOTALL)
_DEEPEST = 8
#: What an LV may consist of, beside being in one piece or striped: said as users know it.
_SPECIAL = {
    "thin": "a thin volume",
    "thin-pool": "a pool of thin volumes",
    "snapshot": "a snapshot of LVM",
    "cache": "a cached volume",
    "vdo": "a VDO volume",
    "mirror": "a mirror",
}

Section = dict[str, Any]


@dataclass(frozen=True, slots=True)
class PhysicalVolume:
    """``text`` is its copy of the group's metadata, if it has one. ``doubt``: why that may be torn."""

    id: str
    volume: Volume
    text: str
    doubt: str = ""


def physical_volume(volume: Volume, source: Source) -> PhysicalVolume:
    """Raises ``Malformed``."""
    start = source.read(0, 4 * _SECTOR)
    label = next((at for at in range(0, len(start), _SECTOR) if start[at : at + 8] == b"LABELONE"), None)
    if label is None:
        raise Malformed("no label of LVM")
    header = source.read(label + struct.unpack_from("<I", start, label + 20)[0], 4096)
    identity = header[:32].decode("ascii", "replace")
    areas = list(struct.iter_unpack("<QQ", header[40 : 40 + (len(header) - 40) // 16 * 16]))
    try:
        first_end = areas.index((0, 0))
        second_end = areas.index((0, 0), first_end + 1)
    except ValueError:
        raise Malformed("a header of LVM without an end") from None
    copies = [_copy(source, offset) for offset, _ in areas[first_end + 1 : second_end]]
    told = [each for each in copies if each.text]
    doubt = next((each.doubt for each in copies if each.doubt), "")
    if len({each.text for each in told}) > 1:
        doubt = doubt or _DIFFER
    return PhysicalVolume(identity, volume, told[0].text if told else "", doubt)


@dataclass(frozen=True, slots=True)
class _Copy:
    """Of a group's metadata, in one area; without text where the area has none, or is not used."""

    text: str = ""
    doubt: str = ""


_DIFFER = "the copies of the metadata of its volume group differ"
_TWINS = "several physical volumes of its volume group have the same id: one may be a copy of another"
_TORN = _Copy(doubt="a copy of the metadata of its volume group is damaged")
#: Of the flags of a copy: it is not used.
_IGNORED = 1


def _copy(source: Source, area: int) -> _Copy:
    header = source.read(area, _SECTOR)
    if header[4:20] != _MAGIC:
        return _TORN
    ring, offset, size, checksum, flags = struct.unpack_from("<QQQII", header, 32)
    if not offset or flags & _IGNORED:
        return _Copy()
    if not (_SECTOR <= offset < ring and 0 < size <= _LONGEST_TEXT):
        return _TORN
    before_end = min(size, ring - offset)
    found = source.read(area + offset, before_end) + source.read(area + _SECTOR, size - before_end)
    text = found.rstrip(b"\0").decode("utf-8", "replace")
    sound = _crc(found) == checksum and _crc(header[4:]) == struct.unpack_from("<I", header)[0]
    return _Copy(text, "" if sound else _TORN.doubt)


def _crc(content: bytes) -> int:
    """LVM's: that of zlib from another beginning, and not inverted at the end (lib/misc/crc.c)."""
    return zlib.crc32(content, _CRC_BEGIN ^ 0xFFFFFFFF) ^ 0xFFFFFFFF


_CRC_BEGIN = 0xF597A6CF


def volumes(physical: list[PhysicalVolume]) -> Iterator[Volume]:
    """The logical volumes of all groups that have a part here."""
    newest: dict[str, tuple[int, str, Section]] = {}
    doubts: dict[str, str] = {}
    for each in physical:
        for name, group in parse(each.text).items():
            if isinstance(group, dict) and isinstance(group.get("seqno"), int):
                key = str(group.get("id"))
                known = newest.get(key)
                if known is not None and known[0] != group["seqno"]:
                    doubts[key] = _DIFFER
                if known is None or known[0] < group["seqno"]:
                    newest[key] = (group["seqno"], name, group)
    here: dict[str, PhysicalVolume] = {}
    for each in physical:
        here[each.id] = replace(here[each.id], doubt=_TWINS) if each.id in here else each
    for key, (_, name, group) in newest.items():
        try:
            yield from _of_group(name, group, here, doubts.get(key, ""))
        except (LookupError, TypeError, ValueError, AttributeError):
            raise Malformed(f"the volume group {name} makes no sense") from None


def _of_group(name: str, group: Section, here: Mapping[str, PhysicalVolume], doubt: str) -> Iterator[Volume]:
    extent = group["extent_size"] * _SECTOR
    bases: dict[str, tuple[Volume, int]] = {}
    for called, told in group["physical_volumes"].items():
        its = here.get(told["id"].replace("-", ""))
        if its is not None:
            bases[called] = (its.volume, told["pe_start"] * _SECTOR)
            # What may be wrong with one of its parts may be wrong with each of its volumes.
            doubt = doubt or its.doubt or its.volume.doubt
    found = [
        _logical(f"{name}/{called}", told, extent, bases)
        for called, told in group.get("logical_volumes", {}).items()
        if "VISIBLE" in told.get("status", [])
    ]
    shared = _sharing(found)
    for each in found:
        yield replace(each, doubt=doubt or (_SHARED if each.name in shared else ""))


_SHARED = "by the metadata of its volume group it shares extents with another volume"


def _sharing(volumes: list[Volume]) -> set[str]:
    """Each extent belongs to one volume, unless the metadata is not what LVM wrote."""
    pieces = sorted((disk, extent, each.name) for each in volumes for disk, extent in covers(each))
    found: set[str] = set()
    last: tuple[str, int, str] | None = None
    for disk, extent, name in pieces:
        if last is not None and last[0] == disk and extent.start < last[1]:
            found |= {name, last[2]}
        if last is None or last[0] != disk or extent.end > last[1]:
            last = (disk, extent.end, name)
    return found


def _logical(name: str, told: Section, extent: int, bases: Mapping[str, tuple[Volume, int]]) -> Volume:
    parts = [told[f"segment{number}"] for number in range(1, told["segment_count"] + 1)]
    size = sum(part["extent_count"] for part in parts) * extent
    found: list[Segment] = []
    for part in parts:
        kind = part["type"].split("+")[0]
        if kind not in ("striped", "linear"):
            return Volume(name, size, segments=None, problem=f"it is {_SPECIAL.get(kind, f'of type {kind}')}")
        columns = [(part["stripes"][at], part["stripes"][at + 1]) for at in range(0, len(part["stripes"]), 2)]
        missing = [base for base, _ in columns if base not in bases]
        if missing:
            return Volume(name, size, segments=None, problem="a part of it is on no disk of this snapshot")
        stripes = tuple(Stripe(bases[base][0].name, bases[base][1] + first * extent) for base, first in columns)
        chunk = part["stripe_size"] * _SECTOR if len(stripes) > 1 else 0
        found.append(Segment(part["start_extent"] * extent, part["extent_count"] * extent, stripes, chunk))
    lower = {base.name: list(base.segments or ()) for base, _ in bases.values()}
    below = segments.compose(found, lower)
    if below is None:
        return Volume(name, size, segments=None, problem="it is striped over volumes that are in pieces")
    if sum(segment.length for segment in below) != size or not in_order(below, size):
        return Volume(name, size, segments=None, problem="where it lies makes no sense")
    return Volume(name, size, segments=tuple(below))


def parse(text: str) -> Section:
    """The metadata as dictionaries, lists, texts and numbers. Raises ``Malformed``."""
    tokens = _tokens(text)
    return _section(tokens, 0)


def _tokens(text: str) -> Iterator[str]:
    position = 0
    while found := _TOKEN.match(text, position):
        position = found.end()
        yield found.group(1)


def _section(tokens: Iterator[str], depth: int) -> Section:
    """Up to the brace that ends it, or the end."""
    if depth > _DEEPEST:
        raise Malformed("metadata of LVM in which sections never end")
    found: Section = {}
    for name in tokens:
        if name == "}":
            return found
        match next(tokens, ""):
            case "{":
                found[name] = _section(tokens, depth + 1)
            case "=":
                found[name] = _value(next(tokens, ""), tokens)
            case other:
                raise Malformed(f"metadata of LVM with {other!r} after {name!r}")
    return found


def _value(token: str, tokens: Iterator[str]) -> Any:
    if token == "[":
        items = []
        for each in tokens:
            if each == "]":
                break
            if each != ",":
                items.append(_value(each, tokens))
        return items
    if token.startswith('"'):
        return re.sub(r"\\(.)", r"\1", token[1:-1])
    try:
        return int(token)
    except ValueError:
        return token
