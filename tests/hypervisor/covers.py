"""Overlays on an image that no QEMU has open."""

from __future__ import annotations

from headstart.hypervisor.overlays import Place, Segment

SIZE = 1 << 20
MINE, OTHERS = "0123abcd", "deadbeef"


def cover(place: Place, *names: str) -> Segment:
    """One segment more, as ``Overlaying`` puts it on."""
    stack = place.stack()
    segment = Segment(place.new(), names)
    place.create(segment.path, stack[-1].path if stack else place.image, "qcow2" if stack else "raw", SIZE)
    place.note((*stack, segment))
    place.point(segment.path)
    return segment
