"""What was learned of a disk: how soon blocks are dirtied again, what was wasted, how backups came out.

A block that is dirtied is *born*, one that is dirtied again *dies*: what is asked is how long it survives. The hazard
(deaths for every second of a block's life) is counted by age, in classes that double, and by how often the block was
dirtied, as in a life table (Cutler and Ederer, "Maximum utilization of the life table method in analyzing survival",
1958). Old counts fade.

A round tells only that a block died since the round before. Its death is shared out among the classes of age it went
through, by the hazard known so far: one step of expectation and maximization.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

from headstart.backup import heat as heats
from headstart.backup.heat import COUNT_CLASSES, Heat
from headstart.blocks import Blocks

#: Bounds of the classes of age, in seconds; the last one has no end.
BOUNDS = (0.0, *(15.0 * 2**power for power in range(16)))
#: Counts are worth half after so long: two days tell of a weekday, and forget the last one.
HALF_LIFE = 2 * 86400.0
#: Before anything is known: blocks die at PRIOR_RATE / (age + PRIOR_AGE) a second; that weighs as so many deaths.
PRIOR_RATE, PRIOR_AGE, PRIOR_DEATHS = 0.3, 300.0, 20.0

#: For each byte that changed so much may be wasted. Copies in all stay within 1.2 times the changes, with a margin.
WASTE = 0.14
#: A block is copied early where the risk that this is in vain is below the threshold. Where it begins and may go.
THRESHOLD, LEAST_THRESHOLD, MOST_THRESHOLD = 0.18, 0.02, 0.5
#: It changes by this factor at most, at a completion.
LEARNING = 1.5

#: How many completions are remembered.
OUTCOMES = 20
#: Classes of how long a round went on: up to 2 s, 4 s, and so on.
LENGTHS = 18

_VERSION = 1

Table = tuple[tuple[float, ...], ...]
_EMPTY: Table = ((0.0,) * len(BOUNDS),) * COUNT_CLASSES


@dataclass(frozen=True, slots=True)
class Learned:
    """Of one disk. ``deaths`` and ``lives`` (seconds that blocks have lived): by class of counts, then of age.

    ``copied`` and ``wasted``: blocks since the last completion. ``dirtied``: by length of a round, how many rounds and
    how many blocks they reported. ``outcomes``: what there was left at completions for each block that was expected."""

    deaths: Table = _EMPTY
    lives: Table = _EMPTY
    threshold: float = THRESHOLD
    copied: float = 0.0
    wasted: float = 0.0
    dirtied: tuple[tuple[float, float], ...] = ((0.0, 0.0),) * LENGTHS
    outcomes: tuple[float, ...] = ()


def seen(learned: Learned, heat: Heat, dirty: Blocks, draft: Blocks, moment: float) -> Learned:
    """With one more round, before ``heat`` has seen it. ``draft``: what was copied until it began."""
    wasted = learned.wasted + draft.intersection_cardinality(dirty)
    if heat.moment is None or moment <= heat.moment:
        return replace(learned, wasted=wasted)
    passed = moment - heat.moment
    fade = 2.0 ** (-passed / HALF_LIFE)
    deaths, lives = _lived(learned, heat, dirty, passed, fade)
    return replace(
        learned, deaths=deaths, lives=lives, wasted=wasted, dirtied=_dirtied(learned.dirtied, passed, len(dirty), fade)
    )


def copied(learned: Learned, count: int) -> Learned:
    """So many blocks were copied ahead."""
    return replace(learned, copied=learned.copied + count)


def completed(learned: Learned, residue: int, expected: float, waste: float = WASTE) -> Learned:
    """A backup is complete, with ``residue`` blocks left. ``expected``: by ``forecast.expected``. The threshold
    moves towards where a share ``waste`` of what changed is wasted.

    Also where less would do: what is deferred is lost on the day when the guest is busy until the deadline."""
    outcomes = (*learned.outcomes, (residue + 1) / (expected + 1))[-OUTCOMES:]
    threshold = _moved(learned, residue, waste) if learned.copied else learned.threshold
    return replace(learned, threshold=threshold, copied=0.0, wasted=0.0, outcomes=outcomes)


def _moved(learned: Learned, residue: int, waste: float) -> float:
    share = learned.wasted / max(1.0, learned.copied - learned.wasted + residue)
    factor = min(max(math.sqrt(waste / share), 1 / LEARNING), LEARNING) if share else LEARNING
    return min(max(learned.threshold * factor, LEAST_THRESHOLD), MOST_THRESHOLD)


def risk(learned: Learned, age: float, often: int, seconds: float) -> float:
    """The probability that a block that was quiet for ``age`` is dirtied within so many ``seconds``."""
    hazards = _hazards(learned.deaths, learned.lives)[often]
    return -math.expm1(-_integral(hazards, age, age + seconds))


def dirtied_within(learned: Learned, seconds: float) -> float | None:
    """Blocks that a round of this length reports, on average; None: no round like it was seen.

    Between lengths that were seen it grows with a power of the length, beyond them in proportion, at most."""
    known = [(_length(index), blocks / rounds) for index, (rounds, blocks) in enumerate(learned.dirtied) if rounds > 0]
    if not known:
        return None
    above = next((index for index, (length, _) in enumerate(known) if length >= seconds), None)
    if above is None:
        length, count = known[-1]
        return count * seconds / length
    if above == 0:
        length, count = known[0]
        return count * math.sqrt(seconds / length)
    (short, few), (long, many) = known[above - 1], known[above]
    share = math.log(seconds / short) / math.log(long / short)
    return math.exp(math.log(few + 1) * (1 - share) + math.log(many + 1) * share) - 1


def encode(learned: Learned) -> str:
    """For ``decode``, of this version."""
    values = {
        "version": _VERSION,
        "deaths": learned.deaths,
        "lives": learned.lives,
        "threshold": learned.threshold,
        "copied": learned.copied,
        "wasted": learned.wasted,
        "dirtied": learned.dirtied,
        "outcomes": learned.outcomes,
    }
    return json.dumps(values)


def decode(text: str) -> Learned:
    """Raises ``ValueError`` for what ``encode`` has not made."""
    try:
        values = json.loads(text)
        if values.pop("version") != _VERSION:
            raise ValueError("this was learned by another version")
        threshold, copied, wasted = (_figure(values[name]) for name in ("threshold", "copied", "wasted"))
        return Learned(
            _table(values["deaths"], COUNT_CLASSES, len(BOUNDS)),
            _table(values["lives"], COUNT_CLASSES, len(BOUNDS)),
            min(max(threshold, LEAST_THRESHOLD), MOST_THRESHOLD),
            copied,
            wasted,
            tuple((rounds, found) for rounds, found in _table(values["dirtied"], LENGTHS, 2)),
            tuple(_figure(each) for each in values["outcomes"])[-OUTCOMES:],
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"this is nothing that was learned: {error!r}") from error


def _lived(learned: Learned, heat: Heat, dirty: Blocks, passed: float, fade: float) -> tuple[Table, Table]:
    deaths = [[value * fade for value in row] for row in learned.deaths]
    lives = [[value * fade for value in row] for row in learned.lives]
    hazards = _hazards(learned.deaths, learned.lives)
    entries = heats.coarse(dirty, heat.shift)
    for generation in heat.generations:
        age = max(0.0, (heat.moment or 0.0) - generation.moment)
        spans = _spans(age, age + passed)
        alive = heats.census(heat, generation)
        died = heats.census(heat, generation, entries)
        for often in range(COUNT_CLASSES):
            if alive[often]:
                _count(deaths[often], lives[often], hazards[often], spans, alive[often], died[often])
    return _frozen(deaths), _frozen(lives)


def _count(
    deaths: list[float],
    lives: list[float],
    hazards: Sequence[float],
    spans: Sequence[tuple[int, float]],
    alive: int,
    died: int,
) -> None:
    """Who died has lived through half of it."""
    weight = sum(hazards[index] * seconds for index, seconds in spans)
    for index, seconds in spans:
        deaths[index] += died * hazards[index] * seconds / weight
        lives[index] += (alive - died / 2) * seconds


def _spans(begin: float, end: float) -> list[tuple[int, float]]:
    """How many seconds of ``[begin, end)`` fall into which class of age."""
    found = []
    for index, low in enumerate(BOUNDS):
        high = BOUNDS[index + 1] if index + 1 < len(BOUNDS) else math.inf
        seconds = min(end, high) - max(begin, low)
        if seconds > 0:
            found.append((index, seconds))
    return found


@lru_cache(maxsize=64)
def _hazards(deaths: Table, lives: Table) -> Table:
    """Deaths a second, by class of counts and of age."""
    return tuple(
        tuple(
            (died + PRIOR_DEATHS) / (lived + PRIOR_DEATHS / prior)
            for died, lived, prior in zip(*rows, _PRIOR, strict=True)
        )
        for rows in zip(deaths, lives, strict=True)
    )


_PRIOR = tuple(PRIOR_RATE / (low * 1.5 + PRIOR_AGE) for low in BOUNDS)


def _integral(hazards: Sequence[float], begin: float, end: float) -> float:
    return sum(hazards[index] * seconds for index, seconds in _spans(begin, end))


def _dirtied(
    known: tuple[tuple[float, float], ...], passed: float, count: int, fade: float
) -> tuple[tuple[float, float], ...]:
    found = [(rounds * fade, total * fade) for rounds, total in known]
    index = min(LENGTHS - 1, max(0, math.ceil(math.log2(passed)) - 1)) if passed > 1 else 0
    rounds, total = found[index]
    # The last eight or so: the guest of an hour ago is not that of today.
    keep = 7 / 8 if rounds >= 8 else 1.0
    # As if it had gone on for exactly as long as its class says.
    found[index] = (rounds * keep + 1, total * keep + count * _length(index) / max(passed, 1e-3))
    return tuple(found)


def _length(index: int) -> float:
    return float(2 ** (index + 1))


def _frozen(rows: list[list[float]]) -> Table:
    return tuple(tuple(row) for row in rows)


def _table(values: object, rows: int, columns: int) -> Table:
    if not isinstance(values, list) or len(values) != rows or any(len(row) != columns for row in values):
        raise ValueError("a table of what was learned has another size")
    return tuple(tuple(_figure(value) for value in row) for row in values)


def _figure(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or value < 0:
        raise ValueError(f"no figure that can be learned: {value!r}")
    return float(value)
