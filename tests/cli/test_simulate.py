"""``headstart simulate``: its figures against an independent scorer of its plan, and what it refuses."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from tests.cli import console
from tests.kit.cli import Cli
from tests.simulation import made, scorer
from tests.simulation.scorer import BLOCK

DAY = 86400.0


def plan_of(path: Path) -> list[scorer.Copied]:
    with path.open(newline="") as file:
        head, *rows = csv.reader(file)
    assert head == ["seconds", "offset", "length"]
    return [(float(moment), int(offset), int(length)) for moment, offset, length in rows]


@pytest.mark.parametrize("seed", [1, 2])
def test_anybody_can_score_the_plan(cli: Cli, tmp_path: Path, seed: int) -> None:
    rows = made.writes(seed, hours=44.0)
    trace = made.file(tmp_path / "trace.csv", rows)
    outcome = console.inside(cli, "simulate", "--trace", trace, "--plan", tmp_path / "plan.csv", "--json")
    found = outcome.json["policies"]["headstart"]
    plan = plan_of(tmp_path / "plan.csv")
    scored = scorer.residues(rows, plan, [DAY, 2 * DAY])
    assert sum(length for _, _, length in plan) == found["copied_bytes"]
    assert sum(scored) * BLOCK <= found["residue_bytes"] <= sum(scored) * BLOCK + 0.02 * found["changed_bytes"]
    assert sum(scorer.residues(rows, [], [DAY, 2 * DAY])) * BLOCK == found["changed_bytes"]
    assert max(moment for moment, _, _ in plan) < 2 * DAY


def test_the_result_is_what_another_scorer_says(cli: Cli, tmp_path: Path) -> None:
    trace = made.file(tmp_path / "trace.csv", made.writes(3, hours=20.0), header=False)
    (tmp_path / "load.csv").write_text("seconds,load\n0,0.1\n3600,0.9\n7200,0.2\n")
    options = ("--deadline", "21600", "--bandwidth", "20MiB/s", "--disk-size", "1TiB", "--load", tmp_path / "load.csv")
    found = console.inside(cli, "--json", "simulate", "--trace", trace, *options).json
    assert {name: found[name] for name in ("trace", "disk_size", "deadline", "bandwidth", "backups")} == {
        "trace": str(trace),
        "disk_size": 1 << 40,
        "deadline": 21600.0,
        "bandwidth": 20 << 20,
        "backups": 4,
    }
    assert list(found["policies"]) == ["deadline", "immediate", "headstart", "oracle"]
    for name, each in found["policies"].items():
        assert each["copied_bytes"] == each["wasted_bytes"] + each["changed_bytes"] - each["residue_bytes"], name
        assert each["window_seconds"] == pytest.approx((each["residue_bytes"] / 4 + 3000 * BLOCK) / (20 << 20))
        assert each["longest_window_seconds"] >= each["window_seconds"]
        assert 0 <= each["bytes_under_load"] <= each["copied_bytes"]


def test_the_table_compares_the_policies(cli: Cli, tmp_path: Path) -> None:
    outcome = console.inside(cli, "simulate", "--trace", made.file(tmp_path / "trace.csv", made.writes(4, hours=5)))
    assert outcome.stdout.startswith("1 backup, ")
    assert [line.split()[0] for line in outcome.stdout.splitlines()[1:]] == [
        *("POLICY", "deadline", "immediate", "headstart", "oracle")
    ]
    assert outcome.stderr == ""


def test_one_write_is_enough(cli: Cli, tmp_path: Path) -> None:
    found = console.inside(cli, "--json", "simulate", "--trace", made.file(tmp_path / "t.csv", [(0.0, 0, 1)])).json
    assert found["backups"] == 1
    assert found["disk_size"] == BLOCK
    assert found["policies"]["deadline"]["changed_bytes"] == BLOCK
    assert found["policies"]["headstart"]["residue_bytes"] == 0


def test_it_needs_neither_repository_nor_state(cli: Cli, tmp_path: Path) -> None:
    trace = made.file(tmp_path / "t.csv", [(0.0, 0, 1)])
    assert console.inside(cli, "simulate", "--trace", trace, environment={"HEADSTART_REPOSITORY": ""}).status == 0
    assert not cli.state.exists()


GOOD = "0,0,4096\n5,65536,10\n"


@pytest.mark.parametrize(
    ("trace", "options", "told"),
    [
        ("", (), "holds no rows"),
        ("1,2,x\n", (), "line 1: 'x' is not a whole number"),
        ("5,0,1\n4,0,1\n", (), "line 2: 4 s comes after 5 s"),
        (GOOD, ("--disk-size", "64KiB"), "line 2: the write ends at byte 65546"),
        (GOOD, ("--disk-size", "0"), "not a size"),
        (GOOD, ("--disk-size", "1PiB"), "not a size"),
        (GOOD, ("--disk-size", "9999999TiB"), "not a size"),
        (GOOD, ("--deadline", "0"), "not a number of seconds"),
        (GOOD, ("--deadline", "nan"), "not a number of seconds"),
        (GOOD, ("--deadline", "-3"), "not a number of seconds"),
        (GOOD, ("--deadline", "1e-320"), "not a number of seconds"),
        (GOOD, ("--deadline", "1e15"), "not a number of seconds"),
        ("1,0,1\n500,0,1\n", ("--deadline", "0.001"), "name a longer one"),
        ("1700000000,0,1\n", (), "let seconds count from where the trace begins"),
        (GOOD, ("--bandwidth", "fast"), "not a size"),
        (GOOD, ("--bandwidth", "-1MiB"), "Argument --bandwidth"),
        (GOOD, ("--load", "/nowhere/load.csv"), "/nowhere/load.csv cannot be read"),
        (GOOD, ("--plan", "/nowhere/plan.csv"), "/nowhere/plan.csv"),
    ],
)
def test_what_is_refused(cli: Cli, tmp_path: Path, trace: str, options: tuple[str, ...], told: str) -> None:
    path = tmp_path / "trace.csv"
    path.write_text(trace)
    outcome = console.inside(cli, "--json", "simulate", "--trace", path, *options)
    assert outcome.status == 2
    assert outcome.stdout == ""
    assert told in outcome.error["error"]["message"]
    assert outcome.error["error"]["kind"] == "Usage"


def test_a_load_beyond_one_is_refused(cli: Cli, tmp_path: Path) -> None:
    trace = made.file(tmp_path / "trace.csv", [(0.0, 0, 1)])
    (tmp_path / "load.csv").write_text("0,0.5\n1,7\n")
    outcome = console.inside(cli, "--json", "simulate", "--trace", trace, "--load", tmp_path / "load.csv")
    assert outcome.status == 2
    assert outcome.error["error"]["facts"]["line"] == 2
