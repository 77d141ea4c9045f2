"""forget, protect, tag, gc."""

from __future__ import annotations

from pathlib import Path
from unittest import mock

import pytest

from headstart import repository
from headstart.repository import label, lease
from headstart.store.local import LocalStore
from tests.cli import console
from tests.cli.shelf import Shelf
from tests.kit import stores
from tests.restore import stored


def packs(shelf: Shelf) -> int:
    return sum(path.stat().st_size for path in (shelf.cli.repository / "packs").rglob("*") if path.is_file())


def ids(shelf: Shelf) -> list[str]:
    return [each["id"] for each in shelf.cli.run("snapshots").json["snapshots"]]


def test_forget_by_rules(shelf: Shelf) -> None:
    made = [shelf.add("web") for _ in range(4)]
    other = shelf.add("db")
    told = shelf.cli.run("forget", "--keep-last", "1", "--vm", "web", "--dry-run").json
    assert told["dry_run"] is True and len(ids(shelf)) == 5
    done = shelf.cli.run("forget", "--keep-last", "1", "--vm", "web").json
    assert [each["id"] for each in done["forgotten"]] == [each["id"] for each in told["forgotten"]]
    assert {each["vm"] for each in done["kept"]} == {"web"}
    assert done["kept"][0]["reasons"] == ["last"]
    assert set(ids(shelf)) == {done["kept"][0]["id"], other.id} and len(made) == 4
    assert shelf.cli.run("verify").json["findings"] == []


def test_a_dry_run_shows_why(shelf: Shelf) -> None:
    shelf.add("web"), shelf.add("web")
    shown = console.run(shelf.cli, "forget", "--keep-daily", "3", "--keep-within", "1y", "--dry-run").stdout
    assert "daily, within" in shown and "Would forget 0 snapshots." in shown


def test_forget_by_name(shelf: Shelf) -> None:
    first, second = shelf.add("web"), shelf.add("web")
    assert shelf.cli.run("forget", first.id[:8]).json["forgotten"][0]["id"] == first.id
    assert ids(shelf) == [second.id]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ((), "Say what to keep"),
        (("--vm", "web"), "Say what to keep"),
        (("web@latest", "--keep-last", "1"), "not both"),
        (("--keep-last", "0"), "1 or more"),
        (("--keep-last", "-1"), "1 or more"),
        (("--keep-daily", "many"), "1 or more"),
        (("--keep-within", "3w"), "2y5m7d3h"),
        (("--keep-last", "1", "--tag", "a b"), "cannot be a tag"),
    ],
)
def test_what_cannot_be_meant_forgets_nothing(shelf: Shelf, given: tuple[str, ...], said: str) -> None:
    shelf.add("web")
    outcome = shelf.cli.run("forget", *given, expect=2)
    assert said in outcome.error["error"]["message"]
    assert len(ids(shelf)) == 1


def test_a_time_zone_without_a_name(shelf: Shelf) -> None:
    """As POSIX has it: only rules need one."""
    first = shelf.add("web")
    zone = {"TZ": "CET-1CEST,M3.5.0,M10.5.0/3"}
    refused = console.inside(shelf.cli, "--json", "forget", "--keep-daily", "1", environment=zone)
    assert refused.status == 2 and "set TZ to a name" in refused.error["error"]["message"]
    assert console.inside(shelf.cli, "forget", first.id, environment=zone).status == 0


def test_a_vm_without_snapshots_is_no_success(shelf: Shelf) -> None:
    """Such as a slip in its name: a job that is to forget every night would never do it."""
    shelf.add("web"), shelf.add("web")
    words = ("forget", "--keep-last", "1", "--vm", "wbe")
    assert "no snapshot of wbe" in shelf.cli.run(*words, expect=15).error["error"]["message"]
    done = shelf.cli.run(*words, "--vm", "web", expect=3)
    assert len(done.json["forgotten"]) == 1 and "no snapshot of wbe" in done.error["error"]["message"]
    assert shelf.cli.run("forget", "--keep-last", "1", "--vm", "web", "--tag", "none").json["forgotten"] == []


def test_what_is_protected_meanwhile_was_not_forgotten(shelf: Shelf) -> None:
    first, second = shelf.add("web"), shelf.add("web")
    none, late = label.Labels(), label.Labels(protected=True)
    with mock.patch.object(label, "of", side_effect=lambda repo, each: late if each == first.id else none):
        done = console.inside(shelf.cli, "--json", "forget", first.id, second.id)
    assert done.status == 3 and first.id in done.error["error"]["message"]
    assert [each["id"] for each in done.json["forgotten"]] == [second.id]
    assert [(each["id"], each["reasons"]) for each in done.json["kept"]] == [(first.id, ["protected"])]
    assert ids(shelf) == [first.id]


def test_what_is_protected_stays(shelf: Shelf) -> None:
    first = shelf.add("web")
    shelf.add("web"), shelf.add("web")
    shelf.cli.run("protect", first.id)
    shelf.cli.run("protect", first.id)
    listed = {each["id"]: each["protected"] for each in shelf.cli.run("snapshots").json["snapshots"]}
    assert [each for each, protected in listed.items() if protected] == [first.id]
    assert "protected" in console.run(shelf.cli, "snapshots").stdout
    done = shelf.cli.run("forget", "--keep-last", "1").json
    assert len(done["forgotten"]) == 1 and ["protected"] in [each["reasons"] for each in done["kept"]]
    assert "unprotect" in shelf.cli.run("forget", first.id, expect=2).error["error"]["message"]
    shelf.cli.run("unprotect", first.id)
    assert shelf.cli.run("forget", first.id).json["forgotten"][0]["id"] == first.id
    assert not list((shelf.cli.repository / "labels").rglob("*/*"))


def test_tags_are_added_and_removed(shelf: Shelf) -> None:
    first, second, third = (shelf.add("web") for _ in range(3))
    shelf.cli.run("tag", first.id, second.id, "--add", "before-upgrade", "--add", "q1")
    shelf.cli.run("tag", second.id, "--remove", "q1")
    listed = {each["id"]: each["tags"] for each in shelf.cli.run("snapshots").json["snapshots"]}
    assert listed == {first.id: ["before-upgrade", "q1"], second.id: ["before-upgrade"], third.id: []}
    done = shelf.cli.run("forget", "--tag", "before-upgrade", "--keep-last", "1").json
    assert len(done["forgotten"]) == 1 and len(done["kept"]) == 1
    assert "Say which tags" in shelf.cli.run("tag", third.id, expect=2).error["error"]["message"]


def test_the_space_is_freed(shelf: Shelf) -> None:
    gone = shelf.add("web", {"system": stored.content(*range(1, 40))})
    kept = shelf.add("web")
    before = packs(shelf)
    shelf.cli.run("forget", gone.id)
    told = shelf.cli.run("gc", "--quarantine", "0s", "--dry-run").json
    assert told["dry_run"] is True
    done = shelf.cli.run("gc", "--quarantine", "0s").json
    assert told["condemned_bytes"] == done["condemned_bytes"] > 0 == done["freed_bytes"]
    assert packs(shelf) >= before, "in the quarantine nothing is freed yet"
    shown = console.run(shelf.cli, "gc").stdout
    assert "can be deleted in 23 h" in shown or "can be deleted in 24 h" in shown
    done = shelf.cli.run("gc", "--quarantine", "0s").json
    assert done["freed_bytes"] == told["condemned_bytes"] and packs(shelf) < before
    assert shelf.cli.run("verify").json["findings"] == []
    assert shelf.cli.run("snapshots").json["snapshots"][0]["id"] == kept.id


def test_a_restore_holds_a_lease(shelf: Shelf, tmp_path: Path) -> None:
    made = shelf.add("web")
    shelf.cli.run("restore", made.id, tmp_path / "killed", kill_before="headstart.restore.restoration:restore:1")
    assert len(list((shelf.cli.repository / "leases").rglob("0*0"))) >= 1
    shelf.cli.run("restore", made.id, tmp_path / "out")
    assert len(list((shelf.cli.repository / "leases").iterdir())) == 1, "the other one is gone"


def test_two_at_once(shelf: Shelf) -> None:
    shelf.add("web")
    with (
        repository.open(LocalStore(shelf.cli.repository), lambda: stores.PASSWORD) as repo,
        lease.collecting(repo, "gc"),
    ):
        for verb in (("gc",), ("forget", "--keep-last", "1")):
            outcome = shelf.cli.run(*verb, expect=11)
            assert "'headstart gc (process" in outcome.error["error"]["message"]
    shelf.cli.run("gc")


def test_a_forgotten_latest_is_not_missed(shelf: Shelf, tmp_path: Path) -> None:
    """A host remembers what it published last; forgotten on purpose it is not lost."""
    shelf.add("web")
    latest = shelf.add("web")
    shelf.cli.run("forget", latest.id)
    with repository.open(LocalStore(shelf.cli.repository), lambda: stores.PASSWORD) as repo:
        assert repo.index.all_losses()[0].objects
        assert repo.index.given_up(f"snapshots/{latest.id}")
