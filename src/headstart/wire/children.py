"""Programs that serve us as children."""

from __future__ import annotations

import subprocess

END_SECONDS = 5.0


def end(process: subprocess.Popen[bytes], seconds: float = END_SECONDS) -> None:
    """In good order if it can be within these seconds, and in any case."""
    process.terminate()
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
