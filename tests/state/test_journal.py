"""The journal: what it keeps, what it refuses, and that it never does half of a thing."""

from __future__ import annotations

import dataclasses
import json
import sqlite3
import subprocess
import sys
import threading
import tracemalloc
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from unittest import mock

import pytest

from headstart import errors
from headstart.blocks import Blocks
from headstart.extents import Extent
from headstart.hypervisor.inventory import ImageFile
from headstart.state import schema
from headstart.state.encoding import completion_from_text, completion_to_text
from headstart.state.journal import Journal
from headstart.state.runs import Runs
from headstart.state.values import (
    AGENT,
    FIRST_APPLIANCE,
    Distrust,
    Domain,
    Draft,
    Facts,
    Point,
    Tracked,
    Vm,
)
from headstart.tracking.choice import Wish
from headstart.transfer.pipeline import Stored
from headstart.units import MIB

WEB = Vm(
    "web",
    Path("/run/web/monitor"),
    "/run/web/agent",
    Path("/run/web/qga"),
    ("scratch", "größe"),
    "<domain>\n</domain>",
    1234.5,
)
LAYERS = (ImageFile("/images/web.qcow2", "qcow2", 7), ImageFile("/images/base", "raw", 2**40, 2**41, 2**62))
SYSTEM = Tracked(
    "system",
    "beef",
    Facts(2**42 + 512, "qcow2", LAYERS),
    "base1",
    "snapshot1",
    "round1",
    Blocks([0, 5, 2**31, 2**32 - 1]),
    Blocks(range(3, 70000)),
    "it's compared",
)
DATA = Tracked("data", "cafe", Facts(512, "raw", ()), "base1", None, "round1")
#: As versions leave it that kept it as plain JSON; the first ones knew nothing of appliances, offline or tracking.
SPOOLED = (
    '{"created": 1700000002.0, "base_mark": "e3f3", "consistency": "crash", "off": false, "freeze_seconds": 0.0, '
    '"pause_seconds": 0.0, "window_seconds": 0.5, "audit": {"sampled_bytes": 1, "mismatched_bytes": 2, '
    '"agent_mismatched_bytes": 3, "appliance_mismatched_bytes": 4}, "disks": {"a": {"size": 65536, "format": "qcow2", '
    '"serial": "a", "interface": "", "changed_bytes": 49152, "precopied_bytes": 0, "residue_bytes": 49152, '
    '"compared": false, "reason": "gr\\u00f6\\u00dfer", "tracking": "bitmap", "tracking_reason": "why", '
    '"excluded_bytes": 16384, "excluded": [{"volume": "a/1", "content": "swap", "label": "", "mounted": ["/x"], '
    '"pattern": "!swap", "extents": [{"start": 16384, "length": 16384}]}]}}, "definition": "memory", "files": ["x"]}'
)
COMPLETION = completion_from_text("draft1", SPOOLED)
DRAFT = Draft("draft1", "repository1", 3, 2, ("round2", "round3"), 99.25)


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    with Journal.open(tmp_path / "state") as opened:
        opened.add_vm(WEB)
        yield opened


@pytest.fixture
def drafted(journal: Journal) -> Journal:
    """A round has begun, and two blocks of it are copied."""
    journal.begin_round("web", DRAFT, [SYSTEM, DATA], [])
    journal.copied("web", "round1", [Stored("system", 5, b"five"), Stored("data", 0, None)], ["pack1"])
    return journal


def reopened(tmp_path: Path) -> Journal:
    return Journal.open(tmp_path / "state")


def dump(tmp_path: Path) -> list[str]:
    """Everything in the database, as another process sees it."""
    with sqlite3.connect(tmp_path / "state" / "state.sqlite3") as database:
        return list(database.iterdump())


# VMs


def test_vms_are_added_listed_and_removed(journal: Journal) -> None:
    plain = Vm("app", Path("/run/app"), added=5.0)
    journal.add_vm(plain)
    assert journal.vms() == [plain, WEB]
    assert journal.vm("app") == plain
    journal.remove_vm("app")
    assert journal.vms() == [WEB]


def test_the_time_of_adding_is_noted(journal: Journal) -> None:
    journal.add_vm(Vm("app", Path("/run/app")))
    assert journal.vm("app").added > 1.6e9


def test_how_changes_are_learned_is_kept(journal: Journal) -> None:
    other = dataclasses.replace(WEB, name="other", track=Wish.OVERLAY)
    journal.add_vm(other)
    assert journal.vm("other").track is Wish.OVERLAY
    journal.track("web", Wish.COMPARE)
    assert {vm.name: vm.track for vm in journal.vms()} == {"other": Wish.OVERLAY, "web": Wish.COMPARE}
    with pytest.raises(errors.NotFound):
        journal.track("nobody", Wish.AUTO)
    journal.remove_vm("other")
    journal.add_vm(dataclasses.replace(other, track=Wish.AUTO))
    assert journal.vm("other").track is Wish.AUTO


def test_an_unknown_vm_is_named(journal: Journal) -> None:
    for act in (journal.vm, journal.remove_vm):
        with pytest.raises(errors.NotFound, match="no VM 'app'"):
            act("app")


def test_a_vm_is_added_once(journal: Journal) -> None:
    with pytest.raises(errors.Usage, match="VM 'web' already"):
        journal.add_vm(Vm("web", Path("/another")))
    assert journal.vm("web") == WEB


def test_a_vm_goes_on_from_a_snapshot(drafted: Journal) -> None:
    """At another place, with its settings; what was known of its disks and its draft is forgotten."""
    drafted.keep("web", {"inventory": "old"})
    moved = dataclasses.replace(DATA, base="base2", snapshot="snapshot2", round="")
    drafted.adopt(Vm("web", Path("/run/new"), "/run/agent"), [moved])
    assert drafted.vm("web") == dataclasses.replace(WEB, monitor=Path("/run/new"), agent="/run/agent", qga=None)
    assert drafted.tracked("web") == {"data": moved}
    assert drafted.draft("web") is None and not drafted.kept("web")
    assert not drafted.copied_blocks("web", "system")


def test_a_new_vm_goes_on_from_a_snapshot(journal: Journal) -> None:
    domain = Vm("new", domain=Domain("qemu:///system", "new"))
    journal.adopt(domain, [DATA])
    assert dataclasses.replace(journal.vm("new"), added=0.0) == domain
    assert journal.tracked("new") == {"data": DATA}
    assert journal.vm("web") == WEB


def test_a_removed_vm_leaves_nothing(drafted: Journal) -> None:
    drafted.spooled("web", COMPLETION, [], {})
    drafted.remove_vm("web")
    drafted.add_vm(WEB)
    assert drafted.tracked("web") == {}
    assert drafted.draft("web") is None
    assert drafted.completion("web") is None
    assert drafted.packs("web") == []
    assert not drafted.copied_blocks("web", "system")


# what is kept


def test_reopening_keeps_everything(drafted: Journal, tmp_path: Path) -> None:
    drafted.spooled("web", COMPLETION, [], {})
    number = Runs(drafted).begin("web", "backup")
    Runs(drafted).end(number, {"read": 2**40})
    drafted.close()
    with reopened(tmp_path) as again:
        assert again.installation == drafted.installation
        assert again.vms() == [WEB]
        assert again.tracked("web") == {"system": SYSTEM, "data": DATA}
        assert again.draft("web") == DRAFT
        assert list(again.copied_chunks("web", "system")) == [(5, b"five")]
        assert list(again.copied_chunks("web", "data")) == [(0, None)]
        assert again.packs("web") == ["pack1"]
        assert again.completion("web") == COMPLETION
        (run,) = Runs(again).newest("web")
        assert (run.number, run.vm, run.verb, run.report) == (number, "web", "backup", {"read": 2**40})
        assert run.ended is not None
        assert run.begun <= run.ended


def test_every_installation_has_another_name(tmp_path: Path) -> None:
    names = set()
    for number in range(5):
        with Journal.open(tmp_path / str(number)) as opened:
            names.add(opened.installation)
    assert len(names) == 5


# what is refused


def test_a_newer_state_is_refused(journal: Journal, tmp_path: Path) -> None:
    journal.close()
    with sqlite3.connect(tmp_path / "state" / "state.sqlite3") as database:
        database.execute(f"PRAGMA user_version = {schema.VERSION + 1}")
    with pytest.raises(errors.Unsupported, match=f"newer Headstart.*version {schema.VERSION + 1}"):
        reopened(tmp_path)


def replace_by_text(path: Path) -> None:
    path.write_bytes(b"This is no database. " * 1000)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:5000])


def overwrite_header(path: Path) -> None:
    path.write_bytes(b"\xff" * 100 + path.read_bytes()[100:])


@pytest.mark.parametrize("damage", [replace_by_text, cut, overwrite_header])
def test_a_damaged_database_is_refused(journal: Journal, tmp_path: Path, damage: Callable[[Path], None]) -> None:
    journal.close()
    damage(tmp_path / "state" / "state.sqlite3")
    with pytest.raises(errors.Usage, match=r"cannot be used.* move the file away"):
        reopened(tmp_path)


@pytest.mark.parametrize(
    ("code", "kind"), [(sqlite3.SQLITE_FULL, errors.NoSpace), (sqlite3.SQLITE_BUSY_RECOVERY, errors.Locked)]
)
def test_a_database_that_is_whole_is_not_moved_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, kind: type[errors.HeadstartError]
) -> None:
    """Opening needs room, too."""
    error = sqlite3.OperationalError("no")
    error.sqlite_errorcode = code
    monkeypatch.setattr(sqlite3, "connect", mock.Mock(side_effect=error))
    with pytest.raises(kind, match=r"^The state in ") as raised:
        reopened(tmp_path)
    assert "away" not in str(raised.value)


def test_a_state_that_is_no_directory_is_refused(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("")
    with pytest.raises(errors.Usage, match="cannot be used"):
        reopened(tmp_path)


def test_the_state_is_for_its_owner_only(journal: Journal, tmp_path: Path) -> None:
    """Others may pass through to the scratch files, and neither see names nor read what is there."""
    journal.add_vm(Vm("state"))
    assert (tmp_path / "state").stat().st_mode & 0o077 == 0o011
    assert [path.name for path in (tmp_path / "state").iterdir() if path.stat().st_mode & 0o077] == []


#: What was not there before a version.
UNDO = {
    2: ("DROP TABLE keepsakes", "ALTER TABLE vms DROP COLUMN uri", "ALTER TABLE vms DROP COLUMN domain"),
    3: ("DROP TABLE figures", "DROP TABLE heats", "DROP TABLE pauses", "DROP TABLE points", "DROP INDEX runs_by_vm"),
    4: ("ALTER TABLE copied DROP COLUMN delivered", "DROP TABLE distrusts"),
    5: ("DROP TABLE verified", "DROP TABLE readings"),
    6: (
        "ALTER TABLE vms DROP COLUMN volumes",
        "ALTER TABLE vms DROP COLUMN track",
        "ALTER TABLE disks DROP COLUMN excluded",
    ),
    7: ("DROP TABLE publications",),
}


def columns(path: Path) -> set[tuple[str, str]]:
    with sqlite3.connect(path) as database:
        tables = [row[0] for row in database.execute("SELECT name FROM sqlite_master")]
        return {(table, row[1]) for table in tables for row in database.execute(f"PRAGMA table_info({table})")}


@pytest.mark.parametrize("version", range(1, schema.VERSION))
def test_a_state_of_an_older_version_is_upgraded(journal: Journal, tmp_path: Path, version: int) -> None:
    journal.add_vm(Vm("old", Path("/run/qmp")))
    journal.close()
    path = tmp_path / "state" / "state.sqlite3"
    new = columns(path)
    with sqlite3.connect(path) as database:
        for later in range(schema.VERSION, version, -1):
            for statement in UNDO[later]:
                database.execute(statement)
        database.execute(f"PRAGMA user_version = {version}")
    with reopened(tmp_path) as again:
        assert columns(path) == new
        assert again.vm("old").monitor == Path("/run/qmp") and again.vm("old").domain is None
        again.add_vm(Vm("new", domain=Domain("qemu:///system", "app")))
        again.keep("new", {"checkpoint": "<xml/>"})
        assert again.vm("new").domain == Domain("qemu:///system", "app")
        assert again.kept("new") == {"checkpoint": "<xml/>"}


HOLDER = """
import sys
from pathlib import Path
from headstart.state.encoding import completion_from_text, completion_to_text
from headstart.state.journal import Journal
with Journal.open(Path(sys.argv[1])) as journal, journal.lock("web"):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_one_process_at_a_time_works_on_a_vm(journal: Journal, tmp_path: Path) -> None:
    command = [sys.executable, "-c", HOLDER, str(tmp_path / "state")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(errors.Locked, match=f"process {holder.pid}\\)"), journal.lock("web"):
            pass
        with journal.lock("app"):
            pass
        # Also a holder that is killed lets go.
        holder.kill()
    with journal.lock("web"):
        pass
    with journal.lock("web"):
        pass


# rounds


def test_a_stale_round_is_refused(drafted: Journal, tmp_path: Path) -> None:
    before = dump(tmp_path)
    with pytest.raises(errors.Locked, match="is over"):
        drafted.copied("web", "round0", [Stored("system", 9, b"nine")], ["pack9"])
    assert dump(tmp_path) == before


def test_what_is_copied_again_counts_as_last_copied(drafted: Journal) -> None:
    drafted.copied("web", "round1", [Stored("system", 5, None)], ["pack1", "pack2"])
    assert list(drafted.copied_chunks("web", "system")) == [(5, None)]
    assert sorted(drafted.packs("web")) == ["pack1", "pack2"]


def test_a_round_takes_what_is_stale_out_of_the_draft(drafted: Journal) -> None:
    drafted.copied("web", "round1", [Stored("system", block, b"x") for block in range(10)])
    later = dataclasses.replace(SYSTEM, round="round2")
    drafted.end_round("web", dataclasses.replace(DRAFT, rounds=4), [later], {"system": Blocks([2, 5, 77])})
    assert drafted.copied_blocks("web", "system") == Blocks([0, 1, 3, 4, 6, 7, 8, 9])
    assert drafted.copied_blocks("web", "data") == Blocks([0])
    assert drafted.tracked("web")["system"].round == "round2"


def test_a_disk_that_is_not_believed_loses_its_part_of_the_draft(drafted: Journal) -> None:
    drafted.begin_round("web", DRAFT, [SYSTEM, DATA], ["system"])
    assert not drafted.copied_blocks("web", "system")
    assert drafted.copied_blocks("web", "data") == Blocks([0])


def test_a_disk_that_is_gone_is_forgotten(drafted: Journal) -> None:
    drafted.begin_round("web", DRAFT, [SYSTEM], [])
    assert set(drafted.tracked("web")) == {"system"}
    assert not drafted.copied_blocks("web", "data")
    assert drafted.copied_blocks("web", "system") == Blocks([5])


def test_another_draft_replaces_the_present_one_whole(drafted: Journal) -> None:
    other = Draft("draft2", "repository1")
    drafted.begin_round("web", other, [SYSTEM, DATA], [])
    assert drafted.draft("web") == other
    assert not drafted.copied_blocks("web", "system")
    assert drafted.packs("web") == []


def test_the_draft_is_fetched_in_portions(drafted: Journal) -> None:
    """Others may write in between: what they add behind is seen, nothing comes twice."""
    count = 25_000
    stored = [Stored("data", block, block.to_bytes(4, "big")) for block in range(count)]
    drafted.copied("web", "round1", reversed(stored))
    chunks = drafted.copied_chunks("web", "data")
    found = [next(chunks)]
    drafted.copied("web", "round1", [Stored("data", count, b"new")])
    drafted.forget_copied("web", "data", [count - 1])
    found += chunks
    assert [block for block, _ in found] == [*range(count - 1), count]
    assert found[12_345] == (12_345, (12_345).to_bytes(4, "big"))


def test_chunks_of_some_blocks(drafted: Journal) -> None:
    drafted.copied("web", "round1", [Stored("system", 8, b"eight")])
    assert list(drafted.chunks_of("web", "system", [0, 5, 8])) == [(5, b"five"), (8, b"eight")]


def test_forgetting_blocks_of_the_draft(drafted: Journal) -> None:
    drafted.copied("web", "round1", [Stored("system", block, b"x") for block in range(4)])
    drafted.forget_copied("web", "system", [1, 2])
    assert drafted.copied_blocks("web", "system") == Blocks([0, 3, 5])
    drafted.forget_copied("web", "system")
    assert not drafted.copied_blocks("web", "system")
    assert drafted.copied_blocks("web", "data") == Blocks([0])


def test_what_the_repository_does_not_list_yet(drafted: Journal) -> None:
    assert list(drafted.unrecorded("web", 2)) == [{"system": [(5, b"five")]}]
    drafted.listed("web", dataclasses.replace(DRAFT, records=3))
    assert list(drafted.unrecorded("web", 3)) == []
    drafted.copied("web", "round1", [Stored("data", 7, b"seven")])
    assert list(drafted.unrecorded("web", 3)) == [{"data": [(7, b"seven")]}]


# completions


def test_a_completion_waits_until_it_is_abandoned(drafted: Journal) -> None:
    after = dataclasses.replace(SYSTEM, base="base2")
    drafted.spooled("web", COMPLETION, [after], {"system": Blocks([5])})
    assert drafted.completion("web") == COMPLETION
    assert drafted.tracked("web")["system"] == after
    assert not drafted.copied_blocks("web", "system")
    drafted.abandon_completion("web")
    assert drafted.completion("web") is None
    assert drafted.draft("web") == DRAFT
    assert drafted.copied_blocks("web", "data") == Blocks([0])


def test_a_completion_of_any_version_is_read(drafted: Journal) -> None:
    assert completion_to_text(COMPLETION) == SPOOLED
    assert COMPLETION.disks["a"].excluded[0].extents == (Extent(16384, 16384),)
    told = json.loads(SPOOLED)
    told["disks"]["a"]["added"] = told["added"] = "by a newer one"
    del told["off"], told["audit"]["appliance_mismatched_bytes"]
    for key in ("tracking", "tracking_reason", "excluded_bytes", "excluded"):
        del told["disks"]["a"][key]
    old = completion_from_text("draft1", json.dumps(told))
    assert not old.off and old.audit.appliance_mismatched_bytes == 0
    assert (old.disks["a"].tracking, old.disks["a"].excluded_bytes, old.disks["a"].excluded) == ("", 0, ())


def test_publishing_uses_the_draft_up(drafted: Journal) -> None:
    drafted.spooled("web", COMPLETION, [], {})
    after = dataclasses.replace(SYSTEM, base="base2", snapshot="draft1", entire=Blocks(), owed=Blocks(), reason="")
    drafted.published("web", [after], Point("s1", 5.0))
    assert drafted.point("web") == Point("s1", 5.0)
    assert drafted.draft("web") is None
    assert drafted.completion("web") is None
    assert drafted.packs("web") == []
    assert not drafted.copied_blocks("web", "system")
    assert drafted.tracked("web") == {"system": after, "data": DATA}


def test_forgetting_the_tracking_keeps_the_vm_and_its_runs(drafted: Journal) -> None:
    Runs(drafted).begin("web", "backup")
    drafted.forget_tracking("web")
    assert drafted.tracked("web") == {}
    assert drafted.draft("web") is None
    assert drafted.vms() == [WEB]
    assert len(Runs(drafted).newest("web")) == 1


def test_vms_do_not_touch_each_other(drafted: Journal) -> None:
    drafted.add_vm(Vm("app", Path("/run/app")))
    drafted.begin_round("app", Draft("draft2", "repository1"), [SYSTEM], [])
    drafted.copied("app", "round1", [Stored("system", 6, b"six")])
    drafted.forget_tracking("app")
    assert drafted.tracked("web") == {"system": SYSTEM, "data": DATA}
    assert drafted.copied_blocks("web", "system") == Blocks([5])


# all or nothing


class Gone(Exception):
    """Something that happens in the middle of a change."""


def failing(*first: Stored) -> Iterator[Stored]:
    yield from first
    raise Gone


def test_who_read_a_block_of_the_draft_is_known(drafted: Journal) -> None:
    assert not drafted.delivered_blocks("web", "system")
    stored = [Stored(disk, block, b"x") for disk in ("system", "data") for block in (5, 6)]
    drafted.copied("web", "round1", stored, delivered={"system"})
    assert drafted.delivered_blocks("web", "system") == {AGENT: Blocks([5, 6])}
    assert not drafted.delivered_blocks("web", "data")
    drafted.copied("web", "round1", [Stored("system", 6, b"x")])
    assert drafted.delivered_blocks("web", "system") == {AGENT: Blocks([5])}, "whoever read it last"
    drafted.copied("web", "round1", [Stored("data", 6, b"x")], deliverer=FIRST_APPLIANCE)
    drafted.copied("web", "round1", [Stored("data", 5, b"x")], deliverer=FIRST_APPLIANCE + 1)
    assert drafted.delivered_blocks("web", "data") == {FIRST_APPLIANCE: Blocks([6]), FIRST_APPLIANCE + 1: Blocks([5])}


def test_an_agent_is_distrusted_until_it_is_trusted(journal: Journal, tmp_path: Path) -> None:
    assert journal.distrusted("web") is None and journal.trust("web") is None
    for found in (Distrust(5.5, "it lied"), Distrust(7.5, "it lied again")):
        journal.distrust("web", found)
        with reopened(tmp_path) as again:
            assert again.distrusted("web") == found
    journal.forget_tracking("web")
    assert journal.trust("web") == Distrust(7.5, "it lied again")
    assert journal.distrusted("web") is None
    journal.distrust("web", Distrust(9.0, "it lied"))
    journal.remove_vm("web")
    journal.add_vm(WEB)
    assert journal.distrusted("web") is None, "another VM of the name"


def failing_disks(first: Tracked) -> Iterator[Tracked]:
    yield first
    raise Gone


OTHER = dataclasses.replace(SYSTEM, base="another", round="another")
CHANGES: dict[str, Callable[[Journal], None]] = {
    "begin_round": lambda journal: journal.begin_round("web", Draft("draft2", "r"), failing_disks(OTHER), ["data"]),
    "end_round": lambda journal: journal.end_round(
        "web", Draft("draft1", "r"), failing_disks(OTHER), {"system": Blocks([5])}
    ),
    "copied": lambda journal: journal.copied("web", "round1", failing(Stored("system", 8, b"eight"))),
    "spooled": lambda journal: journal.spooled("web", COMPLETION, failing_disks(OTHER), {"system": Blocks([5])}),
    "published": lambda journal: journal.published("web", failing_disks(OTHER), Point("s1", 5.0)),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_that_fails_leaves_nothing(drafted: Journal, tmp_path: Path, change: str) -> None:
    before = dump(tmp_path)
    with pytest.raises(Gone):
        CHANGES[change](drafted)
    assert dump(tmp_path) == before
    drafted.copied("web", "round1", [Stored("system", 8, b"eight")])
    assert drafted.copied_blocks("web", "system") == Blocks([5, 8])


def test_threads_share_a_journal(drafted: Journal) -> None:
    def copy(numbers: Iterable[int]) -> None:
        for block in numbers:
            drafted.copied("web", "round1", [Stored("data", block, b"x")])

    threads = [threading.Thread(target=copy, args=(range(first, 200, 4),)) for first in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert drafted.copied_blocks("web", "data") == Blocks(range(200))


def test_a_journal_in_memory_is_as_good() -> None:
    with Journal.in_memory() as journal:
        journal.add_vm(WEB)
        journal.begin_round("web", DRAFT, [SYSTEM], [])
        assert journal.tracked("web") == {"system": SYSTEM}
        with journal.lock("web"):
            assert journal.draft("web") == DRAFT


# memory


def test_a_long_draft_is_never_in_memory_as_a_whole(drafted: Journal) -> None:
    count = 100_000
    drafted.copied("web", "round1", [Stored("system", 16 * block, block.to_bytes(32, "big")) for block in range(count)])
    assert _peak(lambda: len(drafted.copied_blocks("web", "system"))) < 4 * MIB
    assert _peak(lambda: sum(1 for _ in drafted.copied_chunks("web", "system"))) < 8 * MIB
    portions = _peak(lambda: sum(len(each["system"]) for each in drafted.unrecorded("web", 1) if "system" in each))
    assert portions < 8 * MIB


def test_portions_of_what_is_not_listed_yet(drafted: Journal) -> None:
    drafted.copied(
        "web", "round1", [Stored(disk, block, b"x") for disk in ("data", "system") for block in range(10, 15)]
    )
    found = list(drafted.unrecorded("web", 1, 4))
    assert all(sum(map(len, each.values())) <= 4 for each in found)
    whole = next(drafted.unrecorded("web", 1))
    for disk in ("data", "system"):
        assert [pair for each in found for pair in each.get(disk, ())] == whole[disk]


def _peak(call: Callable[[], object]) -> int:
    """Bytes that Python has taken while it was at it."""
    tracemalloc.start()
    try:
        assert call()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_it_is_not_closed_beneath_another_thread(tmp_path: Path) -> None:
    """SQLite would crash. Who comes later is told."""
    journal = Journal.open(tmp_path)
    closing = threading.Thread(target=journal.close)
    with journal.reading("SELECT 1 UNION SELECT 2") as rows:
        assert next(rows) == (1,)
        closing.start()
        closing.join(0.2)
        assert closing.is_alive() and next(rows) == (2,)
    closing.join(10)
    with pytest.raises(errors.Usage, match="cannot be used"):
        journal.vms()
