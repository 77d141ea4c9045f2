"""Work: blocks of a device are read and sent, as far as there is credit."""

from typing import Any, Callable, Dict, Iterator, List

from headstart.agentd import messages, segments
from headstart.agentd.diskread import LONGEST, DiskReader
from headstart.agentd.messages import PIECE
from headstart.agentd.segments import Run
from headstart.agentd.work import Refused, Work

_ZERO = bytes(PIECE)

#: ``send(kind, parts)``: a frame that answers this request.
Send = Callable[..., None]


class Reading(Work):
    """Runs are read in order; what is sent carries addresses of ``Run.volume``."""

    def __init__(self, runs: List[Run], opened: Callable[[str], DiskReader], send: Send) -> None:
        """``opened``: the disk of this name, open; may raise ``OSError``. Raises ``Refused``."""
        self._send = send
        self._pieces = _pieces(runs)
        self._next = next(self._pieces, None)
        self._readers: Dict[str, DiskReader] = {}
        self._sent = 0
        try:
            for disk in sorted({run.disk for run in runs}):
                self._readers[disk] = opened(disk)
            _check(runs, self._readers)
        except OSError as error:
            self.cancel()
            raise Refused(messages.FAILED, str(error)) from None
        except Refused:
            self.cancel()
            raise

    def hungry(self, credit: int) -> bool:
        return credit >= LONGEST or self._next is None or credit >= self._next.length

    def step(self, now: float) -> None:
        run = self._next
        if run is None:
            self.answer = {"bytes": self._sent}
            return
        try:
            content = self._readers[run.disk].read(run.start, run.length)
        except OSError as error:
            raise Refused(messages.FAILED, "cannot read %s at %d: %s" % (run.disk, run.start, error)) from None
        self._tell(run.volume, content)
        self._sent += run.length
        self._next = next(self._pieces, None)

    def _tell(self, position: int, content: memoryview) -> None:
        """In frames that do not cross multiples of ``PIECE``; neighbours that are all zeroes as one."""
        zeroes = 0
        at = 0
        while at < len(content):
            length = min(PIECE - (position + at) % PIECE, len(content) - at)
            piece = bytes(content[at : at + length])
            if piece == (_ZERO if length == PIECE else bytes(length)):
                zeroes += length
            else:
                self._tell_zeroes(position + at - zeroes, zeroes)
                zeroes = 0
                self._send(messages.DATA, messages.pack_position(position + at), piece)
            at += length
        self._tell_zeroes(position + at - zeroes, zeroes)

    def _tell_zeroes(self, position: int, length: int) -> None:
        if length:
            self._send(messages.ZEROES, messages.pack_span((position, length)))

    def cancel(self) -> None:
        for reader in self._readers.values():
            reader.close()
        self._readers = {}


def _pieces(runs: List[Run]) -> Iterator[Run]:
    """Runs cut into reads, at multiples of ``LONGEST`` of what the host counts in."""
    for run in runs:
        at = 0
        while at < run.length:
            length = min(LONGEST - (run.volume + at) % LONGEST, run.length - at)
            yield Run(run.volume + at, run.disk, run.start + at, length)
            at += length


def _check(runs: List[Run], readers: Dict[str, DiskReader]) -> None:
    for run in runs:
        if run.start + run.length > readers[run.disk].size:
            raise Refused(messages.WRONG, "%s ends at %d" % (run.disk, readers[run.disk].size))


def plan(read: messages.Read, layout: Any) -> List[Run]:
    """Which runs of which devices a READ asks for, in the addresses that it is to be answered in.

    Targets::

        {"device": "vda1"}                     spans are the device's own addresses
        {"disk": "vda"}                        the same for a whole disk
        {"disk": "vda", "through": "dm-0"}     spans are the disk's; they are read from the volume

    Raises ``Refused``: a name that is not a block device; a span that the volume does not hold."""
    device, disk, through = (read.target.get(key) for key in ("device", "disk", "through"))
    if through is None:
        name = layout.require(device if disk is None else disk)
        return [Run(start, name, start, length) for start, length in read.spans]
    disk = layout.require(disk)
    table = layout.table(layout.require(through))
    found = list(segments.back(table, disk, read.spans))
    if sum(run.length for run in found) != sum(length for _, length in read.spans):
        raise Refused(messages.WRONG, "not all of that belongs to %s" % through)
    found.sort(key=lambda run: run.start)
    return [Run(run.start, through, run.volume, run.length) for run in found]
