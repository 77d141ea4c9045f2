"""All volumes of some disks."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping

from headstart.volumes import lvm, partitions, signatures, volume
from headstart.volumes.filesystem import Malformed, Source
from headstart.volumes.volume import ReadOnlyBytes, Volume


def volumes(disks: Mapping[str, Source]) -> list[Volume]:
    """By disk, each with what it holds; then those of LVM. A disk that has neither a table nor anything else that is
    known is left out."""

    def read(disk: str, start: int, length: int) -> bytes:
        return disks[disk].read(start, length)

    found: list[Volume] = []
    physical: list[lvm.PhysicalVolume] = []
    for name, source in disks.items():
        for each in _of_disk(name, source, read):
            if each.content == "LVM2_member":
                try:
                    physical.append(lvm.physical_volume(each, ReadOnlyBytes(each, read)))
                except Malformed as error:
                    each = dataclasses.replace(each, problem=str(error))
            found.append(each)
            if len(found) >= volume.MOST:
                return found
    try:
        found += [_recognised(each, read) for each in lvm.volumes(physical)]
    except Malformed as error:
        found = [
            dataclasses.replace(each, problem=str(error)) if each.content == "LVM2_member" else each for each in found
        ]
    return found


def _of_disk(name: str, source: Source, read: Callable[[str, int, int], bytes]) -> Iterator[Volume]:
    whole = _recognised(volume.whole(name, source.size), read)
    parts = partitions.find(name, source)
    if whole.content:
        if parts and not whole.doubt:
            whole = dataclasses.replace(whole, doubt=f"the disk has a partition table besides ({whole.content})")
        yield whole
        return
    for each in parts:
        yield _recognised(each, read)


def _recognised(found: Volume, read: Callable[[str, int, int], bytes]) -> Volume:
    if found.segments is None:
        return found
    source = ReadOnlyBytes(found, read)
    content = signatures.recognise(source)
    doubt = found.doubt
    if not doubt and len(kinds := signatures.kinds(source)) > 1:
        doubt = f"it has the marks of {' and of '.join(kinds)}"
    return dataclasses.replace(found, content=content.kind, label=content.label, uuid=content.uuid, doubt=doubt)
