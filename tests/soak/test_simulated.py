"""A share of the soak: nothing is wrong, every planted bug is caught, and a seed shows the same again."""

from __future__ import annotations

import pytest

from tests.soak import plants
from tests.soak.__main__ import main
from tests.soak.life import live

#: Lives of 25 cycles; the numbers after these are for ``make soak``.
SEEDS = range(1, 17)
#: So many lives are enough to meet each bug.
PATIENCE = 60
#: The first of them, where few meet it. (Whatever asks the store more often than before moves them.)
RARE = {"lost-copies-kept": 80}


@pytest.mark.parametrize("seed", SEEDS)
def test_no_backup_is_wrong_whatever_breaks(seed: int) -> None:
    lived = live(seed)
    assert not lived.failure, lived.failure
    assert lived.faults.total() > 10


@pytest.mark.parametrize("plant", plants.PLANTS)
def test_a_planted_bug_is_caught(plant: str) -> None:
    seeds = range(first := RARE.get(plant, 1), first + PATIENCE)
    caught = next((lived for seed in seeds if (lived := live(seed, plant=plant)).failure), None)
    assert caught is not None, f"{PATIENCE} lives with this bug, and nothing was wrong"
    assert live(caught.seed, plant=plant).failure, "its seed does not show it again"


def test_the_last_line_tells_what_was_found(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--seed", "3", "--cycles", "30"]) == 0
    assert capsys.readouterr().out.splitlines()[-1].startswith("30 cycles, ")
    assert main(["--seed", "10", "--cycles", "75", "--plant", "stale-block-kept"]) == 1
    *told, last = capsys.readouterr().out.splitlines()
    assert last.endswith(" wrong bytes") and " 0 wrong" not in last
    assert "the planted bug stale-block-kept was caught" in told


def test_a_bug_that_nobody_knows_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--plant", "nonsense"])
    assert "gap-between-bitmaps" in capsys.readouterr().err
