"""A round under the governor: what the ward's course chooses, at the pace it allows. A ``Pace``."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

from headstart.backup.contact import Contact
from headstart.backup.identify import Identified
from headstart.blocks import Blocks
from headstart.host.course import Course
from headstart.host.house import House
from headstart.load.governor import Governor
from headstart.load.throttle import Halted, Permit, Throttle

#: A VM that others wait for ends its round after so long: its turn comes again.
TURN_SECONDS = 60.0


class Steering:
    """Of one round. ``go_on`` is called all the time; it raises when something else comes first."""

    def __init__(self, house: House, course: Course, go_on: Callable[[], None]) -> None:
        self._house = house
        self._course = course
        self._go_on = go_on
        self._began = time.monotonic()

    def chosen(self, contact: Contact, identified: Identified, remaining: Mapping[str, Blocks]) -> dict[str, Blocks]:
        return self._course.choose(contact, identified, remaining)

    def permit(self, contact: Contact) -> Permit | None:
        throttle = Throttle(lambda: self._governed(contact))
        counted = Counted(throttle, self._course.read)
        if contact.inside.connected is not None:
            contact.inside.connected.attend(counted.check)
        return counted

    def _governed(self, contact: Contact) -> Governor:
        self._go_on()
        if self._house.rounds.waiting and time.monotonic() - self._began > TURN_SECONDS:
            raise Halted("another VM's turn")
        if self._course.over():
            raise Halted("a new round knows better what to copy")
        return self._course.govern(contact)


class Counted:
    """A ``Permit`` that tells how much it permitted."""

    def __init__(self, inner: Permit, tell: Callable[[int], None]) -> None:
        self._inner = inner
        self._tell = tell

    def portion(self) -> int:
        return self._inner.portion()

    def wait(self, count: int) -> None:
        self._inner.wait(count)
        self._tell(count)

    def check(self) -> None:
        self._inner.check()
