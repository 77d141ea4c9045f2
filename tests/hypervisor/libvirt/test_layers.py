"""Whether overlays may record the disks of a domain, by its XML and the files beside its images."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from headstart.hypervisor import overlays, recording
from headstart.hypervisor.inventory import Recorder
from headstart.hypervisor.libvirt import inventory, layers
from headstart.hypervisor.libvirt.inventory import Look
from headstart.hypervisor.libvirt.layers import Conditions
from headstart.hypervisor.overlays import Place, Segment
from headstart.hypervisor.recording import Recording

MINE, OTHER = "0123abcd", "ffffffff"
SIZE = 1 << 20


class Images:
    """Two raw images, and what stands on the first one."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.paths = (folder / "one.raw", folder / "two.raw")
        for path in self.paths:
            path.write_bytes(bytes(SIZE))
        self.chain: list[tuple[Path, str]] = [(self.paths[0], "raw")]
        self.place = overlays.place_of(self.paths[0], folder, MINE)

    def cover(self, path: Path) -> None:
        below, form = self.chain[0]
        Place(self.paths[0], self.folder, "one.raw", MINE).create(path, below, form, SIZE)
        self.chain.insert(0, (path, "qcow2"))

    @property
    def segments(self) -> tuple[Segment, ...]:
        return tuple(Segment(path, ("mark",)) for path, _ in reversed(self.chain[:-1]))

    def look(self, *excluded: str) -> Look:
        (top, form), *below = self.chain
        stores = "".join(
            f"<backingStore type='file'><format type='{form}'/><source file='{path}'/>" for path, form in below
        )
        xml = f"""<domain><name>web</name><devices>
          <disk type='file' device='disk'><driver name='qemu' type='{form}'/><source file='{top}'/>
            {stores}{"</backingStore>" * len(below)}<target dev='vda' bus='virtio'/></disk>
          <disk type='file' device='disk'><driver name='qemu' type='raw'/><source file='{self.paths[1]}'/>
            <target dev='vdb' bus='virtio'/></disk></devices></domain>"""
        return inventory.parse(xml, lambda _: SIZE, excluded)

    def find(self, *excluded: str, wanted: bool = True, prepared: bool = True, obstacle: str = "") -> Look:
        seen = self.look(*excluded)
        tops = {each.disk.name: Path(each.disk.layers[0].path) for each in seen.attachments}
        return layers.find(seen, Recording(MINE, self.folder, wanted, prepared), lambda: Conditions(obstacle, tops))


@pytest.fixture
def images(tmp_path: Path) -> Images:
    return Images(tmp_path)


def unlayered(seen: Look) -> list[str]:
    assert all(each.stack is None for each in seen.attachments)
    return [each.disk.unlayered for each in seen.attachments]


def test_nobody_who_did_not_ask_gets_an_overlay(images: Images) -> None:
    assert unlayered(images.find(prepared=False)) == ["", ""]
    assert unlayered(images.find(wanted=False)) == ["", ""]
    assert all(each.disk.recorder is Recorder.OVERLAY for each in images.find().attachments)


def test_overlays_that_are_there_go_on_unless_nobody_wants_them(images: Images) -> None:
    images.cover(images.place.new())
    images.place.note(images.segments)
    stack = images.find("vdb", prepared=False).attachments[0].stack
    assert stack is not None and stack.recording == ("mark",)
    assert unlayered(images.find("vdb", wanted=False)) == [""]


def test_all_disks_or_none(images: Images) -> None:
    images.cover(images.place.new())
    first, second = unlayered(images.find(prepared=False))
    assert second == layers.NOT_YET and second in first and "vdb" in first
    assert unlayered(images.find(obstacle=layers.TRANSIENT)) == [layers.TRANSIENT] * 2


def test_a_disk_is_told_by_its_image_and_not_by_what_stands_on_it(images: Images) -> None:
    bare = images.find().attachments[0].disk
    images.cover(images.place.new())
    images.cover(images.place.new())
    covered = images.find().attachments[0].disk
    assert covered.overlays == 2
    assert replace(covered, overlays=0, layers=covered.layers[2:]) == bare


@pytest.mark.parametrize(
    ("under", "over", "reason"), [(OTHER, "", layers.THEIRS), (MINE, "theirs.qcow2", layers.BURIED)]
)
def test_overlays_that_are_not_ours_to_use(images: Images, under: str, over: str, reason: str) -> None:
    images.cover(images.folder / f"one.raw.headstart-{under}-00000000")
    if over:
        images.cover(images.folder / over)
    assert unlayered(images.find())[0] == reason


def test_a_definition_that_leads_elsewhere(images: Images) -> None:
    conditions = Conditions("", {"vda": images.paths[0]})
    seen = layers.find(images.look(), Recording(MINE, images.folder, True, True), lambda: conditions)
    assert unlayered(seen)[1] == layers.UNDEFINED.format(path="none")


def test_who_writes_below_the_topmost_overlay_is_noticed(images: Images) -> None:
    for _ in range(2):
        images.cover(images.place.new())
    low, top = images.segments
    images.place.note(images.segments, recording.sealed(images.place, images.segments))
    assert recording.doubt(images.place, [low.path, top.path]) == ""
    write(top.path)
    assert recording.doubt(images.place, [low.path, top.path]) == ""
    assert recording.doubt(images.place, [low.path]), "what was written to the other one is missing"
    write(low.path)
    assert recording.doubt(images.place, [low.path, top.path]) == recording.CHANGED.format(path=low.path)
    stack = images.find().attachments[0].stack
    assert stack is not None and stack.names == ()


def test_an_overlay_that_was_never_put_on_is_no_doubt(images: Images) -> None:
    images.cover(images.place.new())
    images.cover(images.place.new())
    low, top = images.segments
    images.place.note(images.segments, recording.sealed(images.place, [low]))
    assert recording.doubt(images.place, [low.path]) == ""
    write(top.path)
    assert recording.doubt(images.place, [low.path]) == recording.LOST.format(path=top.path)


def write(path: Path) -> None:
    subprocess.run(["qemu-io", "-f", "qcow2", "-c", "write 0 4k", path], check=True, capture_output=True, timeout=20)
