"""What a definition becomes: a table of command lines, each with what of it must not be there again."""

from __future__ import annotations

import json
import shlex
from collections.abc import Container
from pathlib import Path

import pytest

from headstart import errors
from headstart.repository.manifest import Disk
from headstart.restore.booting import definition
from headstart.restore.booting.definition import Derived, Place

FOLDER = Path("/run/place")
IMAGE = Path("/overlays/it.qcow2")


def derived(
    text: str,
    *names: str,
    serial: str | None = None,
    there: Container[str] = (),
    network: bool = False,
    variables: Path | None = None,
    memory: int | None = None,
    folder: Path = FOLDER,
    trusted: bool = False,
    media: bool = True,
) -> Derived:
    disks = [Disk(name, 1 << 20, "raw", None, 65536, serial) for name in names]
    images = {name: Path(f"/overlays/{name}.qcow2") for name in names}
    place = Place("web", folder, images, variables, network, memory, trusted, lambda path: path in there, media)
    return definition.derive(f"qemu-system-x86_64 -nodefaults {text}", disks, place)


#: What QEMU is given besides: ours.
AROUND = (
    *("qemu-system-x86_64", "-name", "guest=web", "-nodefaults"),
    *("-qmp", "unix:/run/place/qmp,server=on,wait=off", "-qmp", "unix:/run/place/control,server=on,wait=off"),
    *("-display", "none", "-pidfile", "/run/place/pid"),
)


def rest(found: Derived) -> list[str]:
    """The words that came of the definition's."""
    words = list(found.words)
    assert words[:4] == list(AROUND[:4]) and words[-8:] == list(AROUND[4:]), words
    return words[4:-8]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        # what is kept, known or not
        ("-m 4G -smp 4 -cpu host -machine q35,accel=kvm", "-m 4G -smp 4 -cpu host -machine q35,accel=kvm"),
        ("-kernel /k -initrd /i -append 'a b'", "-kernel /k -initrd /i -append 'a b'"),
        # what is another start's, or ours
        ("-S -daemonize -pidfile /p -incoming defer -snapshot -no-shutdown -name old -loadvm s", ""),
        ("-monitor stdio -qmp tcp:0:4444 -gdb tcp::1234 -s -D /log -runas nobody -chroot /jail", ""),
        ("-vnc :1 -m 1", None),
        ("-chardev socket,id=mon,path=/m,server=on -mon chardev=mon,mode=control", ""),
        # network
        (
            "-netdev tap,id=n,ifname=t,script=no -device e1000,netdev=n",
            "-netdev hubport,id=n,hubid=1001 -device e1000,netdev=n",
        ),
        ("-net nic,model=e1000 -net user,hostfwd=tcp::22-:22", "-net nic,model=e1000"),
        (
            "-nic user,model=virtio,mac=52:54:00:00:00:01,hostfwd=tcp::22-:22",
            "-netdev hubport,id=hs-nic0,hubid=1001 -net nic,netdev=hs-nic0,macaddr=52:54:00:00:00:01,model=virtio",
        ),
        ("-nic none", "-nic none"),
        # character devices
        (
            "-chardev socket,id=c,path=/c,server,nowait -device virtserialport,chardev=c,name=o.x",
            "-chardev socket,id=c,path=/run/place/c.sock,server=on,wait=off -device virtserialport,chardev=c,name=o.x",
        ),
        (
            "-chardev socket,id=c,host=0.0.0.0,port=99,server=on -serial chardev:c",
            "-chardev socket,id=c,path=/run/place/c.sock,server=on,wait=off,logfile=/run/place/c.log -serial chardev:c",
        ),
        (
            "-chardev file,id=c,path=/var/log/c -serial chardev:c",
            "-chardev file,id=c,path=/run/place/c.log -serial chardev:c",
        ),
        ("-chardev socket,id=c,path=/other -serial chardev:c", "-chardev null,id=c -serial chardev:c"),
        ("-chardev serial,id=c,path=/dev/ttyS0 -serial chardev:c", "-chardev null,id=c -serial chardev:c"),
        ("-chardev pty,id=c", "-chardev pty,id=c"),
        (
            "-chardev stdio,id=c,mux=on -mon chardev=c -serial chardev:c",
            "-chardev file,id=c,path=/run/place/c.log,mux=on -serial chardev:c",
        ),
        ("-append {text", "-append {text"),
        ("-serial mon:stdio", "-chardev file,id=hs-serial0,path=/run/place/hs-serial0.log -serial chardev:hs-serial0"),
        (
            "-serial telnet::4555,server,nowait",
            "-chardev socket,id=hs-serial0,path=/run/place/hs-serial0.sock,server=on,wait=off,"
            "logfile=/run/place/hs-serial0.log -serial chardev:hs-serial0",
        ),
        ("-serial none -parallel null", "-serial none -parallel null"),
        # what is shared with the host
        ("-device vfio-pci,host=01:00.0 -device usb-host,vendorid=1", ""),
        ("-fsdev local,id=f,path=/srv -device virtio-9p-pci,fsdev=f,mount_tag=t -virtfs local,path=/x,mount_tag=u", ""),
        ("-chardev socket,id=t,path=/swtpm -tpmdev emulator,id=tpm,chardev=t -device tpm-tis,tpmdev=tpm", ""),
        ("-device vhost-vsock-pci,guest-cid=3", ""),
        ("-object filter-dump,id=f,netdev=n,file=/dump", ""),
        (
            "-object memory-backend-file,id=m,size=1G,mem-path=/dev/shm/web,share=on -numa node,memdev=m",
            "-object memory-backend-ram,id=m,size=1G,share=on -numa node,memdev=m",
        ),
        ("-object iothread,id=io -object rng-random,id=r,filename=/dev/urandom", None),
        # drives that a backup has not
        (
            "-drive file=/x.iso,media=cdrom,if=none,id=cd -device ide-cd,drive=cd",
            "-drive media=cdrom,if=none,id=cd -device ide-cd,drive=cd",
        ),
        ("-drive file=/there.iso,media=cdrom,id=cd", "-drive file=/there.iso,media=cdrom,id=cd,readonly=on"),
        ("-fda /floppy.img", "-drive if=floppy,index=0"),
        ("-drive file=/data,id=d,if=none -device virtio-blk-pci,drive=d", ""),
        ("-blockdev file,node-name=f,filename=/a -blockdev raw,node-name=d,file=f -device virtio-blk-pci,drive=d", ""),
        (
            "-blockdev raw,node-name=cd,read-only=on,file.driver=file,file.filename=/x.iso -device scsi-cd,drive=cd",
            "-device scsi-cd",
        ),
    ],
)
def test_every_option(text: str, words: str | None) -> None:
    found = derived(text, there={"/there.iso"})
    if text.startswith("-vnc"):
        assert found.screen == FOLDER / "vnc"
        assert found.words[4:6] == ("-m", "1") and "vnc=unix:/run/place/vnc" in found.words
    else:
        assert rest(found) == shlex.split(text if words is None else words)


def test_a_cd_of_the_host_is_taken_out_where_only_disks_are_to_show() -> None:
    text = "-drive file=/there.iso,media=cdrom,id=cd"
    found = derived(text, there={"/there.iso"}, media=False)
    assert rest(found) == ["-drive", "media=cdrom,id=cd"]
    assert found.notes == ("drive cd is empty: /there.iso is not in a backup",)


@pytest.mark.parametrize("text", ["-newer-option x=y,z -newer-flag -uuid 12", "-flash x -medium -drives y"])
def test_what_is_not_known_stays_in_a_definition_of_the_users(text: str) -> None:
    assert " ".join(rest(derived(text, trusted=True))) == text
    found = derived(text)
    assert rest(found) == (["-uuid", "12"] if "-uuid" in text else []) and found.notes


DISK_OPTIONS = [
    # -drive in every spelling; the name is the one that a backup gives
    (
        "dev",
        "-drive file=/x,if=none,id=d,format=raw,cache=none,aio=native,discard=unmap"
        " -device virtio-blk-pci,drive=d,id=dev",
        "if=none,id=d,discard=unmap,file=/overlays/dev.qcow2,format=qcow2,werror=stop,rerror=stop",
    ),
    (
        "d",
        "-drive file=/x,if=none,id=d -device virtio-blk-pci,drive=d",
        "if=none,id=d,file=/overlays/d.qcow2,format=qcow2,werror=stop,rerror=stop",
    ),
    (
        "virtio1",
        "-drive if=virtio,index=0 -drive file=/x,if=virtio",
        "if=virtio,file=/overlays/virtio1.qcow2,format=qcow2,werror=stop,rerror=stop",
    ),
    (
        "ide0-hd1",
        "-drive file=/there.iso,media=cdrom,readonly=on -drive file=/x",
        "file=/overlays/ide0-hd1.qcow2,format=qcow2,werror=stop,rerror=stop",
    ),
    (
        "ide1-hd0",
        "-machine q35 -drive file=/there.iso,media=cdrom -drive file=/x",
        "file=/overlays/ide1-hd0.qcow2,format=qcow2,werror=stop,rerror=stop",
    ),
    (
        "virtio0",
        "-machine virt -drive file=/x",
        "file=/overlays/virtio0.qcow2,format=qcow2,werror=stop,rerror=stop",
    ),
    (
        "dev",
        "-drive file.driver=nbd,file.host=h,if=none,id=d,throttling.bps-total=9 -device scsi-block,drive=d,id=dev",
        "if=none,id=d,throttling.bps-total=9,file=/overlays/dev.qcow2,format=qcow2,werror=stop,rerror=stop",
    ),
]


@pytest.mark.parametrize(("name", "text", "drive"), DISK_OPTIONS)
def test_a_drive_gets_the_overlay(name: str, text: str, drive: str) -> None:
    words = rest(derived(text, name, there={"/there.iso"}))
    assert drive in words
    assert "file=/x" not in ",".join(words)


@pytest.mark.parametrize("name", ["dev", "node"])
def test_a_node_gets_the_overlay(name: str) -> None:
    """By the device's id, or its node; the device has the name from then on."""
    given = {"dev": ",id=dev", "node": ""}[name]
    text = (
        "-blockdev file,node-name=f,filename=/x,cache.direct=on -blockdev qcow2,node-name=node,file=f,discard=unmap"
        f" -device virtio-blk-pci,drive=node{given}"
    )
    words = rest(derived(text, name))
    assert words[0] == "-blockdev"
    assert json.loads(words[1]) == {
        "driver": "qcow2",
        "node-name": "node",
        "discard": "unmap",
        "file": {"driver": "file", "filename": f"/overlays/{name}.qcow2"},
    }
    assert words[2] == "-device"
    assert set(words[3].split(",")) >= {"virtio-blk-pci", "drive=node", f"id={name}", "rerror=stop", "werror=stop"}


def test_by_its_serial_where_the_name_is_another() -> None:
    text = "-drive file=/x,if=none,id=d -device virtio-blk-pci,drive=d,id=renamed,serial=S1"
    assert "/overlays/old.qcow2" in rest(derived(text, "old", serial="S1"))[1]


def test_a_throttle_stays_above_the_overlay() -> None:
    text = (
        "-object throttle-group,id=g -blockdev file,node-name=f,filename=/x -blockdev raw,node-name=d,file=f"
        " -blockdev throttle,node-name=t,throttle-group=g,file=d -device virtio-blk-pci,drive=t,id=dev"
    )
    words = rest(derived(text, "dev"))
    assert "throttle,node-name=t,throttle-group=g,file=d" in words
    assert json.loads(words[3])["node-name"] == "d" and "node-name=f" not in ",".join(words)


def test_uefi_starts_with_variables_of_its_own() -> None:
    text = (
        "-drive if=pflash,format=raw,readonly=on,file=/ovmf -drive if=pflash,format=raw,file=/vars"
        " -drive file=/x,if=virtio"
    )
    words = rest(derived(text, "virtio0", there={"/ovmf"}, variables=Path("/mine.fd")))
    assert words[1] == "if=pflash,format=raw,readonly=on,file=/ovmf"
    assert words[3] == "if=pflash,format=raw,file=/mine.fd"
    with pytest.raises(errors.NotFound, match="/ovmf, the VM's firmware"):
        derived(text, "virtio0", variables=Path("/mine.fd"))
    with pytest.raises(errors.NotFound, match="UEFI variables"):
        derived(text, "virtio0", there={"/ovmf"})


def test_uefi_by_nodes() -> None:
    text = (
        "-blockdev file,node-name=code-file,filename=/ovmf,read-only=on"
        " -blockdev raw,node-name=code,read-only=on,file=code-file"
        " -blockdev file,node-name=vars-file,filename=/vars -blockdev raw,node-name=vars,file=vars-file"
        " -machine q35,pflash0=code,pflash1=vars"
    )
    words = rest(derived(text, there={"/ovmf"}, variables=Path("/mine.fd")))
    assert words[1].startswith("file,node-name=code-file") and words[3].startswith("raw,node-name=code")
    file = {"driver": "file", "filename": "/mine.fd"}
    assert json.loads(words[5]) == {"driver": "raw", "node-name": "vars", "file": file}
    assert words[6:] == ["-machine", "q35,pflash0=code,pflash1=vars"]


def test_the_network_as_it_was() -> None:
    text = "-netdev tap,id=n,ifname=t -device e1000,netdev=n -nic user,hostfwd=tcp::22-:22"
    assert " ".join(rest(derived(text, network=True))) == text
    with pytest.raises(errors.Unsupported, match="open files"):
        derived("-netdev tap,id=n,fd=3", network=True)


def test_what_is_not_said_is_said() -> None:
    """Without -nodefaults QEMU makes a network of its own, which leads to the host's."""
    place = Place("web", FOLDER, {}, there=lambda _: True)
    found = definition.derive("qemu-system-x86_64 -m 1", [], place)
    assert found.words[found.words.index("-net") :][:2] == ("-net", "nic")
    assert found.consoles == (FOLDER / "hs-serial0.log",)
    assert found.screen == FOLDER / "vnc"


def test_where_it_answers() -> None:
    text = (
        "-chardev socket,id=a,path=/a,server=on,wait=off -device virtserialport,chardev=a,name=org.headstart.agent.0"
        " -chardev socket,id=q,path=/q,server=on,wait=off"
        ' -device \'{"driver":"virtserialport","chardev":"q","name":"org.qemu.guest_agent.0"}\''
    )
    found = derived(text)
    assert (found.agent, found.qga) == (FOLDER / "a.sock", FOLDER / "q.sock")
    assert found.consoles == ()


@pytest.mark.parametrize(
    ("text", "size"), [("-m 512", 512 << 20), ("-m 4G", 4 << 30), ("-m size=1.5G,slots=2", 3 << 29), ("", 128 << 20)]
)
def test_memory(text: str, size: int) -> None:
    assert derived(text).memory == size


def test_a_vm_can_be_started_with_less_memory() -> None:
    found = derived("-m 64G,maxmem=128G", memory=1 << 30)
    assert rest(found) == ["-m", "1024M"] and found.memory == 1 << 30
    with pytest.raises(errors.Usage, match="--memory"):
        derived("-m 64G -object memory-backend-ram,id=m,size=64G", memory=1 << 30)


@pytest.mark.parametrize(
    ("text", "error", "words"),
    [
        ("-readconfig /etc/vm", errors.Unsupported, "-readconfig"),
        ("-add-fd fd=3,set=1", errors.Unsupported, "-add-fd"),
        ("-set drive.d.file=/x", errors.Unsupported, "-set"),
        ("-device virtio-blk-pci,drive=nowhere", errors.Unsupported, "does not define"),
        ("-drive file=/x,id=other,if=none", errors.NotFound, "Disk dev of the snapshot .* has: other"),
        ("-drive file=/x,index=first", errors.Unsupported, "makes no sense"),
        ("-machine q35,pflash0=nowhere", errors.Unsupported, "block node 'nowhere'"),
        ("-m lots", errors.Unsupported, "memory"),
        (
            "-blockdev throttle,node-name=t,throttle-group=g,file.driver=raw -device virtio-blk-pci,drive=t,id=dev",
            errors.Unsupported,
            "inside of a filter",
        ),
    ],
)
def test_what_cannot_be_adjusted_is_refused(text: str, error: type[Exception], words: str) -> None:
    names = ["dev"] if "dev" in words or "filter" in words else []
    with pytest.raises(error, match=words):
        derived(text, *names)


def test_sockets_have_short_names() -> None:
    with pytest.raises(errors.Usage, match="too long for a socket"):
        derived("", folder=Path("/" + "x" * 100))
