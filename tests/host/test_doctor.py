"""The doctor's checks as functions of values, and what runs them."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock
from xml.etree import ElementTree

import pytest

from headstart import errors
from headstart.host.doctor import clocks, daemons, examination, inside, machine, places
from headstart.host.doctor.finding import Check, Finding, Level
from headstart.host.doctor.schedules import Jam, jams
from headstart.hypervisor.checkup import Checkup
from headstart.hypervisor.inventory import Inventory
from headstart.hypervisor.libvirt import checkup
from headstart.state.values import Domain, Vm
from tests.agentd import served

# -- running them


def test_a_check_that_hangs_is_left_behind() -> None:
    released = threading.Event()

    def hang() -> list[Finding]:
        released.wait(20)
        return []

    [found] = examination.run(Check("store", hang, 0.1, "web"))
    released.set()
    assert (found.check, found.level, found.vm) == ("store", Level.PROBLEM, "web")
    assert "no answer within 100 ms" in found.what


@pytest.mark.parametrize(
    ("error", "level", "what", "advice"),
    [
        (errors.Unreachable("Nobody is there. Start it. Look."), Level.PROBLEM, "Nobody is there", "Start it. Look."),
        (PermissionError(13, "Permission denied"), Level.PROBLEM, "could not be looked at", ""),
        (ZeroDivisionError("by zero"), Level.WARNING, "ZeroDivisionError: by zero", "Report it."),
    ],
)
def test_what_was_found_before_an_error_is_kept(error: Exception, level: Level, what: str, advice: str) -> None:
    def look() -> Iterator[Finding]:
        yield Finding("state", Level.OK, "so far")
        raise error

    first, second = examination.run(Check("state", look))
    assert first.what == "so far"
    assert (second.level, second.advice) == (level, advice)
    assert what in second.what


# -- QEMU that is confined

LABELS = "<seclabel type='dynamic' model='dac'/><seclabel type='{}' model='apparmor'/>"
RULE = "{}/*.libvirt/nbd rw,\n"


@pytest.mark.parametrize(
    ("labels", "rules", "told"),
    [
        (LABELS.format("dynamic"), "", 1),
        (LABELS.format("dynamic"), "# " + RULE, 1),
        (LABELS.format("dynamic"), "  " + RULE, 0),
        (LABELS.format("none"), "", 0),
        ("<seclabel type='dynamic' model='dac'/>", "", 0),
    ],
)
def test_a_socket_that_apparmor_forbids(
    labels: str, rules: str, told: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "APPARMOR", tmp_path / "libvirt-qemu")
    if rules:
        (tmp_path / "libvirt-qemu").write_text(rules.format(tmp_path / "scratch"))
    confined = checkup.confined(ElementTree.fromstring(f"<domain>{labels}</domain>"))
    seen = Checkup((7, 2, 22), "running", Inventory(()), apparmor=confined)
    subject = mock.Mock(scratch=tmp_path / "scratch")
    found = list(machine.access(subject, Vm("web", domain=Domain("qemu:///system", "web")), seen))
    assert [each.level for each in found] == [Level.WARNING] * told
    assert all(RULE.format(tmp_path / "scratch").strip() in each.advice for each in found)


# -- guests that no hypervisor helps

FILTER = {"name": "data", "missing": "", "id": "01", "size": 1 << 30, "origin": "/dev/vda", "device": "dm-2"}
FILTER |= {"era": 7, "marks": {}, "metadata": [9, 2304], "cow": 1 << 28}


def of_filters(folder: Path, **told: Any) -> dict[str, Level]:
    answer = {"filters": [FILTER], "grain": 65536, **told}
    with served.listening(folder / "agent", {"filters": lambda session, request, asked: answer}):
        return {each.what: each.level for each in inside.filters(Vm("web", agent=str(folder / "agent")), None)}


def test_filters_that_serve(tmp_path: Path) -> None:
    assert list(of_filters(tmp_path, unreadable="", forgets=False).values()) == [Level.OK]


def test_a_record_that_cannot_be_read_is_a_problem(tmp_path: Path) -> None:
    found = of_filters(tmp_path, unreadable="there is no era_invalidate in the guest")
    assert [level for what, level in found.items() if "era_invalidate" in what] == [Level.PROBLEM]


def test_a_kernel_that_forgets_is_a_warning(tmp_path: Path) -> None:
    found = of_filters(tmp_path, forgets=True)
    assert [level for what, level in found.items() if "forgets" in what] == [Level.WARNING]


@pytest.mark.parametrize(("monitor", "level"), [(None, Level.PROBLEM), (Path("/run/qmp"), Level.WARNING)])
def test_an_agent_that_is_silent_is_a_problem_where_there_is_nothing_else(
    tmp_path: Path, monitor: Path | None, level: Level
) -> None:
    vm = Vm("web", monitor, str(tmp_path / "nowhere"))
    assert [each.level for each in inside.agent(vm, None)] == [level]
    assert inside.silent("agent", vm, errors.Unreachable("Nobody answers.")).level is level


# -- schedules


def test_nobody_waits() -> None:
    assert jams({"a": [0.0, 100.0], "b": [50.0]}, {"a": 50.0, "b": 50.0}, 1) == []
    assert jams({"a": [0.0], "b": [0.0]}, {"a": 50.0, "b": 50.0}, 2) == []


def test_more_at_once_than_there_are_slots() -> None:
    due = {name: [1000.0, 90000.0] for name in "abc"}
    lengths = {"a": 60.0, "b": 30.0, "c": 10.0}
    assert jams(due, lengths, 1) == [Jam(1000.0, ("b", "c"), 90.0), Jam(90000.0, ("b", "c"), 90.0)]
    assert jams(due, lengths, 2) == [Jam(1000.0, ("c",), 30.0), Jam(90000.0, ("c",), 30.0)]


# -- places


@pytest.mark.parametrize(
    ("kind", "level", "what"),
    [
        ("nfs4", Level.PROBLEM, "network file system"),
        ("tmpfs", Level.WARNING, "the host's memory"),
        ("overlay", Level.WARNING, "of a container"),
        ("btrfs", Level.WARNING, "copy-on-write"),
        ("zfs", Level.WARNING, "copy-on-write"),
        ("fuse.unionfs", Level.WARNING, "a program serves it"),
        ("", Level.NOTE, "cannot be told"),
    ],
)
def test_kinds_of_file_systems(kind: str, level: Level, what: str) -> None:
    [found] = places.kind_of_place("scratch", Path("/scratch"), kind)
    assert found.level is level and what in found.what and found.advice


@pytest.mark.parametrize("kind", ["ext4", "xfs"])
def test_file_systems_that_are_right(kind: str) -> None:
    assert list(places.kind_of_place("scratch", Path("/scratch"), kind)) == []


# -- the rest


@pytest.mark.parametrize(
    ("words", "is_one"),
    [
        ("/usr/bin/python3 /usr/bin/headstart run", True),
        ("/usr/bin/headstart --state /x run --config y", True),
        ("python -m headstart.cli.main run", True),
        ("/usr/bin/python3 -I /usr/bin/headstart run", True),
        ("timeout 60 headstart run", False),
        ("sudo -u backup /usr/bin/python3 /usr/bin/headstart run", False),
        ("/usr/bin/headstart backup web", False),
        ("vi /home/headstart/run", False),
        ("docker run headstart", False),
        ("", False),
    ],
)
def test_a_daemon_is_known_by_its_command_line(words: str, is_one: bool) -> None:
    assert daemons.is_daemon(words.split(" ")) is is_one


def test_clocks_of_guests() -> None:
    assert list(inside.drift(1000.0, 1005.0)) == []
    [found] = inside.drift(1000.0, 4600.0)
    assert "1 h 0 min behind" in found.what


COMMANDS = [{"name": name, "enabled": True} for name in (*inside._FREEZING, "guest-get-time")]


@pytest.mark.parametrize(
    "moment", [None, "now", float("inf"), float("nan"), 10**400, -1, []], ids=lambda told: str(told)[:9]
)
def test_a_guest_may_say_anything_of_its_clock(moment: Any) -> None:
    answers = {"guest-info": {"version": "9", "supported_commands": COMMANDS}, "guest-get-time": moment}
    [found] = inside._spoken("qga", mock.Mock(execute=lambda command, seconds: answers.get(command)))
    assert found.what == "qga 9 answers, and can freeze"


@pytest.mark.parametrize(
    "info", [None, [], {"supported_commands": 7}, {"supported_commands": [7, {}, {"enabled": 1}]}], ids=str
)
def test_and_of_what_its_qga_can_do(info: Any) -> None:
    [found] = inside._spoken("qga", mock.Mock(execute=lambda command, seconds: info))
    assert found.what.startswith("qga ? answers, and does not do guest-fsfreeze-freeze")


def test_the_kernel_is_asked_about_its_clock() -> None:
    assert clocks.kept_in_step() in (True, False)
