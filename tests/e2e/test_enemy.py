"""A real guest whose agent does not tell the truth: somebody stands in the channel and changes what it says."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from headstart.agentd import frames, messages
from headstart.agentd.frames import Frame
from headstart.backup.transport import Transport
from headstart.units import BLOCK_SIZE
from tests.e2e.agents import wait_for_agentd
from tests.e2e.rig import Rig
from tests.kit import disks
from tests.kit.cli import Cli
from tests.kit.vm import Vm

pytestmark = pytest.mark.vm

MIB = disks.MIB
SIZE = 24 * MIB
#: Content of a DATA frame; what comes instead.
Lie = Callable[[int, bytes], tuple[int, bytes]]


def false(position: int, content: bytes) -> tuple[int, bytes]:
    """One block of four."""
    return position, content if position // BLOCK_SIZE % 4 else bytes([content[0] ^ 1]) + content[1:]


def elsewhere(position: int, content: bytes) -> tuple[int, bytes]:
    return position + MIB, content


@contextlib.contextmanager
def lying(vm: Vm, rig: Rig, lie: Lie) -> Iterator[None]:
    """Between the host and the guest's port."""
    address = rig.folder / "meddler"
    (rig.folder / "agent").unlink()
    (rig.folder / "agent").symlink_to(address)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(address))
        listener.listen()
        thread = threading.Thread(target=_meddle, args=(listener, vm.agent_socket, lie), daemon=True)
        thread.start()
        try:
            yield
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join(10)
            address.unlink()
            rig.follow(vm)


def _meddle(listener: socket.socket, port: Path, lie: Lie) -> None:
    with contextlib.suppress(OSError):
        while True:
            host, _ = listener.accept()
            with host, socket.socket(socket.AF_UNIX) as guest:
                guest.connect(str(port))
                back = threading.Thread(target=_forward, args=(host, guest, bytes), daemon=True)
                back.start()
                _forward(guest, host, _Changed(lie))
                back.join(10)


def _forward(source: socket.socket, target: socket.socket, changed: Callable[[bytes], bytes]) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(1 << 16):
            target.sendall(changed(data))
    for each in (source, target):
        with contextlib.suppress(OSError):
            each.shutdown(socket.SHUT_RDWR)


class _Changed:
    def __init__(self, lie: Lie) -> None:
        self._decoder = frames.Decoder(frames.FROM_GUEST)
        self._lie = lie

    def __call__(self, data: bytes) -> bytes:
        return b"".join(self._frame(frame) for frame in self._decoder.feed(data))

    def _frame(self, frame: Frame) -> bytes:
        payload = frame.payload
        if frame.kind == messages.DATA:
            position, content = self._lie(*messages.unpack_position(payload))
            payload = messages.pack_position(position) + content
        return frames.encode(frame.kind, frame.session, frame.request, payload)


@pytest.fixture(params=["filters", "jobs"])
def rig(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Rig]:
    """One disk; in an iothread the point in time has no more than was asked for, and a second one is made."""
    image = disks.make_filled(tmp_path / "data.qcow2", SIZE, "qcow2")
    with Vm((disks.Disk(image, "qcow2", "data", iothread=request.param == "jobs"),)) as vm:
        wait_for_agentd(vm)
        made = Rig(tmp_path / "rig", vm, agent=True)
        made.backup()
        yield made


def test_what_it_delivered_is_read_from_outside_and_it_is_used_no_longer(rig: Rig) -> None:
    vm = rig.vm
    in_iothread = vm.disk("data").iothread
    with lying(vm, rig, elsewhere):
        vm.guest.write(vm.device("data"), 8 * MIB, 4 * MIB, seed="other extents")
        done = rig.precopy(transport=Transport.AGENT)
        assert any("something else than what was asked for" in note for note in done.notes), done
        assert done.remaining_bytes == 4 * MIB
    with lying(vm, rig, false):
        assert rig.precopy(transport=Transport.AGENT).remaining_bytes == 0
        made = rig.backup()
    assert made.audit.agent_mismatched_bytes > 0, made
    assert any("delivered false blocks" in note for note in made.notes), made
    assert any("begun again" in note for note in made.notes) == in_iothread, made
    # Before the second point in time the host has read it ahead.
    assert (sum(disk.precopied_bytes for disk in made.disks) < MIB) != in_iothread, made
    [image] = rig.restore(made.snapshot).values()
    content = image.read_bytes()[8 * MIB : 12 * MIB]
    assert content == vm.guest.read(vm.device("data"), 8 * MIB, 4 * MIB)
    vm.guest.write(vm.device("data"), 8 * MIB, MIB, seed="once more")
    # The real agent answers again, and is not asked until its owner trusts it.
    cli = Cli(rig.folder)
    assert cli.run("status", "guest").json["vms"][0]["agent_distrusted"]["reason"].startswith("16 of 64 blocks")
    assert (
        "not trusted since" in cli.run("precopy", "guest", "--transport", "agent", expect=1).error["error"]["message"]
    )
    done = rig.precopy()
    assert done.transport == "host" and done.remaining_bytes == 0, done
    cli.run("agent", "trust", "guest")
    vm.guest.write(vm.device("data"), 8 * MIB, MIB, seed="and again")
    assert rig.precopy(transport=Transport.AGENT).transport == "agent"
    rig.exact_backup()
