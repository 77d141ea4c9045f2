"""A week played again under another policy, out of what was recorded."""

from __future__ import annotations

import random

import pytest

from headstart import errors, units
from headstart.host.policy import Policy
from headstart.server.pages import lastweek, policies
from headstart.state.series import Minute
from headstart.state.values import Run
from tests.kit import machine

DAY = 86400.0
#: A midnight, UTC.
UNTIL = 1_799_971_200.0


def policy(text: str) -> Policy:
    found, mistakes = policies.find("tried", text, UNTIL)
    assert found is not None, mistakes
    return found


def daily(*, ahead: bool = True) -> Policy:
    transports = "" if ahead else "[head_start]\ntransports = []\n"
    return policy(f'[schedule]\ncalendar = "00:00"\ntimezone = "UTC"\n{transports}')


@pytest.fixture(scope="module")
def week() -> tuple[list[Minute], list[Run]]:
    """Each day 2 GiB change, a tenth of it again and again; idle at night. Backups at 23:00."""
    dice = random.Random(5)
    minutes, runs = [], []
    for number in range(7 * 96):
        moment = UNTIL - 7 * DAY + number * 900
        load = 0.8 if 36 <= number % 96 < 72 else 0.05
        minutes += [Minute(int(moment + 60 * n), load, 0.001, "idle", 0, 0, 0) for n in range(15)]
        report = {"identified_bytes": dice.randrange(20, 26) * units.MIB, "copied_bytes": 0, "remaining_bytes": 0}
        runs.append(Run(number + 1, "vm", "precopy", moment, moment + 9, report))
    for day in range(7):
        moment = UNTIL - 7 * DAY + day * DAY + 23 * 3600
        report = machine.backup("vm", moment, 2 * units.GIB, 60 * units.MIB, 0.5)
        runs.append(Run(1000 + day, "vm", "backup", moment - 2, moment + 20, report))
    return minutes, runs


def test_a_head_start_leaves_less_for_the_window(week: tuple[list[Minute], list[Run]]) -> None:
    found = lastweek.play(daily(), *week, UNTIL)
    recorded, plain, ours, oracle = found.rows
    assert recorded.backups == 7 and recorded.residue == 7 * 60 * units.MIB
    assert plain.backups == 6
    assert plain.residue == pytest.approx(6 * 2 * units.GIB, rel=0.15)
    assert oracle.residue <= ours.residue < plain.residue / 5
    assert ours.window is not None and plain.window is not None and ours.window < plain.window / 5
    assert found.bandwidth == pytest.approx(120 * units.MIB) and found.is_measured
    assert found.rounds == 7 * 96 and found.changed == pytest.approx(14 * units.GIB)


def test_without_a_head_start_nothing_is_copied_ahead(week: tuple[list[Minute], list[Run]]) -> None:
    titles = [row.title for row in lastweek.play(daily(ahead=False), *week, UNTIL).rows]
    assert titles == ["As it was", "This schedule, no head start"]


def test_what_is_not_played_is_told(week: tuple[list[Minute], list[Run]]) -> None:
    said = (
        '[schedule]\ncalendar = "00:00"\ntimezone = "UTC"\n[load]\nlatency = "10 ms"\n[[limits]]\nrate = "10 MiB/s"\n'
    )
    assert lastweek.play(policy(said), *week, UNTIL).left_out == ("limits", "load")


def test_too_little_is_told() -> None:
    with pytest.raises(errors.Usage, match="no backup of it"):
        lastweek.play(daily(), [], [], UNTIL)


def test_too_many_backups_are_refused(week: tuple[list[Minute], list[Run]]) -> None:
    with pytest.raises(errors.Usage, match="too many"):
        lastweek.play(policy('[schedule]\ncalendar = "*:0/5"\n'), *week, UNTIL)


def test_backups_alone_are_enough(week: tuple[list[Minute], list[Run]]) -> None:
    backups = [run for run in week[1] if run.verb == "backup"]
    found = lastweek.play(daily(), [], backups, UNTIL)
    assert found.rounds == 0 and found.loads == 0
    assert found.rows[1].residue == pytest.approx(6 * 2 * units.GIB, rel=0.15)
