"""verify in parts: a sample, a share each day, everything with interruptions, without the content key."""

from __future__ import annotations

from tests.cli import console
from tests.cli.shelf import Shelf
from tests.restore import stored


def fill(shelf: Shelf, count: int = 4) -> int:
    """The number of packs."""
    for number in range(count):
        shelf.add(disks={"disk": stored.content(number + 1)})
    return len(list((shelf.cli.repository / "packs").iterdir()))


def test_a_sample_reads_as_many_packs_as_asked(shelf: Shelf) -> None:
    packs = fill(shelf)
    for told, read in (("3", 3), ("25%", (packs + 3) // 4), ("100%", packs)):
        done = console.inside(shelf.cli, "--json", "verify", "--sample", told).json
        assert (done["packs"], done["packs_there"], done["findings"]) == (read, packs, [])
    assert f"2 of {packs} packs back: all of that is whole" in console.run(shelf.cli, "verify", "--sample", "2").stdout
    for wrong in ("0", "x", "0%", "101%", "nan%", "-1", "1.5"):
        assert console.inside(shelf.cli, "--json", "verify", f"--sample={wrong}").status == 2, wrong
    assert console.inside(shelf.cli, "--json", "verify", "--sample", "1", "web@latest").status == 2


def test_rolling_reads_what_is_due_and_no_more(shelf: Shelf) -> None:
    packs = fill(shelf)
    first = console.inside(shelf.cli, "--json", "verify", "--rolling", "1").json
    again = console.inside(shelf.cli, "--json", "verify", "--rolling", "1").json
    assert (first["packs"], again["packs"], again["packs_there"]) == (packs, 0, packs)
    assert console.inside(shelf.cli, "--json", "verify", "--rolling").json["packs"] == 0
    assert console.inside(shelf.cli, "--json", "verify", "--rolling", "0").status == 2


def test_rolling_goes_on_after_having_been_killed(shelf: Shelf) -> None:
    packs = fill(shelf)
    # Its first call notes which packs there are.
    shelf.cli.run("verify", "--rolling", "1", kill_after="headstart.state.verified:Verified.put:3")
    assert shelf.cli.run("verify", "--rolling", "1").json["packs"] == packs - 2


def test_everything_goes_on_after_having_been_killed_and_then_begins_anew(shelf: Shelf) -> None:
    packs = fill(shelf)
    shelf.cli.run("verify", "--read-data", kill_after="headstart.state.verified:Verified.put:3")
    assert shelf.cli.run("verify", "--read-data").json["packs"] == packs - 3
    assert shelf.cli.run("verify", "--read-data").json["packs"] == packs
    assert shelf.cli.run("verify").json["packs"] == packs


def test_damage_stays_due(shelf: Shelf) -> None:
    fill(shelf)
    stored.damage_packs(shelf.cli.repository)
    for how in (("--rolling", "1"), ("--rolling", "1"), ("--read-data",), ("--read-data",), ("--sample", "100%")):
        outcome = console.inside(shelf.cli, "--json", "verify", *how)
        assert (outcome.status, len(outcome.json["findings"])) == (13, 4), how


def test_without_the_content_key(shelf: Shelf) -> None:
    packs = fill(shelf)
    environment = {"HEADSTART_NEW_PASSWORD": "server"}
    console.inside(shelf.cli, "key", "add", "--structure-only", environment=environment)
    server = {"HEADSTART_PASSWORD": "server"}
    for how in ((), ("--rolling", "1"), ("--read-data",), ("--sample", "100%"), ("web@latest",)):
        outcome = console.inside(shelf.cli, "--json", "verify", *how, environment=server)
        assert (outcome.status, outcome.json["content"], outcome.json["packs_there"]) == (0, False, packs), how
    stored.damage_packs(shelf.cli.repository)
    outcome = console.inside(shelf.cli, "--json", "verify", environment=server)
    assert (outcome.status, len(outcome.json["findings"])) == (13, 4)
    assert all(found["touched"] for found in outcome.json["findings"])
