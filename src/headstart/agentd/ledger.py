"""What we keep of a filter, at the beginning of its companion: where its changes are recorded, and since when for whom.

::

    companion    | ledger, twice |   metadata of the era target   |   old content, while a point in time stands    |
                 0               1 MiB                            1 MiB + metadata

It is written in turn to two places, so that one of them is always whole.
"""

import json
import os
import struct
import zlib
from typing import Any, Dict, List, Optional

from headstart.agentd import diskread

RESERVED = 1 << 20
_MAGIC = b"headstart filter"
#: Magic, number of the writing, length and CRC-32 of the text.
_HEAD = struct.Struct("<16sQII")
_PLACES = (0, 64 << 10)
_LONGEST = 60 << 10
#: Words of one installation; installations, but for those with marks.
WORDS, INSTALLATIONS = 8, 16


class Unreadable(Exception):
    """Here is no ledger."""


class Ledger:
    """``told`` is JSON; ``write`` makes it last. ``name``, ``origin`` and ``id`` of the filter, ``size`` and
    ``metadata`` in bytes; ``seen`` is the newest era known; ``marks`` are, by name, the eras from which on they
    record; ``met`` has, by installation, the words that it left here last, so that it finds out when this is older
    than what it met; ``order``: of installations, who was met last comes last; ``boot`` and ``beside`` are of the
    counters, see ``filters``; ``reason``: why there are no marks of before."""

    def __init__(self, path: str, told: Dict[str, Any], number: int = 0) -> None:
        self.path = path
        self.told = told
        self._number = number

    @property
    def marks(self) -> Dict[str, int]:
        found: Dict[str, int] = self.told["marks"]
        return found

    def met(self, installation: str) -> List[str]:
        found: List[str] = self.told["met"].get(installation, [])
        return found

    def meet(self, installation: str, known: Optional[str], word: str) -> None:
        """It leaves a ``word``, and kept ``known``, so nothing that it left after that. Of those who were met longest
        ago and have no mark here, nothing is known any longer."""
        met, words = self.told["met"], self.met(installation)
        if known in words:
            words = words[: words.index(known) + 1]
        met[installation] = [*words, word][-WORDS:]
        before = [each for each in self.told.get("order", ()) if each in met and each != installation]
        order = [*sorted(each for each in met if each not in before and each != installation), *before]
        idle = [each for each in order if not any(is_of(mark, each) for mark in self.marks)]
        for each in idle[: max(0, len(met) - INSTALLATIONS)]:
            del met[each]
        self.told["order"] = [*(each for each in order if each in met), installation]

    def doubt(self, reason: str, installation: str = "") -> None:
        """No mark (of this installation, or of any) that has begun tells all that was written since: it records from
        the era 0 on, which is everything, and is believed no longer."""
        era = int(self.told["seen"])
        kept = {
            name: begun if begun > era or (installation and not is_of(name, installation)) else 0
            for name, begun in self.marks.items()
        }
        self.told.update(marks=kept, reason=reason)

    def write(self) -> None:
        """Durable when it returns. Raises ``OSError``."""
        text = json.dumps(self.told, sort_keys=True).encode("ascii")
        if len(text) > _LONGEST:
            raise OSError("the ledger of %s is too long" % self.path)
        self._number += 1
        packed = _HEAD.pack(_MAGIC, self._number, len(text), zlib.crc32(text)) + text
        descriptor = os.open(self.path, os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.lseek(descriptor, _PLACES[self._number % 2], os.SEEK_SET)
            if os.write(descriptor, packed) != len(packed):
                raise OSError("the ledger of %s could not be written" % self.path)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def is_of(mark: str, installation: str) -> bool:
    return mark.startswith("headstart-%s-" % installation)


def read(path: str) -> Ledger:
    """Raises ``Unreadable``."""
    found = []
    try:
        with diskread.DiskReader(path) as reader:
            for place in _PLACES:
                content = bytes(reader.read(place, diskread.LONGEST))
                magic, number, length, digest = _HEAD.unpack_from(content)
                text = content[_HEAD.size : _HEAD.size + length]
                if magic == _MAGIC and length <= _LONGEST and zlib.crc32(text) == digest:
                    found.append((number, text))
    except OSError as error:
        raise Unreadable("%s cannot be read: %s" % (path, error)) from None
    if not found:
        raise Unreadable("%s is not the companion of a filter" % path)
    number, text = max(found)
    return Ledger(path, json.loads(text.decode("ascii")), number)
