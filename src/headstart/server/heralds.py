"""Processes that send: each of them ends, whatever it meets."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Sequence
from typing import Any

from headstart import errors

#: Those of apprise that only send over the network.
SCHEMES = frozenset(
    [
        *("mailto", "mailtos", "json", "jsons", "xml", "xmls", "form", "forms", "ntfy", "ntfys", "gotify", "gotifys"),
        *("slack", "discord", "workflow", "workflows", "matrix", "matrixs", "mmost", "mmosts"),
        *("rocket", "rockets"),
        *("zulip", "gchat", "tgram", "signal", "signals", "pover", "pagerduty", "opsgenie", "wxteams", "apprise"),
        *("apprises", "pbul", "nctalk", "nctalks"),
    ]
)
SECONDS = 60.0
#: At a time, of each server process: each takes about 100 MB.
_MOST = 2
_ROOM_SECONDS = 10.0
_room = threading.BoundedSemaphore(_MOST)


def refusal(url: str) -> str:
    """Why it is not even tried; empty: it is."""
    if url.partition("://")[0].lower() in SCHEMES:
        return ""
    return f"No address of a kind that can be told: one of {', '.join(sorted(SCHEMES))}."


def check(urls: Sequence[str]) -> list[str]:
    """Of each why it is no address; empty: it is one. Raises ``TooOften``."""
    found = [refusal(url) for url in urls]
    return found if any(found) else _ask(urls, {"check": True})


def send(urls: Sequence[str], title: str, body: str, *, private: bool) -> list[str]:
    """Of each why it did not take it; empty: it did. ``private``: it may lead anywhere. Raises ``TooOften``."""
    return _ask(urls, {"title": title, "body": body, "private": private})


def _ask(urls: Sequence[str], asked: dict[str, Any]) -> list[str]:
    if not _room.acquire(timeout=_ROOM_SECONDS):
        raise errors.TooOften("Others are being told just now. Try again.", seconds=30)
    try:
        return _run(urls, asked)
    finally:
        _room.release()


def _run(urls: Sequence[str], asked: dict[str, Any]) -> list[str]:
    command = [sys.executable, "-P", "-m", "headstart.server.herald"]
    # No secret of the server's environment is there to be found.
    environment = {name: os.environ[name] for name in ("PATH", "PYTHONPATH", "LANG") if name in os.environ}
    given = json.dumps({**asked, "urls": list(urls)})
    try:
        done = subprocess.run(
            command, input=given, capture_output=True, text=True, timeout=SECONDS, env=environment, cwd="/"
        )
        results = json.loads(done.stdout)["results"]
    except subprocess.TimeoutExpired:
        return ["It took too long."] * len(urls)
    except (OSError, ValueError, KeyError):
        return ["It could not be told."] * len(urls)
    return [str(each) for each in results]
