"""stdout and stderr, whose readers may be gone."""

from __future__ import annotations

import os
import sys
from typing import TextIO


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
