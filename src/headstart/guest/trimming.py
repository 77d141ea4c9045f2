"""Having a guest give its free blocks back: through agentd, or through qga.

What it discards the hypervisor records, and the next backup reads as zeroes. What it says of it is for people, and
nothing is left out because of it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from headstart import errors, plain
from headstart.guest.channel import Channel, Refused
from headstart.guest.shells import Qga

#: Until all of a guest's file systems are trimmed: thin storage may take its time.
SECONDS = 3600.0
#: Of the guest's words: file systems, and characters of each.
_MOST, _SHOWN = 500, 200


@dataclass(frozen=True, slots=True)
class Trimmed:
    """A file system of the guest's, as it says: ``trimmed`` bytes; None: ``problem`` tells why not."""

    point: str
    trimmed: int | None
    problem: str = ""


def through_agent(channel: Channel, seconds: float) -> list[Trimmed]:
    """Whoever attends may end it. Raises ``Unsupported`` (the agent is too old, or fails), ``Lost``."""
    request = channel.start("trim")
    try:
        told = channel.answer(request, seconds)
    except Refused as refusal:
        raise errors.Unsupported(f"The agent in the guest does not trim: {refusal}") from None
    finally:
        channel.forget(request)
    return _parsed(told.get("filesystems"), lambda each: (each["point"], each.get("trimmed"), each.get("problem", "")))


def through_qga(qga: Qga, seconds: float, attend: Callable[[], None]) -> list[Trimmed]:
    """``attend`` as ``Qga`` has it. Raises ``Unreachable``, also where qga does not know the command."""
    told = qga.execute("guest-fstrim", seconds, {"minimum": 0}, attend)
    paths = told.get("paths") if isinstance(told, dict) else None
    return _parsed(paths, lambda each: (each["path"], each.get("trimmed"), each.get("error", "")))


def _parsed(told: object, read: Callable[[Mapping[str, Any]], tuple[object, object, object]]) -> list[Trimmed]:
    if not isinstance(told, list):
        raise errors.Unsupported("The guest does not say what it has trimmed.")
    found = []
    for each in told[:_MOST]:
        try:
            point, count, problem = read(each)
        except (KeyError, TypeError, AttributeError):
            raise errors.Unsupported("What the guest says of trimming makes no sense.") from None
        sound = type(count) is int and 0 <= count < 1 << 63
        problem = plain.line(str(problem), _SHOWN)
        found.append(Trimmed(plain.line(str(point), _SHOWN), count if sound else None, problem))  # type: ignore[arg-type]
    return found
