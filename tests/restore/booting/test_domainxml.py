"""What a domain's definition becomes."""

from __future__ import annotations

from collections.abc import Container
from pathlib import Path
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

import pytest

from headstart import errors, units
from headstart.repository.manifest import Disk
from headstart.restore.booting import domainxml
from headstart.restore.booting.definition import Place
from headstart.restore.booting.domainxml import Around
from headstart.wire.nbd import Export

UUID = "11111111-2222-3333-4444-555555555555"


def derived(
    devices: str,
    *names: str,
    head: str = "",
    there: Container[str] = (),
    network: bool = False,
    variables: Path | None = None,
    memory: int | None = None,
    uuid: str = "",
    serial: str | None = None,
    trusted: bool = False,
    media: bool = True,
) -> tuple[Element, tuple[str, ...]]:
    xml = (
        f"<domain type='kvm' id='3'><name>web</name><uuid>{UUID}</uuid><memory unit='MiB'>512</memory>{head}"
        f"<devices>{devices}</devices></domain>"
    )
    disks = tuple(Disk(name, 1 << 20, "raw", None, 65536, serial) for name in names)
    place = Place(
        "booted",
        Path("/run/place"),
        {name: Path(f"/overlays/{name}.qcow2") for name in names},
        variables,
        network,
        memory,
        trusted=trusted,
        there=lambda path: path in there,
        media=media,
    )
    below = {name: Export(Path("/run/place/nbd"), name) for name in names}
    found = domainxml.derive(xml, disks, Around(place, below, uuid))
    return ElementTree.fromstring(found.xml), found.notes


def inside(root: Element) -> str:
    devices = root.find("devices")
    assert devices is not None
    return "".join(ElementTree.tostring(each, encoding="unicode") for each in devices)


def same(one: str, other: str) -> bool:
    def parsed(text: str) -> str:
        return ElementTree.canonicalize(f"<x>{text}</x>", strip_text=True)

    return parsed(one) == parsed(other)


DISK = """
<disk type='block' device='{device}'>
  <driver name='qemu' type='raw' cache='none' io='native' discard='unmap'/>
  <auth username='u'/><source dev='/dev/vg/web'/><backingStore/><shareable/>
  <target dev='vda' bus='virtio'/><serial>S1</serial><boot order='1'/><iotune><read_iops_sec>9</read_iops_sec></iotune>
</disk>"""
REPLACED = """
<disk type='file' device='disk'>
  <target dev='vda' bus='virtio'/><serial>S1</serial><boot order='1'/><iotune><read_iops_sec>9</read_iops_sec></iotune>
  <driver name='qemu' type='qcow2' discard='unmap' error_policy='stop' rerror_policy='stop'/>
  <source file='/overlays/{name}.qcow2'/>
  <backingStore type='network'><format type='raw'/>
    <source protocol='nbd' name='{name}'>
      <host transport='unix' socket='/run/place/nbd'/>
    </source><backingStore/>
  </backingStore>
</disk>"""


@pytest.mark.parametrize(("device", "name"), [("disk", "vda"), ("lun", "vda"), ("disk", "renamed")])
def test_a_disk_gets_the_overlay(device: str, name: str) -> None:
    """By its target, or its serial."""
    root, notes = derived(DISK.format(device=device), name, serial="S1")
    assert same(inside(root), REPLACED.format(name=name)) and not notes


def test_who_it_is() -> None:
    root, _ = derived("")
    assert root.get("id") is None and root.findtext("name") == "booted" and root.findtext("uuid") == UUID
    told = f"<entry name='serial'>1</entry><entry name='uuid'>{UUID}</entry>"
    sysinfo = f"<sysinfo type='smbios'><system>{told}</system></sysinfo>"
    root, _ = derived("", head=sysinfo)
    assert [each.text for each in root.iter("entry")] == ["1", UUID]
    head = f"{sysinfo}<seclabel type='dynamic'/><memoryBacking><hugepages/></memoryBacking>"
    root, _ = derived("", uuid="other", head=head)
    assert root.findtext("uuid") == "other" and [each.text for each in root.iter("entry")] == ["1", "other"]
    assert root.find("seclabel") is None and root.find("memoryBacking") is None


@pytest.mark.parametrize(
    ("before", "after"),
    [
        # network
        (
            "<interface type='bridge'><mac address='m'/><source bridge='br0'/><model type='virtio'/>"
            "<filterref filter='f'/></interface>",
            "<interface type='user'><mac address='m'/><model type='virtio'/><link state='down'/></interface>",
        ),
        ("<interface type='hostdev'><mac address='m'/></interface>", ""),
        # drives that a backup has not
        (
            "<disk type='file' device='cdrom'><source file='/gone.iso'/><target dev='sdb'/><readonly/></disk>",
            "<disk type='file' device='cdrom'><target dev='sdb'/><readonly/></disk>",
        ),
        ("<disk type='file' device='cdrom'><source file='/there.iso'/><target dev='sdb'/></disk>", None),
        ("<disk type='file' device='disk'><source file='/there.iso'/><target dev='vdc'/><readonly/></disk>", None),
        ("<disk type='file' device='disk'><source file='/data'/><target dev='vdb'/></disk>", ""),
        # character devices
        (
            "<channel type='unix'><source mode='bind' path='/a'/><target type='virtio' name='n'/></channel>",
            "<channel type='unix'><target type='virtio' name='n'/></channel>",
        ),
        (
            "<channel type='unix'><source mode='connect' path='/a'/><target type='virtio' name='n'/></channel>",
            "<channel type='null'><target type='virtio' name='n'/></channel>",
        ),
        (
            "<serial type='tcp'><source mode='bind' service='1'/><protocol type='raw'/><log file='/l'/></serial>",
            "<serial type='pty'/>",
        ),
        (
            "<serial type='file'><source path='/log'/><target port='0'/></serial>",
            "<serial type='pty'><target port='0'/></serial>",
        ),
        ("<channel type='spicevmc'><target type='virtio'/></channel>", None),
        # the host's
        ("<hostdev mode='subsystem'/><filesystem/><shmem name='x'/><tpm model='tpm-tis'/>", ""),
        ("<vsock><cid auto='no' address='3'/></vsock>", "<vsock><cid auto='yes'/></vsock>"),
        ("<rng model='virtio'><backend model='egd'/></rng>", ""),
        ("<rng model='virtio'><backend model='random'>/dev/urandom</backend></rng>", None),
        ("<redirdev bus='usb' type='tcp'/>", ""),
        ("<graphics type='sdl'/>", ""),
        (
            "<graphics type='vnc' port='5901' autoport='no' listen='0.0.0.0'><listen type='address'/></graphics>",
            "<graphics type='vnc' autoport='yes'/>",
        ),
        ("<audio id='1' type='alsa'/>", "<audio id='1' type='none'/>"),
        ("<audio id='1' type='file' path='/sound'><output/></audio>", "<audio id='1' type='none'/>"),
        # files that the VM as it was has open
        (
            "<memory model='nvdimm' access='shared'><source><path>/pmem</path></source><target/></memory>"
            "<memory model='dimm'><target><size unit='MiB'>1</size></target></memory>",
            "<memory model='dimm'><target><size unit='MiB'>1</size></target></memory>",
        ),
        ("<memory model='virtio-pmem'><source><path>/pmem</path></source></memory>", ""),
        ("<pstore backend='acpi-erst'><path>/pstore</path><size unit='KiB'>64</size></pstore>", ""),
        ("<lease><lockspace>l</lockspace><key>k</key><target path='/lease'/></lease>", ""),
        (
            "<input type='evdev'><source dev='/dev/input/event1'/></input><input type='tablet'/>",
            "<input type='tablet'/>",
        ),
        ("<input type='passthrough'><source evdev='/dev/input/event1'/></input>", ""),
        ("<disk type='vhostuser'><source type='unix' path='/s'/><target dev='vdx'/><readonly/></disk>", ""),
        ("<disk type='nvme'><source type='pci'/><target dev='vdx'/><readonly/></disk>", ""),
        (
            "<emulator>/usr/bin/kvm</emulator><watchdog model='i6300esb'/><anything newer='yes'/><memory/><medium/>",
            None,
        ),
    ],
)
def test_every_device(before: str, after: str | None) -> None:
    root, _ = derived(before, there={"/there.iso"})
    assert same(inside(root), before if after is None else after), inside(root)


def test_the_network_as_it_was() -> None:
    before = "<interface type='bridge'><mac address='m'/><source bridge='br0'/></interface>"
    root, _ = derived(before, network=True)
    assert same(inside(root), before)


def test_uefi_starts_with_variables_of_its_own() -> None:
    head = "<os><loader type='pflash'>/ovmf</loader><nvram template='/t' type='file'><source file='/v'/></nvram></os>"
    root, _ = derived("", head=head, variables=Path("/mine.fd"))
    nvram = root.find("os/nvram")
    assert nvram is not None and nvram.text == "/mine.fd" and len(nvram) == 0
    with pytest.raises(errors.NotFound, match="UEFI variables"):
        derived("", head=head)


def test_firmware_is_opened_to_be_read_only() -> None:
    """Else the guest of a rehearsal writes into the flash of the VM that runs."""
    vars_ = "<nvram>/v</nvram>"
    for readonly in ("", "readonly='no'", "readonly='yes'"):
        loader = f"<loader type='pflash' {readonly}>/ovmf</loader>"
        root, _ = derived("", head=f"<os>{loader}{vars_}</os>", variables=Path("/mine.fd"))
        found = root.find("os/loader")
        assert found is not None and found.get("readonly") == "yes"
    with pytest.raises(errors.Unsupported, match="one flash"):
        derived("", head="<os><loader type='pflash' readonly='no'>/ovmf</loader></os>")


def test_variables_of_the_newer_kind() -> None:
    root, _ = derived("", head="<os><varstore path='/v' template='/t'/></os>", variables=Path("/mine.json"))
    varstore = root.find("os/varstore")
    assert varstore is not None and varstore.attrib == {"path": "/mine.json"}
    with pytest.raises(errors.NotFound, match="UEFI variables"):
        derived("", head="<os><varstore path='/v'/></os>")


def test_a_domain_can_be_started_with_less_memory() -> None:
    root, _ = derived("", memory=units.GIB)
    assert domainxml.memory_of(root) == units.GIB
    with pytest.raises(errors.Usage, match="--memory"):
        derived("", memory=units.GIB, head="<cpu><numa/></cpu>")


@pytest.mark.parametrize(
    ("xml", "error", "words"),
    [
        ("<domain", errors.Unsupported, "no XML"),
        ("<network/>", errors.Unsupported, "no domain"),
        ("<domain><devices/><memory unit='stones'>3</memory></domain>", errors.Unsupported, "memory"),
        (
            "<domain xmlns:q='http://libvirt.org/schemas/domain/qemu/1.0'><devices/><q:commandline/></domain>",
            errors.Unsupported,
            "qemu:commandline",
        ),
        (
            "<domain xmlns:q='http://libvirt.org/schemas/domain/qemu/1.0'><devices/><q:override/></domain>",
            errors.Unsupported,
            "qemu:override",
        ),
    ],
)
def test_what_cannot_be_adjusted_is_refused(xml: str, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        domainxml.derive(xml, (), Around(Place("booted", Path("/run/place"), {})))


def test_a_disk_that_the_definition_has_not() -> None:
    with pytest.raises(errors.NotFound, match=r"Disk vda of the snapshot .* has: vdb"):
        derived("<disk device='disk'><source file='/data'/><target dev='vdb'/></disk>", "vda")


HERE = "<source file='/there'/>"
ELSEWHERE = "<source protocol='nbd' name='x' file='/there'><host name='10.0.0.1' port='10809'/></source>"


@pytest.mark.parametrize("device", ["disk", "cdrom"])
@pytest.mark.parametrize(
    ("kind", "source", "stays"),
    [
        ("network", ELSEWHERE, ""),
        ("network", ELSEWHERE.replace(" file='/there'", ""), ""),
        ("volume", "<source pool='p' volume='v'/>", ""),
        ("file", "<source/>", ""),
        ("file", f"{HERE}<backingStore type='network'>{ELSEWHERE}</backingStore>", HERE),
        ("file", HERE.replace("/>", "><reservations><source path='/s'/></reservations></source>"), HERE),
        ("block", "<source dev='/there'/>", "<source dev='/there'/>"),
    ],
)
def test_a_snapshot_chooses_no_other_hosts(kind: str, source: str, stays: str, device: str) -> None:
    """One that the user names does."""
    given = f"<disk type='{kind}' device='{device}'>{{}}<target dev='sda'/><readonly/></disk>"
    root, notes = derived(given.format(source), there={"/there"})
    if stays or device == "cdrom":
        assert same(inside(root), given.format(stays).replace(kind, kind if stays else "file"))
    else:
        assert inside(root) == ""
    assert bool(notes) != bool(stays)
    root, notes = derived(given.format(source), there={"/there"}, trusted=True)
    assert same(inside(root), given.format(source)) and not notes
    root, notes = derived(given.format(source), there={"/there"}, media=False)
    assert device == "disk" or (root.find("devices/disk/source") is None and notes), "its disks alone are to show"


def test_a_snapshot_chooses_no_programs() -> None:
    """One that the user names does."""
    card = "<interface type='bridge'><source bridge='b'/><script path='/tmp/x'/></interface>"
    given = f"<emulator>/tmp/x/kvm</emulator>{card}"
    xml = f"<domain type='kvm'><name>a</name><devices>{given}</devices></domain>"
    for trusted in (False, True):
        place = Place("booted", Path("/run/place"), {}, network=True, trusted=trusted)
        found = domainxml.derive(xml, (), Around(place))
        assert ("/tmp/x" in found.xml) == trusted
        assert bool(found.notes) != trusted


@pytest.mark.parametrize(
    ("card", "becomes"),
    [
        (
            "<interface type='vhostuser'><mac address='m'/><source path='/etc/x' mode='server'/></interface>",
            "<interface type='user'><mac address='m'/><link state='down'/></interface>",
        ),
        (
            "<interface type='user'><backend type='passt' logFile='/etc/x'/></interface>",
            "<interface type='user'><backend type='passt'/></interface>",
        ),
    ],
)
def test_a_snapshot_chooses_no_files_of_its_network(card: str, becomes: str) -> None:
    root, notes = derived(card, network=True)
    assert same(inside(root), becomes) and notes
