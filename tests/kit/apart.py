"""The machine's own places (``/etc``, ``/run``, ...), for programs that name them and may not touch them."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path

#: Empty at first, and in memory.
EMPTY = ("/srv", "/run", "/var/lib", "/var/cache", "/var/log")
#: A copy, in memory.
COPIED = ("/etc",)


class Apart:
    """A mount namespace of its own, as long as it is entered: what is written to these places is gone afterwards, and
    nobody outside sees it. The rest of the machine is as it is. Needs root."""

    def __init__(self) -> None:
        self._holder: subprocess.Popen[str] | None = None

    def __enter__(self) -> Apart:
        script = ["set -e"]
        script += [f"mount -t tmpfs -o mode=755 tmpfs {each}" for each in EMPTY]
        for each in COPIED:
            script += [f"mkdir /srv/.copy && cp -a {each}/. /srv/.copy && mount -t tmpfs -o mode=755 tmpfs {each}"]
            script += [f"cp -a /srv/.copy/. {each} && rm -r /srv/.copy"]
        # Ends when nobody holds the other end any longer.
        script += ["echo ready", "exec cat"]
        self._holder = subprocess.Popen(
            ["unshare", "--mount", "--propagation", "private", "sh", "-c", "\n".join(script)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._holder.stdout is not None
        assert self._holder.stdout.readline() == "ready\n", "there is no mount namespace to be had"
        return self

    @property
    def _process(self) -> str:
        assert self._holder is not None
        return f"/proc/{self._holder.pid}"

    @property
    def within(self) -> Sequence[str]:
        """In front of a command: it runs there."""
        return ("nsenter", f"--mount={self._process}/ns/mnt", "--")

    def path(self, inside: str) -> Path:
        """How a file in there is called from here."""
        return Path(f"{self._process}/root{inside}")

    def __exit__(self, *details: object) -> None:
        assert self._holder is not None and self._holder.stdin is not None
        self._holder.stdin.close()
        self._holder.wait(30)
        if self._holder.stdout is not None:
            self._holder.stdout.close()
