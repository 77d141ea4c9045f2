"""stdin, stdout and stderr, which may be closed, and whose readers may be gone."""

from __future__ import annotations

import os
import sys
from typing import TextIO

#: The number of stderr.
_LAST = 2


def open_closed() -> None:
    """Whoever starts a program may have closed some of the three. The next file that is opened would get the number,
    and what is meant for the user would be written into it."""
    while (fresh := os.open(os.devnull, os.O_RDWR)) <= _LAST:
        os.set_inheritable(fresh, True)
    os.close(fresh)
    # Python has None for those.
    sys.stdin = sys.stdin or os.fdopen(0, closefd=False)
    sys.stdout = sys.stdout or os.fdopen(1, "w", closefd=False)
    sys.stderr = sys.stderr or os.fdopen(2, "w", errors="backslashreplace", closefd=False)


def tell(line: str) -> None:
    """On stderr. That nobody is there to read it must not end what is under way."""
    try:
        sys.stderr.write(f"{line}\n")
        sys.stderr.flush()
    except OSError:
        silence(sys.stderr)


def silence(stream: TextIO) -> None:
    """What is still buffered must not be tried again: at its end the interpreter would complain of it."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, stream.fileno())
    os.close(nowhere)
