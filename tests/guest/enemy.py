"""An agent that is an enemy: agentd's own session and loop, behind a unix socket, with one vice.

``python -m tests.guest.enemy SOCKET VICE NAME=FILE...`` is one of its own, whose disks are files.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from headstart.agentd import frames, loop, messages, reading, release
from headstart.agentd.diskread import DiskReader
from headstart.agentd.frames import Buffer
from headstart.agentd.links import Gone
from headstart.agentd.session import Session
from headstart.agentd.work import Refused, Work
from headstart.guest import package
from tests.agentd.served import PairLink

#: The unit in which content is false: that of the simulated VM.
BLOCK = 4096


@dataclass(frozen=True, slots=True)
class Held:
    """A disk of the guest: its serial number, and its bytes at this moment."""

    serial: str
    content: Callable[[], bytes]


Disks = Mapping[str, Held]


class Honest:
    """No vice: what every other one does except for one thing."""

    def welcome(self, enemy: Conversation, told: dict[str, Any]) -> dict[str, Any]:
        return told

    def map(self, told: dict[str, Any]) -> dict[str, Any]:
        return told

    def device(self, name: str) -> str:
        """Which one is read where this one was asked for."""
        return name

    def digests(self, told: list[str]) -> list[str]:
        return told

    def place(self, start: int) -> int:
        """Where is read what this address is to have."""
        return start

    def content(self, start: int, data: bytes) -> bytes:
        return data

    def asked(self, enemy: Conversation, request: int, do: str) -> None:
        """Before an ASK is answered. Raises ``Refused``."""

    def send(self, enemy: Conversation, request: int, kind: int, *payload: Buffer) -> None:
        enemy.tell(request, kind, *payload)


class Conversation(Session):
    """A session with a host at the other end of ``link``. ``reads`` counts requests for content."""

    def __init__(self, link: socket.socket, vice: Honest, disks: Disks) -> None:
        self.link = link
        self.vice = vice
        self.disks = disks
        self.reads = 0
        told = {
            "protocols": list(release.PROTOCOLS),
            "release": release.RELEASE,
            "sources": package.digest(package.sources()),
        }
        super().__init__(
            {"map": _map, "hash": _hash, "renew": _renew, "install": _install},
            _read,
            lambda position, data: None,
            lambda: vice.welcome(self, told),
            lambda told: True,
        )

    def tell(self, request: int, kind: int, *payload: Buffer) -> None:
        super().send(request, kind, *payload)

    def send(self, request: int, kind: int, *payload: Buffer) -> None:
        self.vice.send(self, request, kind, *payload)

    def held(self, name: object) -> Held:
        if not isinstance(name, str) or name not in self.disks:
            raise Refused(messages.WRONG, f"there is no block device {name!r}")
        return self.disks[self.vice.device(name)]


class _Reader(DiskReader):
    def __init__(self, held: Held, vice: Honest) -> None:
        self._held, self._vice = held, vice
        self.size, self.sector = len(held.content()), 512

    def read(self, start: int, length: int) -> memoryview:
        place = self._vice.place(start)
        return memoryview(self._vice.content(start, self._held.content()[place : place + length]))

    def close(self) -> None:
        pass


class _Names:
    """What ``reading.plan`` asks a layout."""

    def __init__(self, enemy: Conversation) -> None:
        self._enemy = enemy

    def require(self, name: object) -> str:
        self._enemy.held(name)
        return str(name)


def _of(session: Session) -> Conversation:
    assert isinstance(session, Conversation)
    return session


def _map(session: Session, request: int, told: dict[str, Any]) -> dict[str, Any]:
    enemy = _of(session)
    enemy.vice.asked(enemy, request, "map")
    disks = [
        {"name": name, "size": len(held.content()), "serial": held.serial, "wwn": "", "pci": ""}
        for name, held in enemy.disks.items()
    ]
    return enemy.vice.map({"disks": disks, "volumes": [], "mounts": []})


def _hash(session: Session, request: int, told: dict[str, Any]) -> dict[str, Any]:
    """Its disks are read as they are: what is proved is true."""
    enemy = _of(session)
    enemy.vice.asked(enemy, request, "hash")
    enemy.held(told["device"])
    content, key = enemy.disks[told["device"]].content(), bytes.fromhex(told["key"])
    found = [
        hashlib.blake2b(content[start : start + length], digest_size=32, key=key).hexdigest()
        for start, length in told["spans"]
    ]
    return {"digests": enemy.vice.digests(found)}


def _renew(session: Session, request: int, told: dict[str, Any]) -> dict[str, Any]:
    return {}


def _install(session: Session, request: int, told: dict[str, Any]) -> Work:
    """It never comes to that."""
    return Work()


def _read(session: Session, request: int, payload: bytes) -> Work:
    enemy = _of(session)
    enemy.reads += 1
    enemy.vice.asked(enemy, request, "read")
    runs = reading.plan(messages.unpack_read(payload), _Names(enemy))
    return reading.Reading(
        runs,
        lambda name: _Reader(enemy.held(name), enemy.vice),
        lambda kind, *parts: enemy.send(request, kind, *parts),
    )


class Enemy:
    """Serves whoever connects; a context manager."""

    def __init__(self, path: Path, vice: Honest, disks: Disks) -> None:
        self.vice = vice
        self.address = str(path)
        self._disks = disks
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen(64)
        self.conversations: list[Conversation] = []

    @property
    def reads(self) -> int:
        return sum(each.reads for each in self.conversations)

    def serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                link, _ = self._listener.accept()
                talk = Conversation(link, self.vice, self._disks)
                self.conversations.append(talk)
                threading.Thread(target=_talk, args=(talk,), daemon=True).start()

    def __enter__(self) -> Enemy:
        threading.Thread(target=self.serve, daemon=True).start()
        return self

    def __exit__(self, *details: object) -> None:
        # Closing alone does not wake who waits there.
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        Path(self.address).unlink()


def _talk(talk: Conversation) -> None:
    with talk.link, contextlib.suppress(Gone, OSError):
        loop.serve(_Link(talk.link), talk)


class _Endless:
    """Something to be written that has no end: ``more`` of it, again and again."""

    def __init__(self, more: bytes) -> None:
        self.more = more


class _Link(PairLink):
    def write(self, data: Any) -> int:
        if not isinstance(data, _Endless):
            return super().write(data)
        self._end.settimeout(None)
        while True:
            try:
                self._end.sendall(data.more)
            except OSError as error:
                raise Gone(str(error)) from None


# -- vices: false content, by the protocol's rules


class FalseContent(Honest):
    """Of each ``every`` blocks one is false."""

    def __init__(self, every: int = 1) -> None:
        self._every = every

    def content(self, start: int, data: bytes) -> bytes:
        found = bytearray(data)
        for at in range(0, len(found), BLOCK):
            if (start + at) // BLOCK % self._every == 0:
                found[at] ^= 1
        return bytes(found)


class OnlyZeroes(Honest):
    def content(self, start: int, data: bytes) -> bytes:
        return bytes(len(data))


class OldGeneration(Honest):
    """What the disk was at the first read. ``remember`` has it."""

    def __init__(self) -> None:
        self.old = b""

    def content(self, start: int, data: bytes) -> bytes:
        return self.old[start : start + len(data)]


class AnotherDisk(Honest):
    """Each disk is proved as what it is, and read as the other."""

    def device(self, name: str) -> str:
        return {"vda": "vdb", "vdb": "vda"}[name]


class AnotherPlace(Honest):
    """The content of a neighbouring block, under the address that was asked for."""

    def place(self, start: int) -> int:
        return start ^ BLOCK


# -- vices: a false layout


class SwappedNames(Honest):
    """The serial number of each disk stands at the other."""

    def map(self, told: dict[str, Any]) -> dict[str, Any]:
        one, two = told["disks"]
        one["serial"], two["serial"] = two["serial"], one["serial"]
        return told


class ManyDisks(Honest):
    def map(self, told: dict[str, Any]) -> dict[str, Any]:
        told["disks"] = [{**told["disks"][0], "name": f"vd{number}"} for number in range(1000)]
        return told


class NoSense(Honest):
    def map(self, told: dict[str, Any]) -> dict[str, Any]:
        return {"disks": [{"name": -1}], "volumes": 7}


class FalseProof(Honest):
    def digests(self, told: list[str]) -> list[str]:
        return ["0" * 64 for _ in told]


class RefusesAll(Honest):
    def asked(self, enemy: Conversation, request: int, do: str) -> None:
        raise Refused(messages.FAILED, "no")


class RefusesReads(Honest):
    def asked(self, enemy: Conversation, request: int, do: str) -> None:
        if do == "read":
            raise Refused(messages.FAILED, "no")


# -- vices: answers that are none


class _Answering(Honest):
    """Does ``instead`` for each piece of content but the first of a request."""

    def __init__(self) -> None:
        self._begun: set[tuple[int, int]] = set()

    def send(self, enemy: Conversation, request: int, kind: int, *payload: Buffer) -> None:
        key = (id(enemy), request)
        if kind != messages.DATA or key not in self._begun:
            self._begun |= {key} if kind == messages.DATA else set()
            enemy.tell(request, kind, *payload)
        else:
            self.instead(enemy, request, *payload)

    def instead(self, enemy: Conversation, request: int, *payload: Buffer) -> None:
        raise NotImplementedError


class OtherExtents(_Answering):
    def instead(self, enemy: Conversation, request: int, *payload: Buffer) -> None:
        position, content = messages.unpack_position(b"".join(map(bytes, payload)))
        enemy.tell(request, messages.DATA, messages.pack_position(position + BLOCK), content)


class TooMuch(_Answering):
    def instead(self, enemy: Conversation, request: int, *payload: Buffer) -> None:
        for _ in range(2):
            enemy.tell(request, messages.DATA, *payload)


class TooLittle(_Answering):
    def instead(self, enemy: Conversation, request: int, *payload: Buffer) -> None:
        enemy.tell(request, messages.ANSWER, messages.pack_json({"bytes": 0}))


class Nothing(_Answering):
    def instead(self, enemy: Conversation, request: int, *payload: Buffer) -> None:
        pass


class Closes(_Answering):
    def instead(self, enemy: Conversation, request: int, *payload: Buffer) -> None:
        enemy.link.shutdown(socket.SHUT_RDWR)


class Garbage(_Answering):
    def instead(self, enemy: Conversation, request: int, *payload: Buffer) -> None:
        enemy.outbox.append(os.urandom(1 << 16))


class AnotherGeneration(_Answering):
    """Frames of the session before."""

    def instead(self, enemy: Conversation, request: int, *payload: Buffer) -> None:
        enemy.outbox.append(frames.encode(messages.DATA, 12345, request, b"".join(map(bytes, payload))))


# -- vices: without end, once something is read


class _Flood(_Answering):
    """The second piece of content is followed by this, for as long as somebody receives it."""

    def instead(self, enemy: Conversation, request: int, *payload: Buffer) -> None:
        enemy.outbox.append(_Endless(self.flood(enemy, request)))  # type: ignore[arg-type]  # see _Link

    def flood(self, enemy: Conversation, request: int) -> bytes:
        raise NotImplementedError


class UnaskedFrames(_Flood):
    """Of requests never made, as small as there are."""

    def flood(self, enemy: Conversation, request: int) -> bytes:
        return frames.encode(messages.NOTE, _number(enemy), 4711, b"{}") * 2048


class StrangeFrames(_Flood):
    """Of other sessions, as large as there are."""

    def flood(self, enemy: Conversation, request: int) -> bytes:
        return frames.encode(messages.NOTE, 4711, request, bytes(frames.FROM_GUEST))


class NoFrames(_Flood):
    """Bytes that do not even begin like a frame."""

    def flood(self, enemy: Conversation, request: int) -> bytes:
        return bytes(1 << 18)


class UnaskedContent(_Flood):
    def flood(self, enemy: Conversation, request: int) -> bytes:
        return frames.encode(messages.DATA, _number(enemy), 4711, bytes(1 << 18))


class Notes(_Flood):
    """Of the request under way."""

    def flood(self, enemy: Conversation, request: int) -> bytes:
        return frames.encode(messages.NOTE, _number(enemy), request, b'{"a":1}') * 2048


def _number(enemy: Conversation) -> int:
    number = enemy._session
    assert number is not None
    return number


class FloodedGreeting(Honest):
    """Instead of a WELCOME."""

    def welcome(self, enemy: Conversation, told: dict[str, Any]) -> dict[str, Any]:
        enemy.outbox.append(_Endless(frames.encode(messages.NOTE, 4711, 1, b"{}") * 2048))  # type: ignore[arg-type]
        return told


class FloodedMap(Honest):
    """Instead of telling its disks."""

    def asked(self, enemy: Conversation, request: int, do: str) -> None:
        if do == "map":
            enemy.outbox.append(_Endless(bytes(1 << 18)))  # type: ignore[arg-type]  # see _Link


class Crumbs(Honest):
    """Content by a few bytes."""

    def send(self, enemy: Conversation, request: int, kind: int, *payload: Buffer) -> None:
        if kind != messages.DATA:
            enemy.tell(request, kind, *payload)
            return
        position, content = messages.unpack_position(b"".join(map(bytes, payload)))
        for at in range(0, len(content), 64):
            enemy.tell(request, messages.DATA, messages.pack_position(position + at), content[at : at + 64])


class Drips(Honest):
    """A little at a time, and never so late that it would be taken for gone."""

    def __init__(self, seconds: float = 0.2) -> None:
        self._seconds = seconds

    def content(self, start: int, data: bytes) -> bytes:
        time.sleep(self._seconds)
        return data


class NeverRenewed(Honest):
    """An old release that takes whatever it is given, and stays what it is."""

    def welcome(self, enemy: Conversation, told: dict[str, Any]) -> dict[str, Any]:
        return told | {"release": 0}


class HangsUp(Honest):
    """As soon as it was greeted."""

    def welcome(self, enemy: Conversation, told: dict[str, Any]) -> dict[str, Any]:
        raise Gone("by its own will")


FALSE: dict[str, Callable[[], Honest]] = {
    "false content": FalseContent,
    "one false block of eight": lambda: FalseContent(8),
    "only zeroes": OnlyZeroes,
    "an old generation": OldGeneration,
    "another disk": AnotherDisk,
    "another place": AnotherPlace,
}
LAYOUTS: dict[str, Callable[[], Honest]] = {
    "swapped names": SwappedNames,
    "many disks": ManyDisks,
    "no sense": NoSense,
    "a false proof": FalseProof,
    "refuses all": RefusesAll,
    "refuses reads": RefusesReads,
}
ANSWERS: dict[str, Callable[[], Honest]] = {
    "other extents": OtherExtents,
    "too much": TooMuch,
    "too little": TooLittle,
    "nothing": Nothing,
    "closes": Closes,
    "garbage": Garbage,
    "another generation": AnotherGeneration,
    "hangs up": HangsUp,
}
FLOODS: dict[str, Callable[[], Honest]] = {
    "unasked frames": UnaskedFrames,
    "strange frames": StrangeFrames,
    "no frames": NoFrames,
    "unasked content": UnaskedContent,
    "notes": Notes,
    "crumbs": Crumbs,
    "a flooded greeting": FloodedGreeting,
    "a flooded map": FloodedMap,
}
VICES = {"honest": Honest, "drips": Drips, **FALSE, **LAYOUTS, **ANSWERS, **FLOODS}


def main() -> None:
    path, vice, *disks = sys.argv[1:]
    held = {}
    for each in disks:
        name, _, file = each.partition("=")
        held[name] = Held(Path(file).stem, functools.partial(bytes, Path(file).read_bytes()))
    with Enemy(Path(path), VICES[vice](), held) as enemy:
        print("serving", flush=True)
        sys.stdin.read()
        print(len(enemy.conversations), flush=True)


if __name__ == "__main__":
    main()
