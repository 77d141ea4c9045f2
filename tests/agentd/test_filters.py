"""What agentd knows of filters without a device-mapper."""

from __future__ import annotations

import json
from typing import Any

import pytest

from headstart.agentd import changes, filtering, filters, filtersetup, messages, points
from headstart.agentd.filtering import Hold
from headstart.agentd.filters import Filter, Place
from headstart.agentd.ledger import Ledger
from headstart.agentd.session import Session
from headstart.agentd.work import Work
from tests.agentd import served
from tests.agentd.served import Host
from tests.kit.waiting import wait_until


@pytest.mark.parametrize(
    ("kernel", "built", "may"),
    [
        ("6.1.0-50-cloud-amd64", "#1 SMP PREEMPT_DYNAMIC Debian 6.1.170-1 (2026-04-21)", False),
        ("5.12.0", "#1 SMP", False),
        ("5.11.22", "#1 SMP Wed May 19 2021", True),
        ("5.4.0-42-generic", "#46-Ubuntu SMP Fri Jul 10 00:24:02 UTC 2020", True),
        ("5.4.0-182-generic", "#202-Ubuntu SMP Fri Apr 26 12:29:36 UTC 2024", False),
        ("5.10.0-28-amd64", "#1 SMP Debian 5.10.209-2 (2024-01-31)", False),
        ("4.18.0-80.el8.x86_64", "#1 SMP Wed Mar 13 12:02:46 UTC 2019", True),
        ("strange", "", True),
    ],
)
def test_kernels_that_forget_after_a_crash(kernel: str, built: str, may: bool) -> None:
    assert filters.forgets(kernel, built) is may


@pytest.mark.parametrize(
    ("told", "forgetful", "begun"),
    [("another", True, 0), ("this", True, 3), ("", True, 3), ("another", False, 3)],
    ids=["booted", "the same boot", "not known", "a kernel that does not"],
)
def test_there_a_boot_is_a_doubt(monkeypatch: pytest.MonkeyPatch, told: str, forgetful: bool, begun: int) -> None:
    monkeypatch.setattr(filters, "boot", lambda: "this")
    monkeypatch.setattr(filters, "forgets", lambda kernel, built: forgetful)
    subject = Filter.__new__(Filter)
    subject.ledger = Ledger("", {"boot": told, "seen": 7, "marks": {"a": 3}, "reason": ""})
    subject.compare_boot()
    assert subject.ledger.marks == {"a": begun}
    if not begun:
        # Once, and not at every contact until the counters are known again.
        subject.ledger.told.update(marks={"b": 5}, reason="")
        subject.compare_boot()
        assert subject.ledger.marks == {"b": 5}


def test_a_filter_is_not_added_where_nobody_can_read_its_record(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def untouched(*_: Any) -> None:
        pytest.fail("a disk was touched")

    monkeypatch.setattr(changes, "_FOLDERS", ())
    monkeypatch.setattr(filters, "number", lambda path: (8, len(path)))
    for name in ("_require_unused", "_require_empty", "_clear"):
        monkeypatch.setattr(filtersetup, name, untouched)
    with pytest.raises(OSError, match="thin-provisioning-tools"):
        filtersetup.add(Place("data", "/dev/vda", "/dev/vdbb"))
    assert filtersetup.main(["add", "data", "/dev/vda", "/dev/vdbb"]) == 1
    assert "install thin-provisioning-tools" in capsys.readouterr().err


# -- the ledger

A, B = "a" * 8, "b" * 8


def meet(ledger: Ledger, installation: str, word: str, known: str | None = None) -> None:
    ledger.meet(installation, known, word)


def empty() -> Ledger:
    return Ledger("", {"met": {}, "marks": {}, "reason": "", "seen": 7})


def test_the_last_words_are_known() -> None:
    ledger = empty()
    for number in range(20):
        meet(ledger, A, str(number), str(number - 1))
    assert ledger.met(A) == [str(number) for number in range(12, 20)]
    assert ledger.met(B) == []


def test_who_fails_after_each_greeting_is_believed_all_the_same() -> None:
    """What it kept is older by as many words as it failed."""
    ledger = empty()
    meet(ledger, A, "kept")
    for number in range(20):
        meet(ledger, A, str(number), "kept")
    assert ledger.met(A) == ["kept", "19"]


def test_installations_without_end_leave_room_for_those_that_have_marks() -> None:
    ledger = empty()
    ledger.marks[f"headstart-{A}-0-base"] = 3
    ledger.told["met"] = {A: ["old"], B: ["old"]}
    for number in range(500):
        for word in range(8):
            meet(ledger, f"{number:08x}", f"{word:032x}")
        if number % 10 == 0:
            meet(ledger, "c" * 8, f"{number:032x}")
    assert len(json.dumps(ledger.told)) < 10_000
    assert ledger.met(A) == ["old"] and ledger.met(B) == []
    assert ledger.met("c" * 8) and ledger.met(f"{499:08x}") and not ledger.met(f"{480:08x}")
    assert set(ledger.told["order"]) == set(ledger.told["met"])


# -- a point in time


class Reading(Work):
    """Of the point in time, which cannot be taken away meanwhile."""

    def __init__(self, ended: list[str]) -> None:
        self._ended = ended

    def cancel(self) -> None:
        self._ended.append("read")


@pytest.fixture
def ended(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What has ended, where a point in time of nothing can be had."""
    found: list[str] = []
    monkeypatch.setattr(points, "take", lambda chosen, starts: ({}, 0.0))
    monkeypatch.setattr(points, "release", lambda chosen: found.append("point"))
    return found


def hold(session: Session, request: int, told: dict[str, Any]) -> Work:
    return Hold(session, request, [], {"start": {}, "limit": 100.0})


def test_a_host_that_is_lost_leaves_no_point_in_time_that_was_read(ended: list[str]) -> None:
    handlers = {"hold": hold, "read": lambda session, request, told: Reading(ended)}
    with served.agent({}, handlers=handlers) as link:
        host = Host(link)
        host.hello()
        host.tell(messages.ASK, 2, do="hold")
        assert host.next().kind == messages.NOTE
        host.tell(messages.ASK, 3, do="read")
    wait_until(lambda: ended, 10)
    assert ended == ["read", "point"]


def test_a_point_in_time_that_is_released_is_answered(ended: list[str]) -> None:
    with served.agent({}, handlers={"hold": hold, "release": filtering.release}) as link:
        host = Host(link)
        host.hello()
        host.tell(messages.ASK, 2, do="hold")
        assert host.next().kind == messages.NOTE
        host.tell(messages.ASK, 3, do="release")
        kinds = {frame.request: frame.kind for frame in (host.next(), host.next())}
    assert kinds == {2: messages.ANSWER, 3: messages.ANSWER}
    assert ended == ["point"]
