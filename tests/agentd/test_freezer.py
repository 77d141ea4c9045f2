"""Freezing by agentd in a real guest, and everybody dying meanwhile."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from headstart.agentd import keeper, messages, scripts
from headstart.guest.channel import Channel, Refused
from tests.agentd import guests
from tests.agentd.guests import INNER, OUTER
from tests.kit.vm import Vm

pytestmark = pytest.mark.vm

#: How long the guest may stay frozen when somebody has died.
SOON = 3.0


@pytest.fixture(scope="module")
def guest(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Vm]:
    with guests.mounted(tmp_path_factory.mktemp("freezer")) as vm:
        yield vm


@pytest.fixture(autouse=True)
def tidy(guest: Vm) -> Iterator[None]:
    """Nothing stays frozen, and no process of ours is left but agentd."""
    yield
    assert guests.both(guest) == (False, False)
    guests.wait(lambda: len(guests.processes(guest)) == 1, 15)
    guests.wait(lambda: guests.note(guest) == "", 5)


def freeze(channel: Channel, limit: float = 10.0) -> tuple[int, dict[str, Any]]:
    request = channel.start("freeze", limit=limit)
    return request, channel.answer(request, 9)


def test_writes_wait_until_it_thaws(guest: Vm) -> None:
    with guests.session(guest) as channel:
        request, told = freeze(channel)
        assert told == {"frozen": 2, "skipped": []}
        assert not guests.can_write(guest, OUTER, 0.5)
        assert not guests.can_write(guest, INNER, 0.5)
        # Meanwhile it answers, and reads.
        assert len(channel.ask("map")["mounts"]) == 2
        assert channel.ask("thaw") == channel.answer(request, 1) == {"thawed": 2, "early": False}
        assert guests.can_write(guest, OUTER, 10)
        assert guests.can_write(guest, INNER, 10)


def test_the_longest_is_not_for_the_host_to_say(guest: Vm) -> None:
    assert keeper.LONGEST_SECONDS == 10
    with guests.session(guest) as channel:
        began = time.monotonic()
        request, _ = freeze(channel, 1e9)
        assert channel.answer(request, 12) == {"thawed": 2, "early": True}
        assert 9 < time.monotonic() - began < 11.5
        assert channel.ask("thaw") == {"thawed": 0, "early": True}


@pytest.mark.parametrize("limit", [0, -1, float("nan"), "soon", None])
def test_a_limit_that_is_none(guest: Vm, limit: Any) -> None:
    with guests.session(guest) as channel:
        for do in ("freeze", "arm"):
            with pytest.raises(Refused) as refusal:
                channel.ask(do, limit=limit)
            assert refusal.value.code == messages.WRONG


def test_it_thaws_by_itself_at_the_deadline(guest: Vm) -> None:
    with guests.session(guest) as channel:
        request, _ = freeze(channel, 1)
        assert channel.answer(request, 3) == {"thawed": 2, "early": True}
        assert guests.thawed(guest)
        # The next one is not disturbed.
        freeze(channel)
        assert channel.ask("thaw") == {"thawed": 2, "early": False}


def test_somebody_else_thaws(guest: Vm) -> None:
    with guests.session(guest) as channel:
        freeze(channel)
        guest.guest.thaw(INNER)
        assert channel.ask("thaw") == {"thawed": 1, "early": False}


def test_a_second_freeze(guest: Vm) -> None:
    with guests.session(guest) as channel:
        freeze(channel)
        with pytest.raises(Refused, match="frozen already"):
            channel.ask("freeze", limit=10)
        assert guests.both(guest) == (True, True)
        assert channel.ask("thaw") == {"thawed": 2, "early": False}


def test_again_and_again(guest: Vm) -> None:
    took = []
    with guests.session(guest) as channel:
        for _ in range(10):
            began = time.monotonic()
            freeze(channel)
            between = time.monotonic()
            channel.ask("thaw")
            took.append((between - began, time.monotonic() - between))
    print("freeze, thaw:", ", ".join(f"{a * 1000:.0f} {b * 1000:.0f} ms" for a, b in took))


def test_nothing_to_freeze(guest: Vm) -> None:
    guests.unmount(guest)
    try:
        with guests.session(guest) as channel:
            assert freeze(channel)[1] == {"frozen": 0, "skipped": []}
            assert channel.ask("thaw") == {"thawed": 0, "early": False}
    finally:
        guests.mount(guest)


def test_what_is_mounted_read_only_or_twice(guest: Vm) -> None:
    guest.guest.run(f"mount -o remount,ro {INNER}; mkdir -p /tmp/again; mount -o bind {OUTER} /tmp/again")
    try:
        with guests.session(guest) as channel:
            assert freeze(channel)[1] == {"frozen": 1, "skipped": []}
            assert channel.ask("thaw") == {"thawed": 1, "early": False}
    finally:
        guest.guest.run(f"umount /tmp/again; mount -o remount,rw {INNER}")


def test_a_mount_point_that_is_covered(guest: Vm) -> None:
    guest.guest.run(f"mount -t tmpfs none {INNER}")
    try:
        with guests.session(guest) as channel:
            told = freeze(channel)[1]
            assert told["frozen"] == 1
            assert [each["why"] for each in told["skipped"]] == ["incapable"]
            assert channel.ask("thaw") == {"thawed": 1, "early": False}
    finally:
        guest.guest.unmount(INNER)


# -- everybody dies


def test_a_new_session(guest: Vm) -> None:
    with guests.session(guest) as channel:
        freeze(channel)
    with guests.session(guest):
        assert guests.wait(lambda: guests.thawed(guest), SOON) < SOON


def test_a_freeze_that_is_cancelled_thaws(guest: Vm) -> None:
    with guests.session(guest) as channel:
        request, _ = freeze(channel)
        channel.cancel(request)
        guests.wait(lambda: guests.thawed(guest), SOON)


def test_the_host_is_killed(guest: Vm) -> None:
    code = (
        "import os, signal, sys; from tests.agentd import guests, test_freezer\n"
        "class Vm: agent_socket = sys.argv[1]\n"
        "with guests.session(Vm()) as channel:\n"
        "    test_freezer.freeze(channel)\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(guest.agent_socket)], timeout=60)
    assert done.returncode == -signal.SIGKILL
    assert guests.wait(lambda: guests.thawed(guest), SOON) < SOON


def test_agentd_is_killed(guest: Vm) -> None:
    with guests.session(guest) as channel:
        freeze(channel)
        guests.kill(guest, channel.welcome["pid"])
        assert guests.wait(lambda: guests.thawed(guest), SOON) < SOON


def test_the_keeper_is_killed(guest: Vm) -> None:
    with guests.session(guest) as channel:
        request, _ = freeze(channel)
        (child,) = set(guests.processes(guest)) - {channel.welcome["pid"]}
        guests.kill(guest, child)
        with pytest.raises(Refused, match="died"):
            channel.answer(request, 5)
        assert guests.wait(lambda: guests.thawed(guest), SOON) < SOON
        assert channel.ask("thaw") == {"thawed": 0, "early": True}


@contextlib.contextmanager
def held_back(vm: Vm) -> Iterator[None]:
    """agentd is not started again inside."""
    vm.guest.run("touch /run/no-agentd")
    try:
        yield
    finally:
        vm.guest.run("rm -f /run/no-agentd")


def test_agentd_and_keeper_are_killed(guest: Vm) -> None:
    """The next agentd thaws what this one has frozen, and nothing else."""
    guest.guest.freeze(OUTER)
    try:
        with held_back(guest):
            with guests.session(guest) as channel:
                told = freeze(channel)[1]
                assert told == {"frozen": 1, "skipped": [{"point": OUTER, "type": "ext4", "why": "busy"}]}
                guests.kill(guest, *guests.processes(guest))
            time.sleep(1)
            assert guests.both(guest) == (True, True)
        guests.wait(lambda: not guests.frozen(guest, INNER), 10)
        assert guests.frozen(guest, OUTER)
    finally:
        guest.guest.thaw(OUTER)


def test_a_note_of_another_boot_means_nothing(guest: Vm) -> None:
    with guests.session(guest) as channel:
        freeze(channel)
        note = guests.note(guest)
        channel.ask("thaw")
    boot = note.partition('"boot": "')[2].partition('"')[0]
    assert boot == guest.boot_id
    guests.wait(lambda: guests.note(guest) == "", 5)
    guest.guest.freeze(INNER)
    try:
        with held_back(guest):
            guests.kill(guest, *guests.processes(guest))
            guest.guest.run(f"echo '{note.replace(boot, 'another')}' > {guests.NOTE}")
        with guests.session(guest):
            guests.wait(lambda: guests.note(guest) == "", 5)
            assert guests.frozen(guest, INNER)
    finally:
        guest.guest.thaw(INNER)


def test_a_freeze_that_the_kernel_does_not_end(guest: Vm) -> None:
    """agentd goes on, and what was frozen is thawed in time; the rest when the kernel is done."""
    with guests.session(guest) as channel, hanging(guest, channel) as request:
        began = time.monotonic()
        channel.ask("map")
        assert time.monotonic() - began < 0.5
        with pytest.raises(Refused, match=f"{OUTER} takes too long"):
            channel.answer(request, 4)
        assert not guests.frozen(guest, INNER)
        # As long as it hangs, nobody begins another one.
        with pytest.raises(Refused, match="an earlier freeze"):
            freeze(channel, 0.5)


@contextlib.contextmanager
def hanging(vm: Vm, channel: Channel) -> Iterator[int]:
    """A request for 4 s that has frozen ``INNER``, and does not come to an end with ``OUTER``."""
    for _ in range(5):
        vm.guest.run("sync")
        with throttled(vm, 512):
            # What comes after this waits for two minutes.
            vm.guest.read(vm.device("one"), 0, 64 * 1024)
            request = channel.start("freeze", limit=4)
            time.sleep(0.7)
            if guests.frozen(vm, INNER):
                yield request
                return
            # The kernel still had something to write back.
            channel.cancel(request)
        guests.wait(lambda: len(guests.processes(vm)) == 1, 15)
    pytest.fail("the guest does not come to rest")


def test_writing_back_takes_too_long(guest: Vm) -> None:
    """That comes first: nothing is frozen meanwhile."""
    guest.guest.run(f"dd if=/dev/urandom of={OUTER}/much bs=1M count=4")
    with throttled(guest, 256 * 1024), guests.session(guest) as channel:
        request = channel.start("freeze", limit=2)
        time.sleep(0.5)
        assert not guests.frozen(guest, INNER)
        with pytest.raises(Refused, match=f"{OUTER} takes too long"):
            channel.answer(request, 3)


@contextlib.contextmanager
def throttled(vm: Vm, bytes_per_second: int) -> Iterator[None]:
    """The disk under ``OUTER`` is slow."""
    throttle(vm, bytes_per_second)
    try:
        yield
    finally:
        throttle(vm, 0)


def throttle(vm: Vm, bytes_per_second: int) -> None:
    device = f"/machine/peripheral/{vm.disk('one').device_id}/virtio-backend"
    command = f"block_set_io_throttle {device} {bytes_per_second} 0 0 0 0 0"
    assert vm.qmp("human-monitor-command", command_line=command) == ""


# -- scripts


@contextlib.contextmanager
def hooks(vm: Vm, texts: Mapping[str, str]) -> Iterator[None]:
    """Each also notes its call in /tmp/called."""
    vm.guest.run(f"mkdir -p {guests.HOOKS}; rm -f /tmp/called; touch /tmp/called")
    for name, text in texts.items():
        path = f"{guests.HOOKS}/{name}"
        vm.guest.run(
            f"printf '%s\\n' '#!/bin/sh' 'echo ${{0##*/}} $1 >> /tmp/called' '{text}' > {path} && chmod +x {path}"
        )
    try:
        yield
    finally:
        vm.guest.run(f"rm -rf {guests.HOOKS}")


def called(vm: Vm) -> list[str]:
    return vm.guest.run("cat /tmp/called").output.splitlines()


def test_scripts_are_called_around_it(guest: Vm) -> None:
    probe = f"[ $1 = thaw ] || echo > {OUTER}/by-hook"
    with (
        hooks(guest, {"10-database": probe, "20-queue": "true", "30-old.rpmsave": "true"}),
        guests.session(guest) as channel,
    ):
        guest.guest.run(f"touch {guests.HOOKS}/40-not-executable")
        freeze(channel)
        assert called(guest) == ["10-database freeze", "20-queue freeze"]
        assert channel.ask("thaw") == {"thawed": 2, "early": False}
        guests.wait(lambda: len(called(guest)) == 4, 5)
        assert called(guest)[2:] == ["20-queue thaw", "10-database thaw"]


def test_a_script_that_fails(guest: Vm) -> None:
    failing = "[ $1 = thaw ] || exit 3"
    with hooks(guest, {"1": "true", "2": failing, "3": "true"}), guests.session(guest) as channel:
        with pytest.raises(Refused, match="2 freeze ended with status 3"):
            freeze(channel)
        assert guests.thawed(guest)
        guests.wait(lambda: len(called(guest)) == 4, 5)
        assert called(guest) == ["1 freeze", "2 freeze", "2 thaw", "1 thaw"]


def test_a_script_that_hangs(guest: Vm) -> None:
    with hooks(guest, {"1": "sleep 98765"}), guests.session(guest) as channel:
        began = time.monotonic()
        with pytest.raises(Refused, match="1 freeze did not end in time"):
            freeze(channel, 2)
        assert time.monotonic() - began < 2
        guests.wait(lambda: len(guests.processes(guest)) == 1, scripts.SECONDS + 3)
        assert called(guest) == ["1 freeze", "1 thaw"]
        assert guests.matching(guest, "sleep 98765") == []


def test_a_host_that_goes_away_while_a_script_runs(guest: Vm) -> None:
    with hooks(guest, {"1": "[ $1 = thaw ] || sleep 98765"}):
        with guests.session(guest) as channel:
            channel.start("freeze", limit=10)
            guests.wait(lambda: called(guest) == ["1 freeze"], 3)
        guests.wait(lambda: called(guest) == ["1 freeze", "1 thaw"], SOON)
        assert guests.thawed(guest)


def test_scripts_of_a_killed_keeper(guest: Vm) -> None:
    with hooks(guest, {"1": "true"}), guests.session(guest) as channel:
        freeze(channel)
        guests.kill(guest, *guests.processes(guest))
        guests.wait(lambda: called(guest) == ["1 freeze", "1 thaw"], 10)
        assert guests.thawed(guest)


# -- armed


def test_armed_and_the_host_dies(guest: Vm) -> None:
    with guests.session(guest) as channel:
        assert channel.ask("arm", limit=2) == {"armed": 2}
        began = time.monotonic()
        guest.guest.freeze(INNER)
        guest.guest.freeze(OUTER)
    assert guests.both(guest) == (True, True)
    guests.wait(lambda: guests.thawed(guest), 4)
    assert 1.5 < time.monotonic() - began < 3


def test_armed_and_agentd_dies(guest: Vm) -> None:
    with guests.session(guest) as channel:
        channel.ask("arm", limit=2)
        guest.guest.freeze(INNER)
        guests.kill(guest, channel.welcome["pid"])
        assert guests.frozen(guest, INNER)
        guests.wait(lambda: guests.thawed(guest), 4)


def test_disarmed(guest: Vm) -> None:
    with guests.session(guest) as channel:
        channel.ask("arm", limit=1)
        channel.ask("arm", limit=1)
        guest.guest.freeze(INNER)
        assert channel.ask("disarm") == {"disarmed": True}
        assert channel.ask("disarm") == {"disarmed": False}
        time.sleep(1.5)
        assert guests.frozen(guest, INNER)
        guest.guest.thaw(INNER)


def test_disarmed_by_the_next_session(guest: Vm) -> None:
    with guests.session(guest) as channel:
        channel.ask("arm", limit=10)
    with guests.session(guest) as channel:
        assert channel.ask("disarm") == {"disarmed": True}


def test_disarmed_too_late(guest: Vm) -> None:
    with guests.session(guest) as channel:
        channel.ask("arm", limit=0.3)
        guests.wait(lambda: len(guests.processes(guest)) == 1, 5)
        assert channel.ask("disarm") == {"disarmed": False}
