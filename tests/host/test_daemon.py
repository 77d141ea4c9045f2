"""The daemon over simulated VMs: what happens when, and what survives what."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future
from dataclasses import replace
from typing import Any
from unittest import mock

import pytest

from headstart import errors
from headstart.agentd import messages
from headstart.agentd.figures import Watching
from headstart.agentd.session import Session
from headstart.backup import publish, trim
from headstart.backup.complete import Completing, Options
from headstart.backup.context import Context
from headstart.backup.planner import Planner
from headstart.guest import trimming
from headstart.host import control, document, metrics, requests, retry, steering
from headstart.host.daemon import Daemon
from headstart.host.notify import Notifier
from headstart.host.policy import Assignment, Config, HeadStart, Host
from headstart.host.retry import AGAIN_AT_MOST, Retry
from headstart.state import journal as journals
from headstart.state.runs import Runs
from headstart.state.values import Vm
from tests.agentd import served as agents
from tests.host import home as homes
from tests.host.home import HOUR, MIDNIGHT, NIGHTLY, Home, with_policy
from tests.kit.waiting import wait_until

TWO = MIDNIGHT + 2 * HOUR
PLAIN = {"do": "backup", "options": requests.options_json(Options())}


home = homes.fresh


def backups(home: Home, name: str = "web") -> int:
    return home.verbs(name).count("backup")


def test_rounds_run_ahead_and_the_backup_comes_at_its_time(home: Home) -> None:
    vm = home.add("web")
    with home.serving():
        wait_until(lambda: "precopy" in home.verbs())
        vm.write("a", 3)
        assert not home.snapshots(), "nothing before its time"
        home.now = TWO - 60
        wait_until(lambda: home.pass_time(0.5) and home.verbs().count("precopy") >= 2)
        home.now = TWO
        wait_until(lambda: home.snapshots())
        truth = vm.data("a")
        [made] = home.snapshots()
        assert home.content(made) == truth and made.created == TWO
        wait_until(lambda: home.status()["due"] == TWO + 24 * HOUR)
        # It is done for this day, however often it is looked at.
        home.now = TWO + 600
        wait_until(lambda: home.status()["due"] == TWO + 24 * HOUR)
    assert backups(home) == 1
    disk = Runs(home.journal).newest("web", 100)
    report = next(run.report for run in disk if run.verb == "backup")
    assert report["disks"][0]["precopied_bytes"] > 0, "the head start was used"


def test_the_last_round_ends_just_before_the_backup(home: Home) -> None:
    """It is planned for the last moment at which it still fits in, and the clock is a little later by then."""
    vm = home.add("web")
    begun = []
    with home.serving():
        wait_until(lambda: "precopy" in home.verbs())
        home.now = TWO - 30
        while home.now < TWO - 1.5:
            count = home.verbs().count("precopy")
            home.now += 0.23
            vm.write("a", 3)
            time.sleep(0.06)
            if home.verbs().count("precopy") > count:
                begun.append(home.now)
    assert begun and TWO - 4 < begun[-1] < TWO - 1, [TWO - each for each in begun]


def test_a_backup_goes_nowhere_else_than_it_was_ordered_to(home: Home) -> None:
    home.add("web")
    ours = home.folder / "repository"
    home.vault.address = f"file://{ours}/"
    with home.serving():
        with pytest.raises(errors.Usage, match=f"into file://{ours}/, not into /mnt/usb. Leave --repository"):
            home.ask("backup", vm="web", options=PLAIN["options"], repository="/mnt/usb")
        assert not home.snapshots()
        home.ask("backup", vm="web", options=PLAIN["options"], repository=str(ours))
    assert len(home.snapshots()) == 1


def test_many_days(home: Home) -> None:
    vm = home.add("web")
    with home.serving():
        for day in range(4):
            home.now = MIDNIGHT + day * 24 * HOUR + HOUR
            vm.write("a", day)
            wait_until(lambda: home.verbs()[-1:] == ["precopy"])
            home.now = MIDNIGHT + day * 24 * HOUR + 2 * HOUR
            wait_until(lambda: len(home.snapshots()) > day)  # noqa: B023
            assert home.content(home.snapshots()[-1]) == vm.data("a")


def test_a_clock_that_jumps_makes_one_backup_for_one_moment(home: Home) -> None:
    home.add("web")
    with home.serving():
        home.now = TWO + 5
        wait_until(lambda: backups(home) == 1)
        for moment in (TWO - HOUR, TWO, TWO + 1, TWO - 10, TWO + HOUR):
            home.now = moment
            time.sleep(0.15)
        assert backups(home) == 1
        home.now = TWO + 24 * HOUR
        wait_until(lambda: backups(home) == 2)
        home.now = TWO + 10 * 24 * HOUR
        wait_until(lambda: backups(home) == 3)
        time.sleep(0.2)
        assert backups(home) == 3, "ten days at once are one backup"


def test_what_was_missed_while_nobody_ran_is_made_up_for_once(home: Home) -> None:
    home.add("web")
    home.now = MIDNIGHT + 3 * 24 * HOUR + 12 * HOUR
    with home.serving():
        wait_until(lambda: backups(home) == 1)
        time.sleep(0.2)
        assert backups(home) == 1


def test_or_not_where_the_policy_says_so(home: Home) -> None:
    with_policy(home, replace(NIGHTLY, schedule=replace(NIGHTLY.schedule, missed=False)))
    home.add("web")
    home.now = MIDNIGHT + 3 * 24 * HOUR + 12 * HOUR
    with home.serving():
        wait_until(lambda: home.verbs())
        time.sleep(0.2)
        assert backups(home) == 0
        home.now = MIDNIGHT + 4 * 24 * HOUR + 2 * HOUR
        wait_until(lambda: backups(home) == 1)


def test_a_vm_that_is_off_is_backed_up_at_its_time(home: Home) -> None:
    vm = home.add("web")
    with home.serving():
        home.now = TWO
        wait_until(lambda: home.snapshots())
        vm.write("a", 5)
        vm.stop()
        wait_until(lambda: home.status()["state"] == "unreachable")
        for night in (1, 2):
            home.now = TWO + night * 24 * HOUR
            wait_until(lambda: len(home.snapshots()) == night + 1)  # noqa: B023
            made = home.snapshots()[-1]
            assert made.consistency == "offline" and made.created == home.now
            assert home.content(made) == vm.data("a")
        vm.start()
        vm.write("a", 6)
        home.now = TWO + 3 * 24 * HOUR
        wait_until(lambda: len(home.snapshots()) == 4)
        assert home.content(home.snapshots()[-1]) == vm.data("a")
    assert home.snapshots()[-1].consistency == "crash"


def test_a_vm_that_is_started_while_its_images_are_read(home: Home) -> None:
    """Its backup is made all the same, of the running VM."""
    vm = home.add("web")
    vm.stop()
    vm.meanwhile = lambda step: vm.start() if step == "offline take" else None
    with home.serving():
        home.now = TWO
        wait_until(lambda: home.snapshots())
    [made] = home.snapshots()
    assert made.consistency == "crash" and home.content(made) == vm.data("a")


def test_a_vm_whose_images_cannot_be_read_is_backed_up_once_it_is_back(
    home: Home, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "headstart.host")
    vm = home.add("web")
    home.sleeping = lambda _vm: None
    vm.stop()
    with home.serving():
        wait_until(lambda: home.status()["state"] == "unreachable")
        home.now = TWO
        wait_until(lambda: "event=failed verb=backup kind=Unreachable" in caplog.text)
        assert not home.snapshots()
        vm.start()
        wait_until(lambda: home.pass_time(60) and home.snapshots())
        assert home.content(home.snapshots()[-1]) == vm.data("a")


def test_a_paused_vm_is_left_alone_until_it_is_resumed(home: Home) -> None:
    vm = home.add("web")
    home.series.pause("web", home.now)
    steps: list[str] = []
    vm.meanwhile = steps.append
    with home.serving():
        wait_until(lambda: home.status()["state"] == "paused")
        home.now = TWO + 60
        time.sleep(0.3)
        assert not home.verbs() and not steps
    with home.serving():
        wait_until(lambda: home.status()["state"] == "paused")
        assert home.ask("resume", vm="web") == {"vm": "web", "paused": False}
        wait_until(lambda: backups(home) == 1)


def test_pausing_ends_a_round(home: Home) -> None:
    vm = home.add("web", blocks=4096, filled=4096)
    reading = threading.Event()

    def slowly(step: str) -> None:
        reading.set()
        time.sleep(0.002)

    with home.serving():
        vm.meanwhile = slowly
        wait_until(lambda: (doing := home.status()["doing"]) and doing["verb"] == "precopy" and doing["done"])
        home.ask("pause", vm="web")
        wait_until(lambda: home.status()["state"] == "paused", 5)
        vm.meanwhile = lambda step: None
    last = next(run for run in Runs(home.journal).newest("web") if run.verb == "precopy")
    assert last.report["halted"] == "paused by its owner"
    assert 0 < last.report["copied_bytes"] < 4096 * 65536, "what was copied counts"


def test_a_backup_on_order_ends_the_round_and_comes_back_with_its_report(home: Home) -> None:
    vm = home.add("web", blocks=4096, filled=4096)
    with home.serving():
        vm.meanwhile = lambda step: time.sleep(0.002)
        wait_until(lambda: (doing := home.status()["doing"]) and doing["verb"] == "precopy" and doing["done"])
        vm.meanwhile = lambda step: None
        told: list[Any] = []
        report = control.ask(home.folder / "state", {**PLAIN, "vm": "web"}, lambda *each: told.append(each))
        assert report["snapshot"] == home.snapshots()[-1].id
        assert home.content(home.snapshots()[-1]) == vm.data("a")
        # Not for a scheduled moment: that is still to come.
        home.now = TWO
        wait_until(lambda: backups(home) == 2)


def test_a_backup_that_ends_just_when_its_progress_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    class JustNow(Future[Any]):
        def result(self, timeout: float | None = None) -> Any:
            if timeout is not None:
                self.set_result(mock.Mock())
                raise TimeoutError
            return super().result()

    done = JustNow()
    monkeypatch.setattr(requests, "TELL_SECONDS", 0.01)
    asked = requests.Requests(mock.Mock(**{"ward.return_value.order.return_value": done}))
    report = asked.handle({"do": "backup", "vm": "web", "options": None}, lambda _: done.set_result(mock.Mock()))
    assert report is done.result().json()


def test_an_ordered_backup_that_fails_says_why(home: Home) -> None:
    vm = home.add("web")
    home.sleeping = lambda _vm: None
    vm.stop()
    with home.serving(), pytest.raises(errors.Unreachable):
        control.ask(home.folder / "state", {**PLAIN, "vm": "web"})


def test_what_can_be_ordered(home: Home) -> None:
    home.add("web")
    home.journal.add_vm(Vm("alone"))
    home.vms["alone"] = home.vms["web"]
    assigned = (Assignment("web", "nightly", "headstart.toml:1"),)
    home.config = Config(home.config.file, (), policies={"nightly": NIGHTLY}, assignments=assigned)
    with home.serving():
        wait_until(lambda: "web" in home.ask("status")["vms"])
        assert "alone" not in home.ask("status")["vms"]
        with pytest.raises(errors.NotFound):
            home.ask("pause", vm="nobody")
        with pytest.raises(errors.Usage, match="has no policy"):
            home.ask("pause", vm="alone")
        with pytest.raises(errors.Usage, match="another version"):
            home.ask("dance")


def test_cancelling_ends_what_is_under_way_and_nothing_else(home: Home) -> None:
    vm = home.add("web", blocks=4096, filled=4096)
    with home.serving():
        vm.meanwhile = lambda step: time.sleep(0.002)
        wait_until(lambda: (doing := home.status()["doing"]) and doing["verb"] == "precopy" and doing["done"])
        assert home.ask("cancel", vm="web")["cancelled"]
        wait_until(lambda: home.status()["doing"] is None)
        vm.meanwhile = lambda step: None
        home.now = TWO
        wait_until(lambda: backups(home) == 1)
        assert home.content(home.snapshots()[-1]) == vm.data("a")
        assert not home.ask("cancel", vm="web")["cancelled"]


def test_a_backup_that_is_cancelled_after_a_while_is_left_alone_for_a_while(home: Home) -> None:
    vm = home.add("web")
    with_policy(home, replace(NIGHTLY, head_start=HeadStart(transports=())))
    taken, cancelled = threading.Event(), threading.Event()

    def meanwhile(step: str) -> None:
        if step == "take" and not taken.is_set():
            home.now += 600
            taken.set()
            cancelled.wait(10)

    vm.meanwhile = meanwhile
    with home.serving(), mock.patch.object(retry, "AGAIN_SECONDS", 30.0):
        home.now = TWO
        assert taken.wait(10)
        assert home.ask("cancel", vm="web")["cancelled"]
        cancelled.set()
        wait_until(lambda: home.status()["doing"] is None and home.status()["state"] == "failed")
        time.sleep(0.2)
        assert backups(home) == 0
        home.now += 31
        wait_until(lambda: backups(home) == 1)


def test_a_policy_that_is_changed_in_the_middle_of_a_round_holds_at_once(home: Home) -> None:
    vm = home.add("web", blocks=4096, filled=4096)
    with home.serving() as served:
        vm.meanwhile = lambda step: time.sleep(0.002)
        wait_until(lambda: (doing := home.status()["doing"]) and doing["verb"] == "precopy" and doing["done"])
        with_policy(home, replace(NIGHTLY, head_start=HeadStart(transports=())))
        served.reload()
        wait_until(lambda: home.status()["doing"] is None, 5)
        vm.meanwhile = lambda step: None
        time.sleep(0.2)
        assert home.verbs().count("precopy") == 1, "no further round"
    assert Runs(home.journal).newest("web", 1)[0].report["halted"] == "the policy was changed"


def test_a_busy_guest_that_no_hypervisor_looks_at_halts_the_round(home: Home) -> None:
    """What it says of itself is all that there is to see."""
    told = {"time": 0.0, "ticks": 100, "cpus": 1, "cpu": {"user": 0, "idle": 0}}

    def busier(told: dict[str, Any]) -> dict[str, Any]:
        told["time"] += 0.2
        told["cpu"]["user"] += 20
        return told

    def watched(session: Session, request: int, asked: dict[str, Any]) -> Watching:
        return Watching(0.2, lambda _: session.send(request, messages.NOTE, messages.pack_json(busier(told))))

    home.add("web", blocks=1024, filled=1024)
    home.journal.remove_vm("web")
    home.journal.add_vm(Vm("web", None, str(home.folder / "agent"), added=home.now))
    with agents.listening(home.folder / "agent", {"figures": watched}), home.serving():
        wait_until(lambda: (runs := Runs(home.journal).newest("web")) and runs[-1].ended, 30)
    report = Runs(home.journal).newest("web")[-1].report
    assert report["halted"].startswith("guest.cpu"), report
    assert report["remaining_bytes"] > 0


def test_a_backup_that_was_moved_forward_ends_the_round(home: Home) -> None:
    vm = home.add("web", blocks=4096, filled=4096)
    with home.serving() as served:
        vm.meanwhile = lambda step: time.sleep(0.002)
        wait_until(lambda: (doing := home.status()["doing"]) and doing["verb"] == "precopy" and doing["done"])
        with_policy(home, replace(NIGHTLY, schedule=replace(NIGHTLY.schedule, calendar=("00:10",))))
        served.reload()
        wait_until(lambda: Runs(home.journal).newest("web", 1)[0].report.get("halted") == "the policy was changed", 5)
        vm.meanwhile = lambda step: None
        home.now = MIDNIGHT + 600
        wait_until(lambda: backups(home) == 1)


def test_a_round_that_failed_is_tried_again_before_the_next_one(home: Home) -> None:
    home.add("web")
    failures = iter([False, True])
    failed: list[str] = []

    def fail(name: str) -> None:
        if next(failures, False):
            failed.append(name)
            raise errors.Busy("Somebody mirrors it.")

    home.connecting = fail
    with home.serving():
        wait_until(lambda: home.verbs() == ["precopy"])
        home.now += 901
        wait_until(lambda: failed and home.status()["doing"] is None)
        home.now += 31
        wait_until(lambda: home.verbs() == ["precopy", "precopy"])


def test_a_configuration_with_mistakes_leaves_everything_as_it_is(home: Home, caplog: pytest.LogCaptureFixture) -> None:
    """Its own, and what the server said."""
    home.add("web")
    said = home.folder / "state" / document.FILE
    said.write_text('[default]\npolicy = "a"\n[policy.a.schedule]\ncalendar = "02:00"\ntimezone = "UTC"\n')

    def wrong() -> Any:
        raise errors.Usage("headstart.toml:3: no such key")

    with home.serving() as served:
        said.write_bytes(b"\xff")
        served.reload()
        wait_until(lambda: "UTF-8" in served.config.refused[1])
        assert home.status()["policy"] == "a"
        home.load = wrong
        served.reload()
        wait_until(lambda: "headstart.toml:3: no such key" in caplog.text)
        home.now = TWO
        wait_until(lambda: backups(home) == 1)


def test_vms_come_and_go(home: Home) -> None:
    home.add("web")
    with home.serving():
        wait_until(lambda: "precopy" in home.verbs())
        home.add("db")
        wait_until(lambda: "precopy" in home.verbs("db"))
        home.journal.remove_vm("web")
        wait_until(lambda: list(home.ask("status")["vms"]) == ["db"])


def test_a_run_that_hangs_is_noticed_and_at_last_left_behind(home: Home, caplog: pytest.LogCaptureFixture) -> None:
    home.add("web")
    home.add("db")
    hanging, release = threading.Event(), threading.Event()

    def hang(name: str) -> None:
        if name == "web":
            hanging.set()
            release.wait(30)

    home.connecting = hang
    with home.serving(hang_seconds=0.3, grace_seconds=0.3):
        assert hanging.wait(10)
        wait_until(lambda: home.status()["state"] == "hangs")
        wait_until(home.anew.is_set)
        release.set()
    assert "event=hangs verb=precopy" in caplog.text


@contextlib.contextmanager
def endless_trims() -> Iterator[list[float]]:
    """Of a guest that never gets done; the seconds that each may take."""
    begun: list[float] = []

    def trims(context: Context, name: str, seconds: float) -> Any:
        begun.append(seconds)
        while True:
            context.beat()
            time.sleep(0.01)

    with mock.patch.object(trim, "trim", trims):
        yield begun


def test_a_trim_without_an_end_keeps_nothing_from_its_time(home: Home, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    vm = home.add("web")
    with_policy(home, replace(NIGHTLY, trim=HOUR))
    with endless_trims() as begun, home.serving(hang_seconds=1.0, grace_seconds=0.1):
        wait_until(lambda: (doing := home.status()["doing"]) and doing["verb"] == "trim")
        assert home.status()["reason"] == "the guest gives its free blocks back"
        time.sleep(1.3)
        assert not home.anew.is_set() and "hangs" not in caplog.text
        home.now = TWO
        wait_until(lambda: backups(home) == 1)
        assert home.content(home.snapshots()[-1]) == vm.data("a")
    assert begun[0] == trimming.SECONDS < 2 * HOUR
    assert 'event=trim reason="the backup is due"' in caplog.text


@pytest.mark.parametrize("do", ["cancel", "pause", "backup"])
def test_a_trim_is_ended_by_who_wants_something_else(home: Home, do: str) -> None:
    home.add("web")
    with_policy(home, replace(NIGHTLY, trim=HOUR))
    with endless_trims() as begun, home.serving():
        wait_until(lambda: (doing := home.status()["doing"]) and doing["verb"] == "trim")
        home.ask(do, vm="web", **({"options": PLAIN["options"]} if do == "backup" else {}))
        wait_until(lambda: (doing := home.status()["doing"]) is None or doing["verb"] != "trim")
        if do == "cancel":
            # Its owner wants to have peace for a while.
            time.sleep(0.2)
            assert not home.verbs()
        assert len(begun) == 1


def test_a_guest_is_not_asked_to_trim_just_before_a_backup(home: Home) -> None:
    home.add("web")
    with_policy(home, replace(NIGHTLY, trim=HOUR))
    home.now = TWO - 50
    with endless_trims() as begun, home.serving():
        wait_until(lambda: "precopy" in home.verbs())
        assert not begun


def test_a_look_that_hangs_is_noticed_as_well(home: Home, caplog: pytest.LogCaptureFixture) -> None:
    home.add("web")
    release = threading.Event()
    look = home.looking
    home.looking = lambda vm: (release.wait(30), look(vm))[1]
    with home.serving(hang_seconds=0.3, grace_seconds=0.3):
        wait_until(home.anew.is_set)
        release.set()
    assert "event=hangs verb=look" in caplog.text


def test_a_bug_is_told_and_the_vm_is_still_protected(home: Home, caplog: pytest.LogCaptureFixture) -> None:
    vm = home.add("web")
    failures = iter([True, True])

    def fail(name: str) -> None:
        if next(failures, False):
            raise ZeroDivisionError("a bug")

    home.connecting = fail
    with home.serving():
        home.now = TWO
        wait_until(lambda: home.pass_time(30) and backups(home) == 1)
    assert "event=bug" in caplog.text and "ZeroDivisionError" in caplog.text
    assert home.content(home.snapshots()[-1]) == vm.data("a")


def test_a_place_for_backups_that_is_not_there_yet(home: Home) -> None:
    home.add("web")
    keep, home.store = home.store, type(home.store)()
    with home.serving():
        wait_until(
            lambda: "NoRepository" in str(Runs(home.journal).newest("web")) or home.status()["state"] == "failed"
        )
        home.store = keep
        home.now = TWO
        wait_until(lambda: home.pass_time(30) and home.snapshots())
        wait_until(lambda: backups(home) == 1)


def test_a_backup_that_cannot_even_begin_is_owed_and_told(home: Home, caplog: pytest.LogCaptureFixture) -> None:
    """Rounds meet the store that is away first, so that no run of a backup begins."""
    home.add("web")

    def failed() -> list[str]:
        return [run.report["error"] for run in Runs(home.journal).newest("web", 100) if run.verb == "backup"]

    def tries() -> int:
        return caplog.text.count("event=failed verb=backup")

    keep, home.store = home.store, type(home.store)()
    with home.serving():
        home.now = TWO
        wait_until(lambda: failed())
        wait_until(lambda: home.pass_time(60) and tries() >= 4)
        assert home.status()["due"] == TWO
        assert len(failed()) == 1 and "There is no repository" in failed()[0]
        # The next night's is another one; and the first is owed still.
        home.now = TWO + 24 * HOUR
        wait_until(lambda: len(failed()) == 2)
        wait_until(lambda: home.status()["due"] == TWO)
        home.store = keep
        wait_until(lambda: home.pass_time(30) and home.snapshots())
        wait_until(lambda: home.status()["due"] == TWO + 48 * HOUR)


def test_a_backup_that_was_missed_is_owed_since_its_time(home: Home) -> None:
    """Also if the daemon is started again while it cannot be made."""
    home.add("web")
    keep, home.store = home.store, type(home.store)()
    home.now = TWO + 3 * 24 * HOUR + 12 * HOUR
    with home.serving():
        wait_until(lambda: (told := home.status())["missed"] and told["due"] == TWO)
        home.store = keep
        wait_until(lambda: home.pass_time(30) and backups(home) == 1)
        wait_until(lambda: home.status()["due"] == TWO + 4 * 24 * HOUR)


def test_a_backup_that_waits_for_another_process_is_owed_and_no_failure(home: Home) -> None:
    home.add("web")
    with mock.patch.multiple(journals, LOCK_SECONDS=0.05), home.journal.lock("web", "restore"), home.serving():
        home.now = TWO
        wait_until(lambda: home.pass_time(600) and home.now > TWO + HOUR)
        assert home.status()["due"] == TWO
        assert not [run for run in Runs(home.journal).newest("web") if run.verb == "backup"]


def test_two_daemons_do_not_serve_one_state(home: Home) -> None:
    with home.serving() as served, pytest.raises(errors.Locked, match="serves"):
        Daemon(home.house, home.folder / "state", home.config, served._load, home.anew.set, Notifier({})).serve()


def test_backups_take_turns(home: Home) -> None:
    """One at a time, however many are due at once."""
    at_once: list[int] = []
    running = 0
    lock = threading.Lock()
    for name in ("a1", "b2", "c3"):
        vm = home.add(name)

        def meanwhile(step: str) -> None:
            nonlocal running
            if step == "take":
                with lock:
                    running += 1
                    at_once.append(running)
                time.sleep(0.1)
                with lock:
                    running -= 1

        vm.meanwhile = meanwhile
    with_policy(home, replace(NIGHTLY, head_start=HeadStart(transports=())))
    with home.serving():
        home.now = TWO
        wait_until(lambda: len(home.snapshots()) == 3)
    assert at_once == [1, 1, 1]


def test_a_turn_is_as_long_for_who_waited_for_it(home: Home) -> None:
    """Three VMs, one slot, and more to copy than fits into a turn: nobody is sent away at once."""
    home.config = replace(home.config, host=Host(rounds=1))
    for name in ("a1", "b2", "c3"):
        home.add(name, blocks=4096, filled=4096).meanwhile = lambda step: time.sleep(0.002)
    with mock.patch.object(steering, "TURN_SECONDS", 0.6), home.serving():
        for _ in range(60):
            home.now += 6
            time.sleep(0.1)
    for name in ("a1", "b2", "c3"):
        turns = [
            run.report
            for run in Runs(home.journal).newest(name, 100)
            if run.report.get("halted") == "another VM's turn"
        ]
        assert turns and all(turn["copied_bytes"] for turn in turns), name


def test_what_is_seen_is_kept_for_the_picture_and_the_plan(home: Home) -> None:
    home.add("web").write("a", 3, 0)
    for seconds, residue in ((2.2, 60 << 20), (9.0, 1 << 20)):
        told = {"disks": [{"residue_bytes": residue}], "audit": {"sampled_bytes": 4 << 20}, "window_seconds": seconds}
        Runs(home.journal).end(Runs(home.journal).begin("web", "backup"), told)
    with (
        mock.patch.object(Planner, "copied", autospec=True, side_effect=Planner.copied) as copied,
        home.serving() as served,
    ):
        for _ in range(4):
            home.now += 60
            time.sleep(0.1)
        assert served.wards["web"].course._read_rate == pytest.approx(32 << 20), "of a window that tells something"
    minutes = home.series.minutes("web", 0, 1e12)
    assert len(minutes) >= 4 and sum(each.copied for each in minutes) == 8 * 65536
    _, _, counts, _, _, read = copied.call_args_list[0].args
    assert (counts, read) == ({"a": 8}, 7), "zeroes tell nothing of the rate"


def test_a_backup_that_is_published_later_counts_for_the_rounds_after_it(home: Home) -> None:
    home.add("web")
    failures = iter([True])
    run = publish.run

    def fail(context: Context, name: str) -> publish.Published:
        if next(failures, False):
            raise errors.StoreFailed("It is away.")
        return run(context, name)

    with mock.patch.object(publish, "run", fail), home.serving() as served:
        wait_until(lambda: "precopy" in home.verbs())
        home.now = TWO
        wait_until(lambda: home.journal.completion("web") and home.status()["state"] == "failed")
        home.now = TWO + 60
        wait_until(lambda: home.snapshots())
        planner = served.wards["web"].course.planner
        wait_until(lambda: planner.since == TWO + 60)
        wait_until(lambda: home.verbs()[-1] == "precopy")
        told = {each.name: each.samples for each in metrics.Collector(served).collect()}
        assert told["headstart_host_vm_failing"][0].value == 0, "what failed is published by now"
    assert backups(home) == 0 and home.verbs().count("publish") == 1
    [published] = [run for run in Runs(home.journal).newest("web") if run.verb == "publish"]
    assert published.report["snapshot"] == home.snapshots()[-1].id


def test_disks_that_the_policy_leaves_out(home: Home) -> None:
    home.add("web")
    with_policy(home, replace(NIGHTLY, volumes=("*", "!a")))
    with home.serving():
        wait_until(lambda: home.excluded == {"a"})


def test_a_wrong_password_ends_it_at_once(home: Home) -> None:
    home.vault._password = lambda: b"wrong"
    with pytest.raises(errors.WrongPassword):
        Daemon(home.house, home.folder / "state", home.config, home.load, home.anew.set, Notifier({})).serve()


def test_a_backup_for_which_there_is_no_room_is_made_smaller_and_tried_again(
    home: Home, caplog: pytest.LogCaptureFixture
) -> None:
    vm = home.add("web", blocks=64, filled=64)
    with_policy(home, replace(NIGHTLY, head_start=HeadStart(transports=())))
    tries: list[bool] = []
    complete_run = Completing.run

    def run(completing: Completing) -> None:
        tries.append(completing._options.settle)
        if len(tries) == 1:
            raise errors.NoSpace("The scratch directory is too small.")
        complete_run(completing)

    with mock.patch.object(Completing, "run", run), home.serving():
        home.now = TWO
        wait_until(lambda: tries and home.status()["state"] == "failed")
        home.now = TWO + 60
        wait_until(lambda: home.snapshots())
    assert tries == [False, True] and home.content(home.snapshots()[-1]) == vm.data("a")


def test_a_bug_is_tried_again_as_late_as_any_failure(home: Home) -> None:
    """The guest is frozen at each try."""
    home.add("web")
    tries: list[None] = []

    def fail(completing: Completing) -> None:
        tries.append(None)
        raise OSError("a bug")

    with mock.patch.object(Completing, "run", fail), home.serving():
        home.now = TWO
        wait_until(lambda: tries)
        time.sleep(0.5)
        assert len(tries) == 1
        wait_until(lambda: home.pass_time(1) and len(tries) > 1)


def test_failing_for_years() -> None:
    failing = Retry()
    for _ in range(5000):
        failing.failed(0.0)
    assert failing.at == AGAIN_AT_MOST


def test_a_vm_that_two_patterns_name_keeps_its_policy(home: Home, caplog: pytest.LogCaptureFixture) -> None:
    home.add("web")
    with home.serving() as served:
        wait_until(lambda: "precopy" in home.verbs())
        twice = tuple(Assignment(pattern, "nightly", "headstart.toml:1") for pattern in ("w*", "*b"))
        home.config = replace(home.config, assignments=twice)
        served.reload()
        wait_until(lambda: "Several patterns" in caplog.text)
        home.now = TWO
        wait_until(lambda: backups(home) == 1)
    assert caplog.text.count("Several patterns") == 1


def test_a_vm_that_is_removed_while_it_hangs_keeps_nobody_else_waiting(home: Home) -> None:
    home.add("web")
    with_policy(home, replace(NIGHTLY, head_start=HeadStart(transports=())))
    hanging, release = threading.Event(), threading.Event()

    def hang(name: str) -> None:
        hanging.set()
        release.wait(30)

    home.connecting = hang
    with home.serving(hang_seconds=0.3, grace_seconds=0.3):
        home.now = TWO
        assert hanging.wait(10)
        home.journal.remove_vm("web")
        wait_until(home.anew.is_set)
        release.set()


@pytest.mark.parametrize("how", ["cancel", "stop"])
def test_what_a_round_has_copied_counts_also_if_it_is_ended(home: Home, how: str) -> None:
    vm = home.add("web", blocks=4096, filled=4096)
    with home.serving() as served:
        vm.meanwhile = lambda step: time.sleep(0.002)
        wait_until(
            lambda: (doing := home.status()["doing"]) and doing["verb"] == "precopy" and doing["done"] > 64 << 20
        )
        if how == "stop":
            served.stop()
        else:
            assert home.ask("cancel", vm="web")["cancelled"]
            wait_until(lambda: home.status()["doing"] is None)
            time.sleep(0.2)
            assert home.verbs().count("precopy") == 1, "its owner wants to have peace"
        vm.meanwhile = lambda step: None
    assert home.journal.copied_count("web", "a") * 65536 > 48 << 20


def test_no_backup_begins_once_the_daemon_is_being_stopped(home: Home) -> None:
    taking = threading.Event()

    def meanwhile(step: str) -> None:
        if step == "take":
            taking.set()
            time.sleep(0.3)

    for name in ("a1", "b2", "c3"):
        home.add(name).meanwhile = meanwhile
    with_policy(home, replace(NIGHTLY, head_start=HeadStart(transports=())))
    with home.serving() as served:
        home.now = TWO
        assert taking.wait(10)
        served.stop()
    assert len(home.snapshots()) == 1, "the one that was under way"


def test_while_a_backup_fails_again_and_again_rounds_go_on(home: Home) -> None:
    vm = home.add("web")
    with_policy(home, replace(NIGHTLY, head_start=replace(NIGHTLY.head_start, interval=60.0)))
    with mock.patch.object(Completing, "run", side_effect=errors.HookFailed("no")), home.serving():
        home.now = TWO
        wait_until(
            lambda: any("error" in run.report for run in Runs(home.journal).newest("web") if run.verb == "backup")
        )
        before = home.verbs().count("precopy")
        vm.write("a", 5)
        with mock.patch.object(retry, "AGAIN_SECONDS", 900.0):
            wait_until(lambda: home.pass_time(20) and home.verbs().count("precopy") > before)
