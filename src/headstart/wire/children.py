"""Programs that serve us as children."""

from __future__ import annotations

import subprocess

END_SECONDS = 5.0


def end(process: subprocess.Popen[bytes]) -> None:
    """In good order if it can be, and in any case."""
    process.terminate()
    try:
        process.wait(END_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
