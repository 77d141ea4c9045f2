r"""The governor: whether to copy ahead now, and how fast. One step is a function of values.

::

    load     halted    ____
    high  - - - - - - /    \- - - - - - - - - - - - -    above: nothing is read
              paced  /      \  halted until both are
    low   - - - - - / - - - -\- well below the high one   between: as fast as the deadline needs
              idle /          \ paced, idle
                                                         below: as fast as is allowed

The short average decides to stop, the long one to start again. The pace grows slowly and falls fast. The load that it
is told must not contain what we cause ourselves, or copying would stop itself.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import Enum

from headstart.load.averages import Average
from headstart.load.usual import Usual
from headstart.units import KIB, MIB

#: Time constants. With a figure every half second a load that jumps to 1 is above 0.7 after a second and a half.
SHORT_SECONDS = 1.0
LONG_SECONDS = 60.0
#: Marks without a history.
LOW, HIGH = 0.25, 0.7
#: Marks with one: the VM is idle below what it does half of the time, and busy above what it does in a quarter of it;
#: but nobody can notice us below the floor, and somebody will above the ceiling, however usual that is.
LOW_SHARE, HIGH_SHARE = 0.5, 0.75
FLOOR, CEILING = 0.1, 0.95
#: The high mark is at least so far above the low one. Figures of five minutes do not tell how a load trembles from
#: second to second; 0.1 leaves room for three times a standard deviation of 0.03 around what is usual.
APART = 0.1
#: Copying goes so much faster than the deadline needs (vSphere Replication; Pacer, USENIX ATC 2011).
AHEAD = 1.2
#: Where nothing tells the load, and where the deadline is far.
LEAST_RATE = 4.0 * MIB
#: The pace after a halt; it doubles in so many seconds when idle.
START_RATE = 16.0 * MIB
DOUBLE_SECONDS = 2.0
#: When paced, and after latency has once been above its bound, the pace grows by this share of itself a second.
GROWTH = 1 / 8
#: Latency above its bound takes this share of the pace away, once in so many seconds.
RELENT = 0.5
RELENT_SECONDS = 1.0
SLOWEST = 256.0 * KIB
#: Without a limit. So fast is nobody.
FULL_RATE = float(1 << 36)
#: After a longer time than this without a step nothing is made up for.
LONGEST_STEP = 4.0


class State(Enum):
    IDLE = "idle"
    PACED = "paced"
    HALTED = "halted"


@dataclass(frozen=True, slots=True)
class Marks:
    """Loads between 0 and 1: below ``low`` nobody needs the machine, above ``high`` somebody needs all of it."""

    low: float = LOW
    high: float = HIGH


@dataclass(frozen=True, slots=True)
class Reading:
    """What the sensors say at a moment (seconds of a clock that does not go backwards).

    ``load``: without our own share; None: no sensor says anything. ``what`` names the sensor. ``latency`` of the
    guest's writes, and its bound, in seconds; None: not known, or no bound."""

    moment: float
    load: float | None
    what: str = ""
    latency: float | None = None
    bound: float | None = None

    @property
    def suffers(self) -> bool:
        """The guest waits for its disks longer than it may."""
        return self.latency is not None and self.bound is not None and self.latency > self.bound


@dataclass(frozen=True, slots=True)
class Demand:
    """What there is to do: ``remaining`` bytes, ``seconds`` until they are wanted (None: no deadline), the ``limit``
    in bytes a second that the owner allows (None: none)."""

    remaining: int
    seconds: float | None = None
    limit: float | None = None

    @property
    def rate(self) -> float:
        """Bytes a second that the deadline needs."""
        if self.seconds is None:
            return LEAST_RATE
        return max(LEAST_RATE, AHEAD * self.remaining / max(1.0, self.seconds))


@dataclass(frozen=True, slots=True)
class Governor:
    """The governor of one VM between two steps. ``rate`` is in bytes a second; 0 when halted."""

    state: State = State.HALTED
    rate: float = 0.0
    reason: str = "not yet measured"
    short: Average = field(default_factory=lambda: Average(SHORT_SECONDS))
    long: Average = field(default_factory=lambda: Average(LONG_SECONDS))
    #: What was borne so far, in bytes a second; and whether it was too much once since the last halt.
    pace: float = START_RATE
    relented: bool = False
    #: Of the last step, and of the last relenting.
    moment: float | None = None
    relented_at: float = 0.0

    @property
    def load(self) -> float | None:
        return self.short.value


def marks_of(
    usual: Usual,
    low: float | None = None,
    high: float | None = None,
    shares: tuple[float, float] = (LOW_SHARE, HIGH_SHARE),
) -> Marks:
    """From what is usual for a VM, by percentiles (0 to 1); what the owner has set counts as it is.

    Where both are near to each other the high one gives way: a load that is always the same must not halt itself."""
    half, most = (usual.percentile(share) for share in shares)
    if low is None:
        low = LOW if half is None else min(max(half, FLOOR), CEILING - APART)
        low = low if high is None else min(low, high - APART)
    if high is None:
        high = max(HIGH if most is None else min(most, CEILING), low + APART)
    return Marks(low, high)


def step(governor: Governor, reading: Reading, demand: Demand, marks: Marks) -> Governor:
    """What holds from ``reading.moment`` on."""
    measured = _measured(governor, reading)
    state, why = _state(measured, reading, marks)
    if demand.limit is not None and demand.limit <= 0:
        state, why = State.HALTED, "the policy allows no copying now"
    paced = _paced(measured, reading, demand, state)
    rate, why = _rate(paced, demand, state, why)
    return replace(paced, state=state, rate=rate, reason=why, moment=reading.moment)


def _measured(governor: Governor, reading: Reading) -> Governor:
    if reading.load is None:
        return governor
    short = governor.short.moved(reading.load, reading.moment)
    return replace(governor, short=short, long=governor.long.moved(reading.load, reading.moment))


def _state(governor: Governor, reading: Reading, marks: Marks) -> tuple[State, str]:
    short, long = governor.short.value, governor.long.value
    if reading.load is None or short is None or long is None:
        return State.PACED, "no sensor tells the load"
    told = f"{reading.what or 'load'} {short:.2f}"
    if short >= marks.high:
        return State.HALTED, f"{told} above {marks.high:.2f}"
    # After a halt both averages have to be well below the mark.
    again = (marks.low + 3 * marks.high) / 4
    if governor.state is State.HALTED and governor.moment is not None and max(short, long) >= again:
        return State.HALTED, f"{told} and {long:.2f} over a minute, not both below {again:.2f}"
    # Who is idle stays so up to the middle: a load around the mark must not change the state all the time.
    was_idle = governor.state is State.IDLE
    mark = (marks.low + marks.high) / 2 if was_idle else marks.low
    if short < mark and (was_idle or long < mark):
        return State.IDLE, f"{told} below {mark:.2f}"
    return State.PACED, f"{told} between {marks.low:.2f} and {marks.high:.2f}"


def _paced(governor: Governor, reading: Reading, demand: Demand, state: State) -> Governor:
    """What is borne: found out by trying, and by the guest's latency."""
    if state is State.HALTED:
        # What was borne before a load came need not be borne after it.
        return replace(governor, pace=START_RATE, relented=False, relented_at=reading.moment)
    if reading.suffers:
        if reading.moment - governor.relented_at < RELENT_SECONDS:
            return governor
        pace = max(SLOWEST, min(governor.pace, governor.rate or governor.pace) * RELENT)
        return replace(governor, pace=pace, relented=True, relented_at=reading.moment)
    passed = 0.0 if governor.moment is None else max(0.0, min(reading.moment - governor.moment, LONGEST_STEP))
    if state is State.IDLE and not governor.relented:
        return replace(governor, pace=min(FULL_RATE, governor.pace * 2 ** (passed / DOUBLE_SECONDS)))
    # A pace that nobody goes at is not tried: it does not grow far beyond what is wanted.
    most = FULL_RATE if state is State.IDLE else 2 * demand.rate
    return replace(governor, pace=max(governor.pace, min(most, governor.pace * (1 + GROWTH * passed))))


def _rate(governor: Governor, demand: Demand, state: State, why: str) -> tuple[float, str]:
    if state is State.HALTED:
        return 0.0, why
    wanted = FULL_RATE if state is State.IDLE else demand.rate
    if governor.pace < wanted and governor.relented:
        why += ", held back by the guest's latency"
    if demand.limit is not None and demand.limit < min(wanted, governor.pace):
        return demand.limit, f"{why}, at the policy's limit"
    return min(wanted, governor.pace), why
