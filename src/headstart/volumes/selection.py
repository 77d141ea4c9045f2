"""Which volumes are backed up: patterns, and what they leave out of disks. Pure.

::

    "*", "!swap", "!label:scratch", "/var/lib/mysql"

    what a pattern names     a disk       DISK, with wildcards          as ``headstart vm show`` calls it
                             volumes      swap                          by what they hold
                                          label:NAME                    by the label of the file system or partition
                                          /PATH                         by where the guest mounts them; with a ``!``
                                                                        all such places have to be named
                                          DISK/PARTITION, GROUP/VOLUME  by name, with wildcards

Nothing is left out where there is a doubt where it lies or what it is: then it is backed up, and ``notes`` say why.
"""

from __future__ import annotations

import fnmatch
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from headstart import blocks, extents, plain
from headstart.blocks import Blocks
from headstart.extents import Extent
from headstart.volumes import volume
from headstart.volumes.mounts import Mounts
from headstart.volumes.volume import Volume

SWAP = "swap"
_LABEL = "label:"
#: It is what other volumes are made of: what of it is left out is said of those.
CONTAINER = "LVM2_member"


def includes_disk(patterns: Sequence[str], name: str) -> bool:
    """Whether anything of a disk is backed up: a pattern names it and none with a ``!`` does. Where all that name disks
    have a ``!``, or a volume is named that may lie anywhere, the others are meant."""
    including = [each for each in patterns if not each.startswith("!") and not names_volumes(each)]
    if not including or any(names_volumes(each) for each in patterns if not each.startswith("!")):
        including = ["*"]
    excluding = [each[1:] for each in patterns if each.startswith("!") and (not names_volumes(each) or each == "!swap")]
    return _matches(name, including) and not _matches(name, excluding)


def names_volumes(pattern: str) -> bool:
    """Alone, ``swap`` is a disk of this name; ``!swap`` is both."""
    named = pattern.removeprefix("!")
    return "/" in named or named.startswith(_LABEL) or pattern == "!swap"


def looks_inside(patterns: Iterable[str]) -> bool:
    """Whether it takes a look at what lies on the disks to tell what they leave out."""
    return any(map(names_volumes, patterns))


def needs_mounts(patterns: Iterable[str]) -> bool:
    return any(each.removeprefix("!").startswith("/") for each in patterns)


def _matches(name: str, patterns: Iterable[str]) -> bool:
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)


@dataclass(frozen=True, slots=True)
class Seen:
    """What lies on the disks of a VM. ``problem``: why that is not known, and nothing may be left out."""

    volumes: tuple[Volume, ...] = ()
    mounts: Mounts = field(default_factory=Mounts)
    problem: str = ""

    def mounted(self, each: Volume) -> tuple[str, ...]:
        return self.mounts.points.get(each.name, ())


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A volume that is not backed up. ``pattern`` says so; empty: others are named, and it is not. ``blocks`` by disk:
    those that hold nothing else."""

    volume: Volume
    pattern: str
    blocks: Mapping[str, Blocks]


@dataclass(frozen=True, slots=True)
class Selected:
    left_out: tuple[LeftOut, ...] = ()
    notes: tuple[str, ...] = ()

    def blocks(self, disk: str) -> Blocks:
        """What of a disk is not backed up."""
        return Blocks().union(*(each.blocks[disk] for each in self.left_out if disk in each.blocks))


def select(rules: Iterable[Sequence[str]], seen: Seen, disks: Mapping[str, int], block_size: int) -> Selected:
    """What several lists of patterns leave out, each by itself, of disks of these sizes."""
    wanted = [patterns for patterns in rules if looks_inside(patterns)]
    if not wanted:
        return Selected()
    if seen.problem:
        return Selected(notes=(f"no volume is left out: {seen.problem}",))
    known = {disk for each in seen.volumes for disk, _ in volume.covers(each)}
    notes = [
        f"nothing of disk {disk} is left out: nothing that is known was found on it" for disk in disks.keys() - known
    ]
    found: dict[str, str] = {}
    for patterns in wanted:
        for each, pattern in _named(patterns, seen, notes):
            found.setdefault(each.name, pattern)
    chosen = [each for each in seen.volumes if each.name in found]
    kept = _pieces(each for each in seen.volumes if each.name not in found and each.content != CONTAINER)
    protected = {disk: blocks.of_extents(its, block_size) for disk, its in kept.items()}
    whole = {
        disk: _inner(extents.merge(its), block_size, disks[disk]) - protected.get(disk, Blocks())
        for disk, its in _pieces(chosen).items()
        if disk in disks
    }
    left_out = tuple(LeftOut(each, found[each.name], _share(each, whole, block_size)) for each in chosen)
    return Selected(left_out, tuple(dict.fromkeys(notes)))


def _named(patterns: Sequence[str], seen: Seen, notes: list[str]) -> Iterator[tuple[Volume, str]]:
    """The volumes that patterns leave out, and the pattern that says so."""
    including = [each for each in patterns if not each.startswith("!") and names_volumes(each)]
    whole = [each for each in patterns if not each.startswith("!") and not names_volumes(each)]
    excluding = [each for each in patterns if each.startswith("!") and names_volumes(each)]
    if seen.mounts.problem and needs_mounts(patterns):
        notes.append(f"where the guest mounts its volumes is not known: {seen.mounts.problem}")
    lost = [pattern for pattern in including if not any(names(pattern, each, seen) for each in seen.volumes)]
    notes += [f"there is no volume {each}, which is to be backed up: all that is not excluded is" for each in lost]
    twins = {name for name, count in Counter(each.name for each in seen.volumes).items() if count > 1}
    for each in seen.volumes:
        if any(names(pattern, each, seen) for pattern in including):
            continue
        said = [pattern for pattern in excluding if names(pattern[1:], each, seen)]
        wanted = not including or lost or _on(each, whole) or each.content == CONTAINER
        if wanted and not said:
            continue
        reason = _besides(said, each, seen) if wanted else ""
        if reason := reason or ("another volume has its name" if each.name in twins else _uncertain(each)):
            notes.append(f"volume {each.name} is backed up, and was to be left out: {reason}")
            continue
        yield each, next(iter(said), "")


def _besides(said: Sequence[str], each: Volume, seen: Seen) -> str:
    """Why those that name mount points alone do not leave it out; empty if they do. What lies at another point may be
    something else of it: another subvolume of a btrfs."""
    points = {_tidy(pattern[1:]) for pattern in said}
    others = [point for point in seen.mounted(each) if _tidy(point) not in points]
    if not others or any(not pattern.startswith("!/") for pattern in said):
        return ""
    return f"it is also mounted at {plain.joined(', '.join(others))}"


def names(pattern: str, each: Volume, seen: Seen) -> bool:
    """Whether a pattern, without its ``!``, means a volume."""
    if pattern == SWAP:
        return each.content == SWAP
    if pattern.startswith(_LABEL):
        label = pattern.removeprefix(_LABEL)
        return any(its and fnmatch.fnmatchcase(its, label) for its in (each.label, each.partition_label))
    if pattern.startswith("/"):
        return _tidy(pattern) in map(_tidy, seen.mounted(each))
    return fnmatch.fnmatchcase(each.name, pattern)


def _tidy(point: str) -> str:
    return point.rstrip("/") or "/"


def _on(each: Volume, patterns: Sequence[str]) -> bool:
    """Whether it lies on disks that are to be backed up as a whole."""
    return any(_matches(disk, patterns) for disk, _ in volume.covers(each))


def _uncertain(each: Volume) -> str:
    """Why it cannot be left out; empty if it can."""
    if each.content == CONTAINER:
        return "logical volumes lie on it, which are named one by one"
    if each.segments is None:
        return each.problem or "where it lies is not known"
    return each.doubt


def _pieces(volumes: Iterable[Volume]) -> dict[str, list[Extent]]:
    found: dict[str, list[Extent]] = {}
    for each in volumes:
        for disk, extent in volume.covers(each):
            found.setdefault(disk, []).append(extent)
    return found


def _inner(pieces: Iterable[Extent], block_size: int, size: int) -> Blocks:
    """Blocks of which every byte lies within; the last of a disk may be short."""
    found = Blocks()
    for each in pieces:
        end = blocks.count_of(size, block_size) if each.end >= size else each.end // block_size
        first = blocks.count_of(each.start, block_size)
        if first < end:
            found.add_range(first, end)
    return found


def _share(each: Volume, whole: Mapping[str, Blocks], block_size: int) -> dict[str, Blocks]:
    """Those that it touches; one between two volumes is told of both."""
    pieces = _pieces([each])
    return {disk: blocks.of_extents(its, block_size) & whole[disk] for disk, its in pieces.items() if disk in whole}
