"""One session at a time: what may be asked, and that nothing that is asked ends the agent."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from headstart.agentd import asks, frames, messages
from headstart.agentd.session import MOST, Session
from headstart.agentd.work import Refused, Work
from headstart.units import KIB, MIB
from tests.agentd import served
from tests.agentd.served import Host

SIZE = 3 * MIB + 512
TARGET = {"disk": "vda"}


class Waiting(Work):
    """Never ends by itself."""

    ended = False

    def cancel(self) -> None:
        self.ended = True


waiting: list[Waiting] = []


def wait(session: Session, request: int, told: dict[str, Any]) -> Work:
    waiting.append(Waiting())
    return waiting[-1]


def echo(session: Session, request: int, told: dict[str, Any]) -> dict[str, Any]:
    return told


def much(session: Session, request: int, told: dict[str, Any]) -> dict[str, Any]:
    return {"much": "x" * frames.FROM_GUEST}


class Failing(Work):
    due = 0.0

    def step(self, now: float) -> None:
        raise ZeroDivisionError("a bug")


def fail(session: Session, request: int, told: dict[str, Any]) -> Work:
    raise {"refused": Refused("own", "x"), "bug": ZeroDivisionError("a bug"), "os": OSError(5, "x")}[told["how"]]


HANDLERS: dict[str, Any] = {
    "wait": wait,
    "echo": echo,
    "much": much,
    "fail": fail,
    "later": lambda session, request, told: Failing(),
}


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "image"
    path.write_bytes(bytes(range(1, 252)) * (SIZE // 251 + 1))
    with path.open("r+b") as file:
        file.truncate(SIZE)
    return path


@pytest.fixture
def link(image: Path) -> Iterator[socket.socket]:
    waiting.clear()
    with served.agent({"vda": image}, handlers=HANDLERS) as link:
        yield link


host = served.host


def test_a_welcome_comes_after_a_preamble_and_says_who_is_there(link: socket.socket) -> None:
    host = Host(link)
    host.tell(messages.HELLO, 1)
    received = bytearray()
    while len(received) < frames.FROM_GUEST + frames.HEADER_SIZE:
        received += link.recv(frames.FROM_GUEST + frames.HEADER_SIZE - len(received))
    assert not any(received)
    told = messages.unpack_json(host.next().payload)
    assert {"protocols", "release", "sources"} <= set(told)


def test_one_frame_of_another_session_is_refused_and_those_of_ours_go_on(link: socket.socket, host: Host) -> None:
    stale = Host(link, number=8)
    stale.tell(messages.ASK, 2, do="echo")
    refused = host.next()
    assert (refused.kind, refused.session, refused.request) == (messages.REFUSAL, 8, 2)
    assert messages.unpack_json(refused.payload)["code"] == messages.STRANGE
    host.tell(messages.ASK, 2, do="echo")
    assert host.next().kind == messages.ANSWER


def test_a_restarted_agent_is_understood_by_who_waits_for_the_rest_of_a_frame(link: socket.socket) -> None:
    """Its refusal would be swallowed as a part of the content that the agent before it had announced."""
    host = Host(link)
    half = frames.encode(messages.DATA, 7, 1, b"x" * messages.PIECE)[:100]
    assert not list(host._decoder.feed(half))
    for _ in range(3):
        host.send(messages.CREDIT, 0, messages.pack_credit(0))
    assert messages.unpack_json(host.next().payload)["code"] == messages.STRANGE


def test_a_new_session_ends_the_one_before(link: socket.socket, host: Host) -> None:
    host.tell(messages.ASK, 5, do="wait")
    host.read(2, TARGET, (0, SIZE), credit=64 * KIB)
    second = Host(link, number=8)
    second.hello()
    assert waiting[0].ended
    assert second.quiet(), "content or credit of the old session"
    second.read(2, TARGET, (0, SIZE), credit=16 * MIB)
    assert sum(map(len, second.content(2)[0].values())) == SIZE
    host.tell(messages.ASK, 3, do="echo")
    assert second.next().session == 7


def test_a_second_hello_of_the_same_session_begins_it_anew(host: Host) -> None:
    host.tell(messages.ASK, 5, do="wait")
    host.hello()
    assert waiting[0].ended
    host.tell(messages.ASK, 5, do="echo")
    assert host.next().kind == messages.ANSWER


@pytest.mark.parametrize("cut_off", [0, 1, 40, 20_000], ids=str)
def test_a_host_that_was_cut_off_in_the_middle_of_a_frame(link: socket.socket, cut_off: int) -> None:
    host = Host(link)
    host.raw(frames.encode(messages.FILE, 6, 1, bytes(frames.TO_GUEST))[:cut_off])
    host.raw(frames.preamble(frames.TO_GUEST))
    host.hello()


def test_too_many_requests_and_the_same_number_twice(host: Host) -> None:
    for request in range(MOST):
        host.tell(messages.ASK, request, do="wait")
    host.tell(messages.ASK, MOST, do="echo")
    assert host.refusal(MOST) == messages.WRONG
    host.send(messages.CANCEL, 0)
    assert host.refusal(0) == messages.CANCELLED
    assert waiting[0].ended
    host.tell(messages.ASK, 3, do="echo")
    assert host.refusal(3) == messages.WRONG
    host.tell(messages.ASK, MOST, do="echo")
    assert host.next().kind == messages.ANSWER


def test_to_cancel_what_is_not_there_is_not_answered(host: Host) -> None:
    host.send(messages.CANCEL, 99)
    assert host.quiet()


@pytest.mark.parametrize(
    ("told", "code"),
    [
        ({}, messages.UNKNOWN),
        ({"do": None}, messages.UNKNOWN),
        ({"do": ["map"]}, messages.UNKNOWN),
        ({"do": "nothing of ours"}, messages.UNKNOWN),
        ({"do": "much"}, messages.FAILED),
        ({"do": "fail", "how": "refused"}, "own"),
        ({"do": "fail", "how": "os"}, messages.FAILED),
        ({"do": "fail", "how": "bug"}, messages.WRONG),
        ({"do": "later"}, messages.WRONG),
        ({"do": "hash"}, messages.WRONG),
        ({"do": "hash", "device": "no such", "spans": [[0, 1]], "key": ""}, messages.WRONG),
        ({"do": "hash", "device": "../../etc/passwd", "spans": [[0, 1]], "key": ""}, messages.WRONG),
        ({"do": "hash", "device": {}, "spans": 5, "key": []}, messages.WRONG),
    ],
    ids=str,
)
def test_asks_that_come_to_nothing(host: Host, told: dict[str, Any], code: str) -> None:
    host.tell(messages.ASK, 2, **told)
    assert host.refusal(2) == code
    host.tell(messages.ASK, 3, do="echo")
    assert host.next().kind == messages.ANSWER


@pytest.mark.parametrize("kind", [messages.WELCOME, messages.NOTE, messages.DATA, 0, 200, 255])
def test_kinds_that_nobody_sends_here(host: Host, kind: int) -> None:
    host.send(kind, 2, b"{}")
    assert host.refusal(2) == messages.UNKNOWN


KINDS = st.sampled_from([*range(14), 255])
PAYLOADS = st.one_of(
    st.binary(max_size=60),
    st.sampled_from(
        [
            b"Infinity",
            b'{"do":"hash","device":"vda","spans":[[1e999,1]],"key":""}',
            b'{"do":"hash","device":"vda","spans":[[18446744073709551616,1]],"key":""}',
            b"\0\2{}" + messages.pack_span((2**64 - 1, 2**64 - 1)),
            messages.pack_read(messages.Read({"disk": "vda", "through": ["x"]}, [(0, 1)])),
            messages.pack_read(messages.Read({"device": {"a": 1}}, [(0, 1)])),
            messages.pack_read(messages.Read({"device": "vda"}, [(2**63, 2**63)])),
        ]
    ),
    st.recursive(st.none() | st.integers() | st.text(max_size=5), lambda inner: st.lists(inner, max_size=3)).map(
        lambda value: json.dumps({"do": "hash", "device": value, "spans": value, "key": value}).encode()
    ),
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(sent=st.lists(st.tuples(KINDS, st.integers(0, 3), PAYLOADS), max_size=8))
def test_nothing_that_is_sent_ends_the_agent(link: socket.socket, sent: list[tuple[int, int, bytes]]) -> None:
    host = Host(link)
    host.hello()
    for kind, request, payload in sent:
        host.send(kind, request, payload)
    host.hello()
    host.tell(messages.ASK, 77, do="echo")
    while (frame := host.next()).request != 77:
        pass
    assert frame.kind == messages.ANSWER


def test_the_asks_of_a_guest_answer_here_too(host: Host) -> None:
    """This machine has some block devices, or none."""
    host.tell(messages.ASK, 2, do="map")
    assert set(messages.unpack_json(host.next().payload)) == {"disks", "volumes", "mounts"}
    assert set(asks.HANDLERS) >= {"map", "hash"}


@pytest.mark.parametrize("do", ["hash"])
@pytest.mark.parametrize(
    "spans", ["[[1e999,1]]", "[[NaN,1]]", "[[1180591620717411303424,1]]", "[[-1,1]]", "[[0]]", "[[0,0]]", "[[0,1e8]]"]
)
def test_numbers_that_are_none(host: Host, do: str, spans: str) -> None:
    device = next(iter(sorted(path.name for path in Path("/sys/class/block").glob("*"))), "none")
    text = f'{{"do":"{do}","device":"{device}","key":"00","spans":{spans}}}'
    host.send(messages.ASK, 2, text.encode())
    assert host.refusal(2) in (messages.WRONG, messages.FAILED)
