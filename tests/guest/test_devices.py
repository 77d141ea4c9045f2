"""What a guest tells of its disks: values, or ``Lost``."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headstart.agentd.segments import Segment, Stripe
from headstart.extents import Extent
from headstart.guest import devices
from headstart.guest.channel import Lost
from headstart.guest.devices import GuestDisk, Mount, Volume

TOLD: dict[str, Any] = {
    "disks": [{"name": "vda", "size": 1 << 20, "serial": "s", "wwn": "w", "pci": "0000:00:04.0", "news": 1}],
    "volumes": [
        {"name": "vda1", "size": 512, "kind": "partition", "label": "", "segments": [[0, 512, 0, [["vda", 512]]]]},
        {"name": "dm-0", "size": 64, "kind": "lvm", "label": "a-b", "segments": [[0, 64, 8, [["vda", 0], ["vdb", 9]]]]},
        {"name": "dm-1", "size": 64, "kind": "dm", "label": "crypt", "segments": None},
    ],
    "mounts": [{"device": "vda1", "point": "/", "type": "ext4"}],
    "news": True,
}


def test_what_agentd_tells() -> None:
    found = devices.parse(TOLD)
    assert found.disks == (GuestDisk("vda", 1 << 20, "s", "w", "0000:00:04.0"),)
    assert found.volume("vda1") == Volume("vda1", 512, "partition", "", (Segment(0, 512, (Stripe("vda", 512),)),))
    lv = found.volume("dm-0")
    assert lv is not None and lv.extents() == {"vda": [Extent(0, 32)], "vdb": [Extent(9, 32)]}
    assert found.mounted_at("vda1") == [Mount("vda1", "/", "ext4")]
    crypt = found.volume("dm-1")
    assert crypt is not None
    with pytest.raises(ValueError):
        crypt.extents()


WRONG: list[Any] = [
    None,
    True,
    -1,
    1 << 63,
    1.5,
    float("inf"),
    "x" * 5000,
    "",
    [],
    {},
    [[]],
    [[1, 2]],
    [None],
    {"a": 1},
    [[0] * 4],
]


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield from places(inner, (*path, key))


def changed(path: tuple[Any, ...], value: Any) -> dict[str, Any]:
    """``value`` at one place of what would make sense."""
    found = {"told": copy.deepcopy(TOLD)}
    inner: Any = found
    for key in ("told", *path)[:-1]:
        inner = inner[key]
    inner[("told", *path)[-1]] = value
    return found["told"]


def parsed(told: Mapping[str, Any]) -> None:
    """Nothing else than values or ``Lost``, and values that can be used."""
    try:
        found = devices.parse(told)
    except Lost:
        return
    for volume in found.volumes:
        if volume.segments is not None:
            volume.extents()
    repr(found).encode()


@pytest.mark.parametrize("path", list(places(TOLD)), ids=str)
def test_one_thing_that_makes_no_sense(path: tuple[Any, ...]) -> None:
    for value in WRONG if path else [each for each in WRONG if isinstance(each, dict)]:
        parsed(changed(path, value))


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=8,
)


@given(st.fixed_dictionaries({"disks": values, "volumes": values, "mounts": values}))
def test_anything(told: dict[str, Any]) -> None:
    parsed(told)


@given(st.lists(st.tuples(*[st.one_of(st.integers(-1, 2**64), values)] * 3, values), max_size=3))
def test_any_segments(parts: list[Any]) -> None:
    parsed(changed(("volumes", 0, "segments"), [list(part) for part in parts]))


@pytest.mark.parametrize("segment", [[0, 0, 0, [["a", 0]]], [0, 1, 0, []], [0, 1, 0, [["a", 0], ["b", 0]]]], ids=str)
def test_segments_that_lie_nowhere(segment: list[Any]) -> None:
    with pytest.raises(Lost):
        devices.parse(changed(("volumes", 0, "segments"), [segment]))


def test_names_can_be_shown_and_stored() -> None:
    told = json.loads(json.dumps(changed(("mounts", 0, "point"), "/\x1b[2J\n\udcff\u202e/ä b")))
    point = devices.parse(told).mounts[0].point
    assert point == "/?[2J???/ä b"
    point.encode()


def test_too_much_of_anything() -> None:
    for key in ("disks", "volumes", "mounts"):
        with pytest.raises(Lost):
            devices.parse({**TOLD, key: TOLD[key][:1] * 5000})
