"""What a guest sends: frames, messages, maps, figures, whole conversations; and what its kernel tells the agent."""

from __future__ import annotations

import contextlib
import dataclasses
import secrets
import socket
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

from headstart import errors
from headstart.agentd import devicemapper, frames, layout, messages, mounts, segments
from headstart.agentd.frames import Decoder, Frame
from headstart.agentd.messages import Malformed
from headstart.agentd.session import Session
from headstart.agentd.work import Refused as RefusedByAgent
from headstart.extents import Extent
from headstart.guest import channel as channels
from headstart.guest import devices, mapping, volumes
from headstart.guest.channel import Channel, Lost
from headstart.guest.devices import GuestMap
from headstart.guest.freezing import AgentFreezer
from headstart.guest.reader import AgentReader
from headstart.hypervisor.inventory import Disk
from headstart.load import inside

LONGEST = 600
PATIENCE = 16


def stream(data: bytes) -> None:
    """The first byte says how the rest is cut. Frames are what was sent, however it is cut, in bounded memory."""
    step, told = data[:1], data[1 : 3 * LONGEST]
    whole = list(Decoder(LONGEST, PATIENCE).feed(told))
    decoder = Decoder(LONGEST, PATIENCE)
    found: list[Frame] = []
    for start in range(0, len(told), (step or b"\0")[0] + 1):
        found += decoder.feed(told[start : start + (step or b"\0")[0] + 1])
        assert len(decoder._pending) <= LONGEST + frames.HEADER_SIZE
    assert found == whole
    position = 0
    for frame in found:
        # The reserved bytes of a header may be anything.
        position = told.index(frame.payload, position) + len(frame.payload)


def payload(data: bytes) -> None:
    """The first byte chooses the kind."""
    kinds: tuple[tuple[Callable[[bytes], Any], Callable[[Any], bytes] | None], ...] = (
        (messages.unpack_credit, messages.pack_credit),
        (messages.unpack_span, messages.pack_span),
        (messages.unpack_position, lambda found: messages.pack_position(found[0]) + found[1]),
        (messages.unpack_read, None),
        (messages.unpack_json, None),
    )
    unpack, pack = kinds[(data[:1] or b"\0")[0] % len(kinds)]
    try:
        found = unpack(data[1:])
    except Malformed:
        return
    if pack is not None:
        assert pack(found) == data[1:]
    elif unpack is messages.unpack_read:
        # JSON has many ways to say the same. What is no number is not the same as itself.
        assert messages.unpack_read(messages.pack_read(found)).spans == found.spans


DISK = Disk("system", 1 << 20, "raw", serial="serial", wwn="5000c500", pci="0000:00:04.0")
#: Names that are looked for in a map.
NAMES = ("/", "/srv/data/x", "/dev/vda1", "vda", "vg/home", "mapper/vg-home", "", "/dev/", "..")


def described(data: bytes) -> None:
    """A map: all that is done with one."""
    try:
        guest = devices.parse(messages.unpack_json(data))
    except (Malformed, Lost):
        return
    mapping.candidates(DISK, guest)
    for name in NAMES:
        with contextlib.suppress(errors.NotFound, errors.Unsupported):
            volumes.find(guest, name)
    for disk in guest.disks:
        volumes.on_disk(guest, disk.name)
    _printable(guest)
    for volume in guest.volumes:
        if volume.segments and len(volume.segments) < 50:
            _there_and_back(volume.segments)


def _printable(guest: GuestMap) -> None:
    shown: list[Any] = [*guest.disks, *guest.mounts]
    for each in shown:
        for value in dataclasses.astuple(each):
            assert not isinstance(value, str) or value.isprintable()


def _there_and_back(table: tuple[segments.Segment, ...]) -> None:
    """A few bytes of a volume are found again from their place on the disk."""
    for segment in table:
        wanted = [(segment.start, min(segment.length, 3 * (segment.chunk or 1)))]
        if len(segment.stripes) > 64:
            continue
        for run in segments.runs([segment], wanted):
            found = list(segments.back([segment], run.disk, [(run.start, 1)]))
            assert any(each.volume == run.volume for each in found)
        lower = {segment.stripes[0].disk: [segments.Segment(0, 1 << 20, (segments.Stripe("below", 7),))]}
        segments.compose([segment], lower)


def figures(data: bytes) -> None:
    """Two tellings, one after the other."""
    before, _, after = data.partition(b"\n")
    try:
        told = [messages.unpack_json(each) for each in (before, after)]
    except Malformed:
        return
    found = inside.signals(5.0, *told)
    assert all(0 <= value <= 1 for value in found.values.values())
    assert set(found.values) | set(found.missing) == set(inside.NAMES)


# -- conversations


def _told(data: bytes) -> Iterator[tuple[int, int, bytes]]:
    """Kind, request and payload of frames: one byte, one byte, two for the length."""
    position = 0
    while position + 4 <= len(data):
        kind, request = data[position], data[position + 1]
        length = int.from_bytes(data[position + 2 : position + 4], "big")
        yield kind, request, data[position + 4 : position + 4 + length]
        position += 4 + length


SESSION = 7


def _consume(reader: AgentReader) -> None:
    for piece in reader.read([Extent(0, 9), Extent(16, 8)]):
        piece.release()


#: What the host asks of the guest: a round's reads, a map, figures, a freeze.
ASKED: tuple[Callable[[Channel], object], ...] = (
    lambda channel: devices.parse(channel.ask("map")),
    lambda channel: _consume(AgentReader(channel, {}, 1 << 20)),
    lambda channel: channel.newest(channel.follow("figures")),
    lambda channel: AgentFreezer(channel).freeze(0.1, []),
    lambda channel: AgentFreezer(channel).thaw(0.1),
    lambda channel: mapping._ask(channel, "vda", [Extent(0, 9)], b"k", mapping.Patience()),
)


def conversation(data: bytes) -> None:
    """The guest has said everything, and is gone: what the host makes of it."""
    ours, theirs = socket.socketpair()
    sent = b"".join(frames.encode(kind, SESSION, request, told) for kind, request, told in _told(data[1:]))
    chosen = ASKED[(data[:1] or b"\0")[0] % len(ASKED)]
    with theirs, mock.patch.object(secrets, "randbits", return_value=SESSION):
        theirs.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            theirs.send(sent)
        theirs.shutdown(socket.SHUT_WR)
        with contextlib.suppress(Lost, channels.Refused), Channel(ours, seconds=0.1) as channel:
            chosen(channel)
    assert ours.fileno() < 0


def _session(sent: list[bytes]) -> Session:
    def read(session: Session, request: int, told: bytes) -> Any:
        messages.unpack_read(told)
        raise RefusedByAgent(messages.WRONG, "nothing is read here")

    def file(position: int, content: bytes) -> None:
        sent.append(content)

    handlers = {"map": lambda session, request, told: {"disks": [told.get("x")]}}
    return Session(handlers, read, file, lambda: {"protocols": [1, 1]}, lambda told: told.get("secret") != "wrong")


def asked(data: bytes) -> None:
    """The agent's end, whoever is at the other one: what it answers can be understood."""
    session = _session([])
    session.receive(b"".join(frames.encode(kind, SESSION, request, told) for kind, request, told in _told(data)))
    answers = list(Decoder(frames.FROM_GUEST).feed(b"".join(bytes(each) for each in session.outbox)))
    for answer in answers:
        messages.unpack_json(answer.payload)


# -- what the guest's kernel tells


def table(data: bytes) -> None:
    """The answer of device-mapper to a question for a table."""
    try:
        targets = devicemapper.targets(data[1:], 0, data[0] if data else 0)
        found = layout.mapped(targets, {"8:0": "sda", "8:1": "sda1"})
    except ValueError:
        return
    for segment in found or ():
        assert len(segment.stripes) == 1 or segment.chunk
        segments.compose([segment], {"sda": [segments.Segment(0, 1 << 20, (segments.Stripe("below", 7),))]})


def mounted(data: bytes) -> None:
    for mount in mounts.parse(data.decode("utf-8", "surrogateescape")):
        messages.pack_json(mount._asdict())


TARGETS: dict[str, Callable[[bytes], None]] = {
    "frames": stream,
    "messages": payload,
    "map": described,
    "figures": figures,
    "channel": conversation,
    "session": asked,
    "devicemapper": table,
    "mounts": mounted,
}
