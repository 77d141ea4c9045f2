"""A definition in a repository chooses no programs of the host, and no files to write to."""

from __future__ import annotations

from pathlib import Path

import pytest

from headstart import errors
from headstart.repository.manifest import Disk
from headstart.restore.booting import commandline, definition, trust
from headstart.restore.booting.definition import Place


def tamed(words: str) -> tuple[str, list[str]]:
    notes: list[str] = []
    line = trust.tamed(commandline.read(words), notes.append, ("m", "netdev", "device"))
    return " ".join(line.words), notes


@pytest.mark.parametrize(
    ("given", "becomes"),
    [
        ("/usr/bin/qemu-system-x86_64 -m 1G", "/usr/bin/qemu-system-x86_64 -m 1G"),
        ("/usr/libexec/qemu-kvm -m 1G", "/usr/libexec/qemu-kvm -m 1G"),
        ("/tmp/x/qemu-system-x86_64 -m 1G", "qemu-system-x86_64 -m 1G"),
        ("./qemu-system-x86_64 -m 1G", "qemu-system-x86_64 -m 1G"),
        ("/usr/bin/../../tmp/qemu-kvm -m 1G", "qemu-kvm -m 1G"),
        ("kvm -plugin /tmp/evil.so -m 1G", "kvm -m 1G"),
        ("kvm -plugin file=/tmp/evil.so", "kvm"),
        ("kvm -semihosting -trace events=/x,file=/etc/passwd -d in_asm", "kvm"),
        ("kvm -netdev tap,id=a,script=/tmp/x,downscript=/tmp/y", "kvm -netdev tap,id=a"),
        ("kvm -netdev bridge,id=a,helper=/tmp/x", "kvm -netdev bridge,id=a"),
        ('kvm -netdev \'{"type":"tap","id":"a","script":"/tmp/x"}\'', 'kvm -netdev {"type": "tap", "id": "a"}'),
        ("kvm -icount shift=auto,rr=record,rrfile=/etc/passwd", "kvm -icount auto"),
        ("kvm -audiodev wav,id=a,path=/etc/passwd", "kvm -audiodev driver=none,id=a"),
    ],
)
def test_what_it_becomes(given: str, becomes: str) -> None:
    words, notes = tamed(given)
    assert words == becomes
    assert bool(notes) == (given != becomes)


@pytest.mark.parametrize(
    ("given", "becomes"),
    [
        (
            "-netdev user,id=n,hostfwd=tcp::22-:22,restrict=off,hostfwd=tcp::80-:80,dnssearch=a,,b,dnssearch=c",
            "-netdev user,id=n,hostfwd=tcp::22-:22,hostfwd=tcp::80-:80,restrict=off,dnssearch=a,,b,dnssearch=c",
        ),
        (
            "-netdev user,id=n,guestfwd=a-cmd:x,hostfwd=a,guestfwd=b-cmd:y,hostfwd=b",
            "-netdev user,id=n,hostfwd=a,hostfwd=b",
        ),
        ("-object memory-backend-ram,id=m,host-nodes=0,host-nodes=2-3,policy=bind", None),
        # the last one counts
        ("-device e1000,mac=a,mac=b", "-device e1000,mac=b"),
    ],
)
def test_what_is_given_again_and_again_stays(given: str, becomes: str | None) -> None:
    line = trust.tamed(commandline.read(f"kvm {given}"), lambda note: None, ("netdev", "device", "object"))
    assert " ".join(line.words) == f"kvm {becomes or given}"


#: A disk of the snapshot's.
DISK = "-blockdev file,node-name=f,filename=/x -blockdev raw,node-name=d,file=f"
LOGGED = '{"driver":"raw","node-name":"top","file":"d","log":{"driver":"file","filename":"/etc/x"}}'


@pytest.mark.parametrize(
    "words",
    [
        # character devices
        "-chardev pty,id=c0,logfile=/etc/x,logappend=off -serial chardev:c0",
        "-chardev null,id=c0,logfile=/etc/x",
        "-chardev pty,id=c0,path=/etc/x -serial pty:/etc/x",
        "-chardev null,id=c0,mux,,logfile=/etc/x",
        "-netdev vhost-user,id=n,chardev=c -chardev socket,id=c,path=/etc/x,server=on -device e1000,netdev=n",
        # sound
        "-audiodev id=a,driver=wav,path=/etc/x",
        "-audiodev oss,id=a,out.dev=/etc/x",
        """-audiodev '{"id":"a","driver":"wav","path":"/etc/x"}'""",
        "-audio driver=wav,model=hda,path=/etc/x",
        # machine, devices, objects
        "-machine virt,dumpdtb=/etc/x",
        "-M dumpdtb=/etc/x,type=virt",
        "-device qemu-xhci -device usb-tablet,pcap=/etc/x",
        "-global usb-tablet.pcap=/etc/x",
        "-global driver=usb-tablet,property=pcap,value=etc-x",
        "-device usb-mtp,rootdir=/etc/x,readonly=off",
        "-device u2f-emulated,dir=/etc/x",
        "-device new-device,log=/etc/x",
        "-object qtest,id=q,chardev=c,log=/etc/x",
        "-object filter-dump,id=f,netdev=n,file=/etc/x",
        "-object rng-random,id=r,filename=/etc/x",
        "-object pr-manager-helper,id=p,path=/etc/x",
        """-object '{"qom-type":"rng-egd","id":"r","chardev":"/etc/x"}'""",
        # network
        "-netdev user,id=n,smb=/etc/x",
        "-netdev user,id=n,guestfwd=tcp:10.0.2.1:1-cmd:/etc/x",
        "-netdev passt,id=n,path=/etc/x",
        "-netdev stream,id=n,server=on,addr.type=unix,addr.path=/etc/x",
        "-nic stream,server=on,addr.type=unix,addr.path=/etc/x",
        "-net dump,file=/etc/x",
        # options
        "-D /etc/x -pidfile /etc/x -writeconfig /etc/x -dump-vmstate /etc/x -trace file=/etc/x -d exec",
        "-qtest-log /etc/x -qtest unix:/etc/x -smb /etc/x -L /etc/x -run-with chroot=/etc/x",
        "-mem-path /etc/x -virtfs local,path=/etc/x,mount_tag=t -perfmap -new-option /etc/x",
        # drives that stay
        "-drive file=/there,readonly=on,id=r,if=none,driver=blklogwrites,log.driver=file,log.filename=/etc/x",
        "-drive file=/there,media=cdrom,file.driver=blklogwrites,file.log.filename=/etc/x",
        f"-blockdev file,node-name=d,filename=/there -blockdev '{LOGGED}' -device ide-cd,drive=top",
    ],
)
def test_a_snapshot_names_no_file_of_the_host(words: str) -> None:
    place = Place("vm", Path("/run/place"), {}, network=True, there=lambda path: path == "/there")
    derived = definition.derive(f"kvm -nodefaults {words}", (), place)
    assert "etc" not in " ".join(derived.words)


def test_what_stays_in_a_drive_is_read_only() -> None:
    nodes = "-blockdev raw,node-name=r,file.driver=file,file.filename=/there -device ide-cd,drive=r"
    json_nodes = """-blockdev '{"driver":"file","node-name":"r","filename":"/there"}' -device ide-cd,drive=r"""
    place = Place("vm", Path("/run/place"), {}, there=lambda path: path == "/there")
    found = definition.derive(f"kvm -nodefaults {nodes}", (), place).words
    assert "raw,node-name=r,file.driver=file,file.filename=/there,file.read-only=on,read-only=on" in found
    found = definition.derive(f"kvm -nodefaults {json_nodes}", (), place).words
    assert '{"driver": "file", "node-name": "r", "filename": "/there", "read-only": true}' in found


@pytest.mark.parametrize(
    "top",
    [
        '{"driver":"blklogwrites","node-name":"top","file":"d","log":{"driver":"file","filename":"/etc/x"}}',
        '{"driver":"copy-before-write","node-name":"top","file":"d","target":{"driver":"file","filename":"/etc/x"}}',
        '{"driver":"throttle","node-name":"top","file":{"driver":"blklogwrites","file":"d"}}',
    ],
)
def test_only_filters_that_write_nowhere_else_stay_above_a_disk(top: str) -> None:
    disk = Disk("v", 1 << 20, "raw", None, 65536, None)
    place = Place("vm", Path("/run/place"), {"v": Path("/overlays/v")}, there=lambda path: False)
    with pytest.raises(errors.Unsupported, match="--definition"):
        definition.derive(f"kvm {DISK} -blockdev '{top}' -device virtio-blk-pci,drive=top,id=v", (disk,), place)


def test_nothing_beside_a_filter_stays() -> None:
    """The guest gets what only looks like a part of the chain by no other way either."""
    disk = Disk("v", 1 << 20, "raw", None, 65536, None)
    place = Place("vm", Path("/run/place"), {"v": Path("/overlays/v")}, there=lambda path: False)
    nodes = f"-blockdev file,node-name=evil,filename=/etc/x {DISK} -blockdev throttle,node-name=top,bottom=evil,file=d"
    words = f"kvm {nodes} -device virtio-blk-pci,drive=top,id=v -device floppy -global floppy.drive=evil"
    derived = definition.derive(words, (disk,), place)
    assert "/etc/x" not in " ".join(derived.words) and "-global" not in derived.words
    assert "throttle,node-name=top,bottom=evil,file=d" in derived.words


def test_a_key_with_a_comma_is_refused() -> None:
    """QEMU would take what follows it for a key of its own."""
    place = Place("vm", Path("/run/place"), {}, there=lambda path: False)
    with pytest.raises(errors.Unsupported, match="makes no sense"):
        definition.derive("kvm -device usb-tablet,serial,,pcap=/etc/x", (), place)


def test_an_option_without_its_argument_takes_no_other_for_it() -> None:
    """QEMU would take -append for the keyboard's layout, and the file for a disk."""
    words, notes = tamed("kvm -k -append /dev/sda")
    assert words == "kvm -append /dev/sda" and notes


def test_the_users_own_is_believed() -> None:
    place = Place("vm", Path("/run/place"), {}, there=lambda path: True)
    words = "/opt/qemu/qemu-system-x86_64 -m 1G -plugin /opt/plugin.so"
    assert definition.derive(words, (), place).words[0] == "qemu-system-x86_64"
    own = Place("vm", Path("/run/place"), {}, trusted=True, there=lambda path: True)
    derived = definition.derive(words, (), own)
    assert derived.words[0] == "/opt/qemu/qemu-system-x86_64" and "/opt/plugin.so" in derived.words
