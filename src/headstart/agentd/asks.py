"""What can be asked beside reading: each handler answers at once or starts ``Work``."""

import hashlib
from typing import Any, Dict

from headstart.agentd import filtering, messages, reading, trim
from headstart.agentd.diskread import LONGEST, DiskReader
from headstart.agentd.figures import Watching
from headstart.agentd.freezer import Freezer
from headstart.agentd.layout import Layout
from headstart.agentd.session import Handler, Session
from headstart.agentd.work import Refused, Work

#: Bytes that one ``hash`` may ask for.
_HASHED = 16 << 20


def describe(session: Session, request: int, told: Dict[str, Any]) -> Dict[str, Any]:
    """``map``: see ``Layout.describe``."""
    return Layout().describe()


def digest(session: Session, request: int, told: Dict[str, Any]) -> Dict[str, Any]:
    """``hash`` of ``spans`` of a ``device``: BLAKE2b-256 of each, keyed with ``key`` (hex). What READs find under this
    name from then on is this device or none."""
    layout = Layout()
    name = layout.require(told["device"])
    spans = [(int(start), int(length)) for start, length in told["spans"]]
    if sum(length for _, length in spans) > _HASHED or any(not 0 < length <= LONGEST for _, length in spans):
        raise Refused(messages.WRONG, "too much to hash at once")
    key = bytes.fromhex(told["key"])
    session.devices.meet(name)
    with _opened(session, layout, name) as reader:
        found = [hashlib.blake2b(reader.read(*span), digest_size=32, key=key).hexdigest() for span in spans]
    return {"digests": found}


def read(session: Session, request: int, payload: bytes) -> Work:
    """READ: see ``reading.plan``."""
    layout = Layout()
    asked = messages.unpack_read(payload)
    runs = reading.plan(asked, layout)
    if asked.target.get("through") is not None:
        # What is opened is the volume: where it lies was told by the disk's name.
        session.devices.require(asked.target["disk"])
    return reading.Reading(
        runs,
        lambda name: _opened(session, layout, name),
        lambda kind, *parts: session.send(request, kind, *parts),
    )


def _opened(session: Session, layout: Layout, name: str) -> DiskReader:
    """Raises ``OSError``; ``Refused`` if the name has come to another device."""
    reader = DiskReader(layout.path(name), name)
    try:
        session.devices.require(name, reader.fileno())
    except BaseException:
        reader.close()
        raise
    return reader


def watch(session: Session, request: int, told: Dict[str, Any]) -> Work:
    """``figures`` every ``seconds``, in NOTEs, until it is cancelled."""
    return Watching(
        float(told.get("seconds", 1.0)),
        lambda figures: session.send(request, messages.NOTE, messages.pack_json(figures)),
    )


_freezer = Freezer()
HANDLERS: Dict[str, Handler] = {
    "map": describe,
    "hash": digest,
    "figures": watch,
    "trim": trim.trim,
    "freeze": _freezer.freeze,
    "thaw": _freezer.thaw,
    "arm": _freezer.arm,
    "disarm": _freezer.disarm,
    **filtering.HANDLERS,
}
