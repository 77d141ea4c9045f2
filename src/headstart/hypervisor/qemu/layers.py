"""Which overlays of ours stand on a disk of a running QEMU, and whether one may be put there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from headstart.hypervisor import overlays
from headstart.hypervisor.overlays import Place, Segment
from headstart.hypervisor.qemu import anchor, process
from headstart.hypervisor.qemu.graph import Graph, Node
from headstart.hypervisor.recording import IN_IOTHREAD, Recording, doubt, unbelieved
from headstart.hypervisor.recording import Stack as Overlays

UNNAMED = "its device has no id by which it could be found again under an overlay"
THEIRS = (
    "it stands on an overlay of another installation of Headstart, or of this one before its state was lost: commit"
    " that (docs/overlays.md), and start from the image"
)
NOT_RAW = "its image keeps bitmaps itself"
OTHER_CHAIN = "the overlays of ours beside its image are not those that this QEMU has"
FROM_IMAGE = "the VM was started from the image itself, and not from what {head} leads to"
BY_LINK = (
    "the VM was started from {head} itself, and not from the file that it leads to (readlink -f): QEMU opens a file"
    " again by its name when its use changes, and would find another one there"
)

ONLY_MIGRATABLE = "QEMU was started with -only-migratable, and it must not be migrated while overlays come and go"


@dataclass(frozen=True, slots=True)
class Stack(Overlays):
    """``nodes`` belong to ``segments``, of which there is one at least. ``below``: the node of the image."""

    below: str
    nodes: tuple[str, ...]

    def node(self, segment: Segment) -> str:
        return self.nodes[[each.path for each in self.segments].index(segment.path)]


@dataclass(frozen=True, slots=True)
class Found:
    """``stack`` None: no overlay records the disk; ``obstacle`` says why, where one is wanted. ``count`` of the layers
    are ours all the same. ``place``: where one could be put to start from, if that is all that is missing."""

    stack: Stack | None
    obstacle: str = ""
    count: int = 0
    place: Place | None = None


def find(graph: Graph, top: str, *, recording: Recording, pid: int | None, identified: bool, iothread: str) -> Found:
    """``top`` is the node that the guest's writes go to; ``identified``: its device has an id of the owner's."""
    chain = list(graph.chain(top))
    ours = _ours(graph, chain, recording, pid)
    if len(ours) == len(chain):
        return Found(None)
    below = chain[len(ours)]
    if below.driver == "qcow2" and not ours and not overlays.is_any(_path(graph, below, pid)):
        return Found(None)
    place = overlays.place_of(_path(graph, below, pid), recording.folder, recording.installation)
    opened = [_path(graph, node, pid) for node in ours]
    obstacle = _obstacle(below, place, opened, identified=identified, iothread=iothread)
    if ours and not obstacle and anchor.is_forbidden(process.command_line(pid)):
        obstacle = ONLY_MIGRATABLE
    if obstacle or not recording.wanted:
        wanted = recording.wanted and (bool(ours) or recording.prepared)
        startable = not ours and obstacle == FROM_IMAGE.format(head=place.head)
        return Found(None, obstacle if wanted else "", len(ours), place if startable else None)
    segments = standing(place, len(ours))
    if [each.path for each in reversed(segments)] != opened:
        return Found(None, OTHER_CHAIN, len(ours))
    if doubt(place, opened[::-1]):
        segments = unbelieved(segments)
    nodes = tuple(node.name for node in reversed(ours))
    return Found(Stack(place, below.driver, segments, below.name, nodes), "", len(ours))


def standing(place: Place, count: int) -> tuple[Segment, ...]:
    """The segments of the lowest ``count`` layers; empty if the files do not tell. The head may lead to one more, of a
    run that died before QEMU was told."""
    stack = place.stack()
    return stack[:count] if len(stack) in (count, count + 1) else ()


def _ours(graph: Graph, chain: Sequence[Node], recording: Recording, pid: int | None) -> list[Node]:
    found = []
    for node in chain:
        if node.driver != "qcow2" or not overlays.is_ours(str(_path(graph, node, pid)), recording.installation):
            break
        found.append(node)
    return found


def _path(graph: Graph, node: Node, pid: int | None) -> Path:
    return process.resolve(pid, (graph.file_node(node.name) or node).file)


def _obstacle(below: Node, place: Place, ours: Sequence[Path], *, identified: bool, iothread: str) -> str:
    if below.driver == "qcow2":
        return THEIRS if overlays.is_any(place.image) else NOT_RAW
    if iothread:
        return IN_IOTHREAD
    if not identified:
        return UNNAMED
    if not ours:
        return FROM_IMAGE.format(head=place.head)
    return BY_LINK.format(head=place.head) if place.head in ours else ""
