"""What a rehearsal can ask the guest, through qemu-guest-agent. The list is fixed: a policy names checks, and nobody
can have commands of his own run in a guest by it.

======================  ================================================================
``filesystems``         at least one file system with a device is mounted
``file:/PATH``          there is such a file, and it can be read
``port:NUMBER``         something listens on this TCP port
``service:NAME``        systemd says that the unit is active
======================  ================================================================
"""

from __future__ import annotations

import base64
import binascii
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from headstart import errors, plain
from headstart.restore.rehearsing.stage import Asked

FILESYSTEMS = "filesystems"
#: Of one question to the guest, and of a command in it.
ASK_SECONDS = 15.0
_POLL_SECONDS = 0.2
#: A table of connections may be long; so much of it is read.
_FILE_LIMIT = 1 << 20
_READ = 1 << 16
_LISTENS = "0A"
_UNIT = re.compile(r"[A-Za-z0-9:_.@\\-]{1,255}")
_ANSWER_LIMIT = 200


@dataclass(frozen=True, slots=True)
class Answer:
    """``said``: what the guest answered, as a person may read it."""

    passed: bool
    said: str


def check_name(name: str) -> str:
    """``name`` itself; ``Usage`` when it names no check."""
    kind, _, value = name.partition(":")
    valid = {
        FILESYSTEMS: not value,
        "file": value.startswith("/"),
        "port": re.fullmatch(r"[0-9]{1,5}", value) is not None and 0 < int(value) < 65536,
        "service": _UNIT.fullmatch(value) is not None,
    }
    if not valid.get(kind, False):
        raise errors.Usage(f"{name!r} is no check: there are filesystems, file:/PATH, port:NUMBER and service:NAME.")
    return name


def ask(qga: Asked, name: str) -> Answer:
    """The answer to one check. What the agent refuses has not passed."""
    kind, _, value = name.partition(":")
    try:
        return _ASKED[kind](qga, value)
    except errors.Unreachable as error:
        return Answer(False, plain.line(str(error), _ANSWER_LIMIT))


def _filesystems(qga: Asked, _: str) -> Answer:
    told = qga.execute("guest-get-fsinfo", ASK_SECONDS)
    found = [str(each.get("mountpoint")) for each in told if isinstance(each, dict)] if isinstance(told, list) else []
    return Answer(bool(found), plain.line(", ".join(sorted(found)), _ANSWER_LIMIT) or "none is mounted")


def _file(qga: Asked, path: str) -> Answer:
    _read(qga, path, 1)
    return Answer(True, "it is there")


def _port(qga: Asked, number: str) -> Answer:
    wanted = f"{int(number):04X}"
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        try:
            text = _read(qga, table, _FILE_LIMIT).decode("ascii", "replace")
        except errors.Unreachable:
            continue  # without IPv6 there is no such table
        for words in map(str.split, text.splitlines()):
            if len(words) > 3 and words[1].rpartition(":")[2] == wanted and words[3] == _LISTENS:
                return Answer(True, "something listens")
    return Answer(False, "nothing listens")


def _service(qga: Asked, name: str) -> Answer:
    said = _run(qga, "systemctl", "is-active", "--", name)
    return Answer(said == "active", plain.line(said, _ANSWER_LIMIT) or "nothing")


_ASKED: Mapping[str, Callable[[Asked, str], Answer]] = {
    FILESYSTEMS: _filesystems,
    "file": _file,
    "port": _port,
    "service": _service,
}


def _read(qga: Asked, path: str, most: int) -> bytes:
    handle = qga.execute("guest-file-open", ASK_SECONDS, {"path": path, "mode": "r"})
    try:
        content = b""
        while len(content) < most:
            count = min(_READ, most - len(content))
            told = _table(qga.execute("guest-file-read", ASK_SECONDS, {"handle": handle, "count": count}))
            part = _decoded(told.get("buf-b64", ""))
            content += part
            if told.get("eof") or not part:
                break
        return content
    finally:
        qga.execute("guest-file-close", ASK_SECONDS, {"handle": handle})


def _run(qga: Asked, *words: str) -> str:
    """What a program of the guest's has written, without the white space around it."""
    arguments = {"path": words[0], "arg": list(words[1:]), "capture-output": True}
    pid = _table(qga.execute("guest-exec", ASK_SECONDS, arguments)).get("pid")
    deadline = time.monotonic() + ASK_SECONDS
    while True:
        told = _table(qga.execute("guest-exec-status", ASK_SECONDS, {"pid": pid}))
        if told.get("exited"):
            return _decoded(told.get("out-data", "")).decode(errors="replace").strip()
        if time.monotonic() > deadline:
            raise errors.Unreachable(f"'{' '.join(words)}' does not end in the guest")
        time.sleep(_POLL_SECONDS)


def _table(told: Any) -> Mapping[str, Any]:
    if not isinstance(told, dict):
        raise errors.Unreachable("the guest agent gave an answer of another kind")
    return told


def _decoded(text: Any) -> bytes:
    try:
        return base64.b64decode(text)
    except (binascii.Error, TypeError, ValueError):
        raise errors.Unreachable("the guest agent gave an answer of another kind") from None
