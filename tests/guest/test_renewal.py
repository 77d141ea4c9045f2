"""An agent is replaced by the one that the host has, in a guest, and whatever goes wrong, one of the two answers."""

from __future__ import annotations

import base64
import hashlib
import socket
import time
from collections.abc import Iterator, Mapping

import pytest

from headstart import errors
from headstart.agentd import messages, release
from headstart.guest import package, renewal
from headstart.guest.channel import Channel, Lost, Refused
from tests.guest.releases import variant
from tests.kit.vm import Vm

FILE = "/usr/lib/headstart-agentd"


def connect(vm: Vm) -> socket.socket:
    link = socket.socket(socket.AF_UNIX)
    link.connect(str(vm.agent_socket))
    return link


def channel(vm: Vm) -> Channel:
    return Channel(connect(vm), seconds=20, any_protocol=True)


def open_channel(vm: Vm) -> Channel:
    return renewal.open_channel(lambda: connect(vm), seconds=20)


def put(vm: Vm, texts: Mapping[str, str], file: str = FILE) -> None:
    """The guest runs this one."""
    coded = base64.b64encode(package.build(texts)).decode()
    for start in range(0, len(coded), 32768):
        arrow = ">>" if start else ">"
        vm.guest.run(f"echo {coded[start : start + 32768]} {arrow} /tmp/coded")
    vm.guest.run(f"base64 -d /tmp/coded > {file}.put && mv {file}.put {file}")
    kill(vm)


def kill(vm: Vm) -> None:
    vm.guest.run("kill -9 $(ps | awk '/python3.*[a]gentd/ {print $1}') || true")


def content(vm: Vm) -> str:
    return vm.guest.run(f"sha256sum < {FILE}").output.split()[0]


@pytest.fixture
def old(module_vm: Vm) -> Iterator[Vm]:
    """The guest runs an agent of an older release."""
    put(module_vm, variant(0))
    yield module_vm
    assert module_vm.guest.run("ls /usr/lib").output.count("headstart-agentd") == 1, "something was left behind"


def offer(agent: Channel, file: bytes, *, digest: str | None = None, until: int | None = None) -> None:
    digest = hashlib.blake2b(file, digest_size=16).hexdigest() if digest is None else digest
    agent.ask("renew", release=9, size=len(file), digest=digest)
    for start in range(0, len(file) if until is None else until, 8192):
        agent.file(start, file[start : start + 8192])


def install(agent: Channel) -> None:
    agent.answer(agent.start("install"), renewal.INSTALL_SECONDS)


def test_an_older_one_is_replaced_while_a_read_was_interrupted(old: Vm) -> None:
    reading = channel(old)
    assert reading.welcome["release"] == 0
    request = reading.read({"disk": "vda"}, [(0, old.disks[0].path.stat().st_size)])
    reading.frame(request)
    reading.close()
    with open_channel(old) as agent:
        assert agent.welcome["release"] == release.RELEASE
        assert agent.welcome["sources"] == package.digest(package.sources())
        assert agent.welcome["pid"] == reading.welcome["pid"], "it has executed itself"
        assert agent.ask("map")["disks"]
    assert content(old) == hashlib.sha256(package.build()).hexdigest()


def test_the_same_number_with_other_sources_is_replaced(module_vm: Vm) -> None:
    put(module_vm, variant(release.RELEASE, more="# another\n"))
    with open_channel(module_vm) as agent:
        assert agent.welcome["sources"] == package.digest(package.sources())
        pid = agent.welcome["pid"]
    with open_channel(module_vm) as agent:
        assert not renewal.due(agent.welcome)
        assert agent.welcome["pid"] == pid


def test_a_newer_one_stays(module_vm: Vm) -> None:
    put(module_vm, variant(release.RELEASE + 1, (1, 2)))
    with open_channel(module_vm) as agent:
        assert agent.welcome["release"] == release.RELEASE + 1
        assert agent.ask("map")["disks"]


def test_an_older_protocol_is_replaced(module_vm: Vm) -> None:
    put(module_vm, variant(0, (0, 0)))
    with open_channel(module_vm) as agent:
        assert agent.welcome["release"] == release.RELEASE


def test_a_newer_protocol_is_told(module_vm: Vm) -> None:
    put(module_vm, variant(release.RELEASE + 1, (2, 3)))
    with pytest.raises(errors.Unreachable, match=r"speaks protocol 2 to 3.*update Headstart on this host"):
        open_channel(module_vm)


def test_a_newer_host_replaces_ours(module_vm: Vm) -> None:
    """Ours, as it is, takes what a later release will send."""
    put(module_vm, package.sources())
    later = package.build(variant(release.RELEASE + 1, (2, 2)))
    with channel(module_vm) as agent:
        offer(agent, later)
        install(agent)
    with channel(module_vm) as agent:
        assert (agent.welcome["release"], agent.welcome["protocols"]) == (release.RELEASE + 1, [2, 2])


@pytest.mark.parametrize("damage", ["digest", "short", "long", "disorder", "nothing"])
def test_what_did_not_arrive_whole_is_refused(old: Vm, damage: str) -> None:
    before, file = content(old), package.build()
    with channel(old) as agent:
        if damage == "digest":
            offer(agent, file, digest="0" * 32)
        elif damage == "short":
            offer(agent, file, until=len(file) // 2)
        elif damage == "long":
            offer(agent, file)
            agent.file(len(file), b"more")
        elif damage == "disorder":
            offer(agent, file, until=0)
            agent.file(8192, file[8192:16384])
        with pytest.raises(Refused) as caught:
            install(agent)
        assert caught.value.code == (messages.WRONG if damage == "nothing" else messages.FAILED)
        assert agent.ask("map")["disks"], "the old one goes on"
    assert content(old) == before


@pytest.mark.parametrize("more", ["raise SystemExit('no such thing')", "def", "print('hello')\nraise SystemExit(0)"])
def test_what_does_not_run_is_refused(old: Vm, more: str) -> None:
    before = content(old)
    with channel(old) as agent:
        offer(agent, package.build(variant(9, more=more)))
        with pytest.raises(Refused, match="does not run here"):
            install(agent)
        assert agent.ask("map")["disks"]
    assert content(old) == before


def test_what_hangs_ends_with_the_session(old: Vm) -> None:
    with channel(old) as agent:
        offer(agent, package.build(variant(9, more="import time; time.sleep(1000)")))
        agent.start("install")
        with pytest.raises(Refused, match="other work"):
            agent.ask("renew", release=9, size=1, digest="")
    with channel(old) as agent:
        assert agent.ask("map")["disks"]
    assert "agentd.new" not in old.guest.run("ps").output


def test_killed_in_the_middle(old: Vm) -> None:
    file = package.build()
    with channel(old) as agent:
        offer(agent, file, until=len(file) // 2)
        agent.ask("map")
        kill(old)
    with open_channel(old) as agent:
        assert agent.welcome["release"] == release.RELEASE


def test_killed_at_any_moment_of_an_installation(module_vm: Vm) -> None:
    whole = [hashlib.sha256(file).hexdigest() for file in (package.build(variant(0)), package.build())]
    for delay in (0.0, 0.3, 0.6, 1.2):
        put(module_vm, variant(0))
        with channel(module_vm) as agent:
            offer(agent, package.build())
            agent.start("install")
            time.sleep(delay)
            kill(module_vm)
            assert content(module_vm) in whole
    with open_channel(module_vm) as agent:
        assert agent.welcome["release"] == release.RELEASE


def test_a_read_under_way_comes_first(old: Vm) -> None:
    with channel(old) as agent:
        agent.read({"disk": "vda"}, [(0, old.disks[0].path.stat().st_size)])
        with pytest.raises(Refused, match="other work"):
            agent.ask("renew", release=9, size=1, digest="")


def test_a_file_system_that_cannot_be_written(module_vm: Vm) -> None:
    run = module_vm.guest.run
    put(module_vm, variant(0, (0, 1)))
    run("mount -o bind /usr/lib /usr/lib && mount -o remount,bind,ro /usr/lib")
    try:
        with open_channel(module_vm) as agent:
            assert agent.welcome["release"] == 0, "of our protocol, so it will do"
            with pytest.raises(Refused, match="cannot be replaced: Read-only file system"):
                offer(agent, b"any")
    finally:
        run("umount -l /usr/lib")
    put(module_vm, variant(0, (0, 0)))
    run("mount -o bind /usr/lib /usr/lib && mount -o remount,bind,ro /usr/lib")
    try:
        with pytest.raises(renewal.NotRenewed, match=r"speaks protocol 0 to 0.*Read-only file system"):
            open_channel(module_vm)
    finally:
        run("umount -l /usr/lib")


def test_no_space(module_vm: Vm) -> None:
    run = module_vm.guest.run
    put(module_vm, variant(0))
    run("touch /run/no-agentd; mkdir -p /small; mount -t tmpfs -o size=80k small /small")
    run(f"mv {FILE} /small/agentd")
    kill(module_vm)
    run("(python3 -I -S /small/agentd > /dev/null 2>&1 &) > /dev/null 2>&1")
    try:
        with channel(module_vm) as agent, pytest.raises(Refused, match="No space left"):
            offer(agent, package.build() * 2)
        assert "agentd.new" not in run("ls /small").output
    finally:
        run(f"mv /small/agentd {FILE}")
        kill(module_vm)
        run("rm /run/no-agentd; umount -l /small")


def test_the_host_that_goes_without_waiting(old: Vm) -> None:
    """It has asked, and does not hear the answer."""
    with channel(old) as agent:
        offer(agent, package.build())
        agent.start("install")
        time.sleep(0.05)
    with open_channel(old) as agent:
        assert agent.welcome["release"] == release.RELEASE


def test_nobody_comes_back(monkeypatch: pytest.MonkeyPatch, old: Vm) -> None:
    monkeypatch.setattr(renewal, "RETURN_SECONDS", 0.0)
    monkeypatch.setattr(renewal, "HELLO_SECONDS", 0.1)
    broken = package.build(variant(9, more="import sys\nif '--check' not in sys.argv: raise SystemExit(1)"))
    monkeypatch.setattr(package, "build", lambda: broken)
    with pytest.raises(Lost, match="does not answer any longer"):
        open_channel(old)
