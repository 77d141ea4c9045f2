"""Real QEMUs that are started, and their guests not: what a definition becomes is what QEMU takes."""

from __future__ import annotations

import contextlib
import os
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from headstart import errors, units
from headstart.hypervisor.qemu import jobs
from headstart.repository.manifest import Disk
from headstart.restore.booting import definition, instance, moving
from headstart.restore.booting.definition import Derived, Place
from headstart.restore.booting.hold import Hold
from headstart.restore.booting.instance import Instance
from headstart.wire.qmp import Qmp
from tests.kit import disks

BIOS = Path("/usr/share/seabios/bios-256k.bin")


@pytest.fixture
def folder() -> Iterator[Path]:
    """Short enough for sockets."""
    with tempfile.TemporaryDirectory(prefix="hs-", dir="/tmp") as made:
        yield Path(made)


def derived(folder: Path, text: str, *names: str) -> Derived:
    images = {name: disks.make_empty(folder / f"{name}.qcow2", units.MIB, "qcow2") for name in names}
    variables = folder / "variables.fd"
    variables.write_bytes(bytes(64 * units.KIB))
    manifest = [Disk(name, units.MIB, "raw", None, 65536) for name in names]
    return definition.derive(f"qemu-system-x86_64 {text}", manifest, Place("web", folder, images, variables))


#: By what the disks are called, options that make them.
LINES = {
    "drives": (
        ("ide0-hd0", "virtio0", "named"),
        "-hda /a -drive file=/b,if=virtio,format=raw,cache=none,aio=native"
        " -drive file=/c,if=none,id=c -device virtio-blk-pci,drive=c,id=named -cdrom /gone.iso -fda /gone.img",
    ),
    "q35": (("ide1-hd0",), "-machine q35 -cdrom /gone.iso -drive file=/a,bus=1,unit=0,if=ide"),
    "nodes": (
        ("system", "data"),
        "-nodefaults -object throttle-group,id=g,x-iops-total=100 -device virtio-scsi-pci,id=s"
        " -blockdev driver=file,node-name=f,filename=/a,aio=native,cache.direct=on"
        " -blockdev driver=raw,node-name=r,file=f,discard=unmap,detect-zeroes=unmap"
        " -blockdev driver=throttle,node-name=t,throttle-group=g,file=r"
        " -device scsi-hd,bus=s.0,drive=t,id=system"
        ' -blockdev \'{"driver": "qcow2", "node-name": "data", "file": {"driver": "file", "filename": "/b"}}\''
        ' -device \'{"driver": "virtio-blk-pci", "drive": "data", "serial": "data"}\'',
    ),
    "firmware": (
        ("virtio0",),
        f"-drive if=pflash,format=raw,readonly=on,file={BIOS} -drive if=pflash,format=raw,file=/vars"
        " -drive file=/a,if=virtio",
    ),
    "firmware by nodes": (
        ("virtio0",),
        f"-blockdev file,node-name=cf,filename={BIOS},read-only=on -blockdev raw,node-name=code,read-only=on,file=cf"
        " -blockdev file,node-name=vf,filename=/vars -blockdev raw,node-name=vars,file=vf"
        " -machine pc,pflash0=code,pflash1=vars -drive file=/a,if=virtio",
    ),
    "what is left of names of files": (
        ("v",),
        "-nodefaults -machine q35 -audiodev wav,id=a,path=/x -device ich9-intel-hda -device hda-duplex,audiodev=a"
        " -nic stream,model=e1000,server=on,addr.type=unix,addr.path=/x -netdev user,id=n,smb=/x"
        " -device virtio-net-pci,netdev=n -device qemu-xhci -device usb-tablet,pcap=/x -icount 7,rr=record,rrfile=/x"
        f" -blockdev raw,node-name=r,file.driver=file,file.filename={BIOS} -device ide-cd,drive=r,bus=ide.0"
        f' -blockdev \'{{"driver":"file","node-name":"r2f","filename":"{BIOS}","cache":{{"direct":false}}}}\''
        ' -blockdev \'{"driver":"raw","node-name":"r2","file":"r2f"}\' -device ide-cd,drive=r2,bus=ide.1'
        f" -drive file={BIOS},media=cdrom,id=r3,if=none,format=raw,cache=none -device ide-cd,drive=r3,bus=ide.2"
        " -object throttle-group,id=g -blockdev file,node-name=f,filename=/a -blockdev raw,node-name=d,file=f"
        " -blockdev throttle,node-name=t,throttle-group=g,file=d -device virtio-blk-pci,drive=t,id=v"
        " -chardev pty,id=c,logfile=/x -serial chardev:c -object rng-random,id=s,filename=/x"
        " -device virtio-rng-pci,rng=s",
    ),
    "everything around": (
        (),
        "-m 64 -smp 2 -name old,debug-threads=on -uuid 11111111-2222-3333-4444-555555555555 -S -daemonize -pidfile /p"
        " -netdev tap,id=n0,ifname=none0,script=no -device virtio-net-pci,netdev=n0,mac=52:54:00:00:00:01,bootindex=1"
        " -nic user,model=e1000,mac=52:54:00:00:00:02,hostfwd=tcp::22-:22 -net nic,model=rtl8139 -net user"
        " -chardev socket,id=mon,path=/m,server=on,wait=on -mon chardev=mon,mode=control -monitor stdio"
        " -serial mon:stdio -serial telnet::4555,server -parallel file:/log -debugcon file:/log"
        " -device virtio-serial -chardev socket,id=a,path=/a,server=on,wait=on"
        " -device virtserialport,chardev=a,name=org.headstart.agent.0 -chardev tty,id=t,path=/dev/ttyS9"
        " -chardev stdio,id=both,mux=on -mon both -serial chardev:both"
        " -device isa-serial,chardev=t -vnc :77,password=on -usb -device usb-tablet -usbdevice keyboard"
        " -object memory-backend-file,id=mem,size=64M,mem-path=/nowhere,share=on -machine pc,memory-backend=mem"
        " -virtfs local,path=/srv,mount_tag=x,security_model=none -fsdev local,id=f,path=/srv,security_model=none"
        " -device virtio-9p-pci,fsdev=f,mount_tag=y -device vfio-pci,host=01:00.0 -device vhost-vsock-pci,guest-cid=3"
        " -gdb tcp::1234 -D /log -boot order=c -rtc base=utc -global kvm-pit.lost_tick_policy=delay",
    ),
}


@pytest.mark.parametrize("line", LINES)
def test_qemu_takes_it(folder: Path, line: str) -> None:
    """The disks have their names, none is opened but ours, and nothing is listened to elsewhere."""
    names, text = LINES[line]
    made = derived(folder, text, *names)
    with Instance(made) as running:
        assert running.status == "prelaunch"
        found = moving.attachments(running.qmp)
        assert {name: each.disk.layers[0].path for name, each in found.items()} == {
            name: str(folder / f"{name}.qcow2") for name in names
        }
        for name in names:
            assert found[name].disk.name == name
        files = {node["file"] for node in running.qmp.execute("query-named-block-nodes", flat=True)}
        assert {file for file in files if not file.startswith((str(folder), "json:"))} <= {str(BIOS)}
        listened = subprocess.run(["ss", "-lptn"], capture_output=True, text=True, check=False).stdout
        assert f"pid={running.pid}," not in listened
        pid = running.pid
    assert not Path(f"/proc/{pid}").exists()


def test_everything_that_it_listens_to(folder: Path) -> None:
    made = derived(folder, LINES["everything around"][1])
    with Instance(made):
        for path in (made.monitor, made.control, made.screen, made.agent, *made.sockets.values()):
            assert path is not None and path.is_socket()
        assert all(path.exists() for path in made.consoles)


def test_it_says_why_it_does_not_start(folder: Path) -> None:
    with pytest.raises(errors.Unreachable, match="unsupported machine type"):
        Instance(derived(folder, "-machine nonsense"))


def test_more_memory_than_the_host_has() -> None:
    with pytest.raises(errors.NoSpace, match="--memory SIZE"):
        instance.require_memory(1 << 60)
    total, page = os.sysconf("SC_PHYS_PAGES"), os.sysconf("SC_PAGE_SIZE")
    instance.require_memory(total * page)
    with pytest.raises(errors.NoSpace, match="that is free"):
        instance.require_memory(total * page, free=True)
    instance.require_memory(page, free=True)


TWO = "-drive file=/a,if=virtio -drive file=/b,if=virtio"


@pytest.mark.parametrize("owner_stops", [False, True])
@pytest.mark.parametrize("fails", [0, 1, 2])
def test_the_guest_stands_still_while_its_disks_go_over(
    folder: Path, monkeypatch: pytest.MonkeyPatch, fails: int, owner_stops: bool
) -> None:
    """If one has gone over and the next fails, the overlays still are of one moment: nothing was written since. If none
    has, nothing has happened. A guest that its owner has stopped stays stopped."""
    statuses: list[str] = []
    complete = moving._Move.complete

    def completing(move: moving._Move) -> None:
        statuses.append(running.status)
        if len(statuses) == fails:
            raise errors.HeadstartError("It fails.")
        complete(move)

    monkeypatch.setattr(moving._Move, "complete", completing)
    names = ("virtio0", "virtio1")
    images = {name: folder / f"{name}.moved" for name in names}
    with Instance(derived(folder, TWO, *names)) as running:
        running.resume()
        if owner_stops:
            running.stop()
        hold = Hold(running)
        expected = pytest.raises(errors.HeadstartError, match="It fails") if fails else contextlib.nullcontext()
        with expected:
            moving.move(
                running.qmp,
                hold,
                images,
                None,
                lambda *told: None,
                lambda: None,
                lambda: statuses.append(running.status),
            )
        assert statuses == ["paused"] * (fails or 3)
        assert running.status == ("paused" if owner_stops or fails == 2 else "running")
        assert hold.gone_over == (fails != 1)
        assert [images[name].exists() for name in names] == {0: [True, True], 1: [False, False], 2: [True, False]}[
            fails
        ]


@pytest.mark.parametrize("lost", ["order", "answer"])
def test_a_disk_whose_going_over_is_not_answered(folder: Path, monkeypatch: pytest.MonkeyPatch, lost: str) -> None:
    """QEMU is asked where it stands."""
    execute = Qmp.execute

    def executing(qmp: Qmp, command: str, /, **arguments: Any) -> Any:
        if command != "job-complete":
            return execute(qmp, command, **arguments)
        if lost == "answer":
            execute(qmp, command, **arguments)
            jobs.wait(qmp, arguments["id"])
        raise errors.Unreachable("It did not answer.")

    monkeypatch.setattr(Qmp, "execute", executing)
    image = folder / "moved"
    with Instance(derived(folder, "-drive file=/a,if=virtio", "virtio0")) as running:
        running.resume()
        hold = Hold(running)
        with pytest.raises(errors.Unreachable):
            moving.move(running.qmp, hold, {"virtio0": image}, None, lambda *told: None, lambda: None)
        assert hold.gone_over == image.exists() == (lost == "answer")
        assert running.status == ("paused" if lost == "answer" else "running")
