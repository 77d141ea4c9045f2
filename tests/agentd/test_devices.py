"""A name that comes to another device: what was told of the one is never read from the other."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from headstart.agentd import asks, devices, messages
from headstart.agentd.devices import Devices
from headstart.agentd.segments import Segment, Stripe
from headstart.agentd.work import Refused
from headstart.units import MIB
from tests.agentd import served
from tests.agentd.served import FileDisk, FileLayout, Host

SIZE = MIB


class Machine:
    """Its disks are regular files, whose number is 0:0."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.files = {name: folder / f"{name}.img" for name in ("vda", "vdb", "lv")}

    def plug(self, name: str, content: bytes, number: str = "0:0", sequence: str = "") -> None:
        shutil.rmtree(self.folder / name, ignore_errors=True)
        (self.folder / name).mkdir()
        (self.folder / name / "dev").write_text(f"{number}\n")
        if sequence:
            (self.folder / name / "diskseq").write_text(f"{sequence}\n")
        self.files[name].write_bytes(content)


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    made = Machine(tmp_path)
    for name in made.files:
        made.plug(name, os.urandom(SIZE))
    table = {"lv": [Segment(0, SIZE, (Stripe("vdb", 0),))]}

    class Layout(FileLayout):
        def __init__(self) -> None:
            super().__init__(made.files, table)

        def path(self, name: str) -> str:
            return str(made.files[name])

    monkeypatch.setattr(devices, "_BLOCK", str(tmp_path))
    monkeypatch.setattr(asks, "Layout", Layout)
    monkeypatch.setattr(asks, "DiskReader", FileDisk)
    return made


@pytest.fixture
def host(machine: Machine) -> Iterator[Host]:
    with served.agent(machine.files, read=asks.read) as link:
        found = Host(link)
        found.hello()
        yield found


def see(host: Host, request: int, name: str) -> None:
    host.tell(messages.ASK, request, do="hash", device=name, key="00", spans=[[0, 4096]])
    assert host.next().kind == messages.ANSWER


def whole(host: Host, request: int, target: dict[str, str]) -> bytes:
    host.read(request, target, (0, SIZE), credit=SIZE)
    return b"".join(host.content(request)[0].values())


@pytest.mark.parametrize("target", [{"disk": "vdb"}, {"device": "vdb"}, {"disk": "vdb", "through": "lv"}], ids=str)
def test_a_disk_that_was_compared_is_read_or_none(host: Host, machine: Machine, target: dict[str, str]) -> None:
    see(host, 2, "vdb")
    assert len(whole(host, 3, target)) == SIZE
    other = os.urandom(SIZE)
    machine.plug("vdb", other)
    host.read(4, target, (0, SIZE), credit=SIZE)
    assert host.refusal(4) == messages.WRONG
    # Another one is as it was; and what is compared anew is known anew, in the next session as well.
    assert len(whole(host, 5, {"disk": "vda"})) == SIZE
    see(host, 6, "vdb")
    assert whole(host, 7, {"disk": "vdb"}) == other
    machine.plug("vdb", other)
    host.hello()
    assert whole(host, 8, {"disk": "vdb"}) == other


def test_a_disk_that_goes_while_it_is_read_is_no_other(host: Host, machine: Machine) -> None:
    """What is open stays what it is; a device that has gone fails."""
    content = machine.files["vdb"].read_bytes()
    see(host, 2, "vdb")
    host.read(3, {"disk": "vdb"}, (0, SIZE), credit=SIZE // 2)
    first = host.next()
    machine.files["vdb"].unlink()
    machine.plug("vdb", os.urandom(SIZE))
    host.send(messages.CREDIT, 0, messages.pack_credit(SIZE))
    found = {0: messages.unpack_position(first.payload)[1]} | host.content(3)[0]
    assert b"".join(found.values()) == content


@pytest.mark.parametrize(("number", "sequence"), [("0:1", "7"), ("0:0", "8"), ("0:0", "")])
def test_number_and_medium_are_those_that_were_met(machine: Machine, number: str, sequence: str) -> None:
    machine.plug("vda", b"", "0:0", "7")
    met = Devices()
    with machine.files["vda"].open() as opened:
        met.meet("vda")
        met.require("vda", opened.fileno())
        (machine.folder / "vda" / "diskseq").write_text(sequence)
        (machine.folder / "vda" / "dev").write_text(number)
        with pytest.raises(Refused):
            met.require("vda", opened.fileno())
    with open("/dev/null") as another:
        met.meet("vda")
        with pytest.raises(Refused):
            met.require("vda", another.fileno())
    met.forget()


def test_nothing_stays_open(machine: Machine) -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    met = Devices()
    for _ in range(3):
        met.meet("vda")
        met.meet("vdb")
    (machine.folder / "vda" / "dev").unlink()
    with pytest.raises(OSError):
        met.meet("vda")
    met.forget()
    assert len(list(Path("/proc/self/fd").iterdir())) == before
