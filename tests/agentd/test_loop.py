"""Who comes first when there is much to do, and that nothing is done without need."""

from __future__ import annotations

import contextlib
import random
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from headstart.agentd import loop, messages
from headstart.agentd.diskread import LONGEST
from headstart.agentd.links import Gone, Link
from headstart.agentd.messages import PIECE
from headstart.agentd.session import Session
from headstart.agentd.work import Work
from headstart.units import MIB
from tests.agentd import served
from tests.agentd.served import Host

SIZE = 64 * MIB
TARGET = {"disk": "vda"}


class Counting(Work):
    """Is done after some time, by a descriptor and by a deadline."""

    def __init__(self, seconds: float) -> None:
        self.due = time.monotonic() + seconds
        self.steps = 0

    def step(self, now: float) -> None:
        self.steps += 1
        if self.due is not None and now >= self.due:
            self.answer = {"steps": self.steps}


class Listening(Work):
    def __init__(self, end: socket.socket) -> None:
        self.descriptor = end.fileno()
        self._end = end

    def step(self, now: float) -> None:
        self.answer = {"heard": self._end.recv(10).decode()}


ends: list[socket.socket] = []


def listen(session: Session, request: int, told: dict[str, Any]) -> Work:
    ends[:] = socket.socketpair()
    return Listening(ends[0])


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("loop") / "image"
    path.write_bytes(random.Random(1).randbytes(MIB) * (SIZE // MIB))
    return path


@pytest.fixture
def link(image: Path) -> Iterator[socket.socket]:
    handlers: dict[str, Any] = {
        "count": lambda session, request, told: Counting(told["seconds"]),
        "listen": listen,
        "echo": lambda session, request, told: told,
    }
    with served.agent({"vda": image}, handlers=handlers) as link:
        yield link


host = served.host


def received(host: Host) -> int:
    """Bytes of content until nothing more comes."""
    total = 0
    while not host.quiet():
        frame = host.next()
        assert frame.kind == messages.DATA
        total += len(frame.payload) - 8
    return total


def test_without_credit_nothing_is_sent_and_with_some_no_more_than_that(host: Host) -> None:
    host.read(2, TARGET, (0, SIZE))
    assert host.quiet()
    given = sent = 0
    for credit in (LONGEST - 1, 1, 3 * LONGEST + 5, LONGEST, 0):
        host.send(messages.CREDIT, 0, messages.pack_credit(credit))
        given += credit
        sent += received(host)
        assert given - LONGEST < sent <= given


def test_asks_are_answered_while_a_read_waits_for_credit_and_while_it_goes_on(host: Host) -> None:
    host.read(2, TARGET, (0, SIZE), credit=PIECE)
    host.tell(messages.ASK, 3, do="echo")
    # What the credit is for may come before.
    while (frame := host.next()).request != 3:
        assert frame.kind == messages.DATA
    host.send(messages.CREDIT, 0, messages.pack_credit(SIZE))
    assert host.next().kind == messages.DATA
    host.tell(messages.ASK, 4, do="echo")
    between = 0
    while (frame := host.next()).request != 4:
        assert frame.kind == messages.DATA
        between += len(frame.payload)
    assert between < SIZE // 2


def test_to_cancel_takes_less_than_100_ms_while_content_is_under_way(host: Host) -> None:
    for request in range(2, 6):
        host.read(request, TARGET, (0, SIZE), credit=2 * SIZE)
        for _ in range(8):
            host.next()
        host.send(messages.CANCEL, request)
        begun = time.monotonic()
        assert host.refusal(request) == messages.CANCELLED
        assert time.monotonic() - begun < 0.1
    host.tell(messages.ASK, 9, do="echo")
    assert host.next().request == 9


def test_requests_are_answered_in_their_own_time(host: Host) -> None:
    host.tell(messages.ASK, 2, do="count", seconds=0.2)
    host.tell(messages.ASK, 3, do="listen")
    host.tell(messages.ASK, 4, do="count", seconds=0.05)
    assert host.next().request == 4
    ends[1].send(b"news")
    heard = host.next()
    assert (heard.request, messages.unpack_json(heard.payload)) == (3, {"heard": "news"})
    counted = host.next()
    assert counted.request == 2
    assert messages.unpack_json(counted.payload)["steps"] == 1, "it was called when there was nothing to do"


@pytest.mark.parametrize("seconds", [1e7, 1e300, float("inf")])
def test_what_is_due_in_a_long_time(host: Host, seconds: float) -> None:
    host.tell(messages.ASK, 2, do="count", seconds=seconds)
    host.tell(messages.ASK, 3, do="echo")
    assert host.next().request == 3
    host.tell(messages.ASK, 4, do="echo")
    assert host.next().request == 4


def test_a_host_that_does_not_listen_costs_nothing(host: Host) -> None:
    host.read(2, TARGET, (0, SIZE), credit=SIZE)
    time.sleep(0.3)
    begun = time.process_time()
    time.sleep(0.5)
    assert time.process_time() - begun < 0.1
    found, answer = host.content(2)
    assert sum(map(len, found.values())) == SIZE == answer["bytes"]


def test_two_reads_share_the_credit_and_both_come_whole(host: Host) -> None:
    for request, start in ((2, 0), (3, 8 * MIB)):
        host.read(request, TARGET, (start, 4 * MIB))
    host.send(messages.CREDIT, 0, messages.pack_credit(8 * MIB))
    total = dict.fromkeys((2, 3), 0)
    ended = 0
    while ended < 2:
        frame = host.next()
        total[frame.request] += len(frame.payload) - 8 if frame.kind == messages.DATA else 0
        ended += frame.kind == messages.ANSWER
    assert total == {2: 4 * MIB, 3: 4 * MIB}


class Sluggish(Work):
    """Keeps the loop, as a busy guest does: what was looked for before it is old after it."""

    def __init__(self) -> None:
        self.due = time.monotonic()

    def step(self, now: float) -> None:
        self.due = None
        time.sleep(2 * loop.STALE_SECONDS)


class Steady(Work):
    """A read that has something to do all the time; told when it began each."""

    def __init__(self, begun: list[float]) -> None:
        self._begun = begun

    def hungry(self, credit: int) -> bool:
        return True

    def step(self, now: float) -> None:
        self._begun.append(time.monotonic())
        time.sleep(0.01)


def test_orders_that_came_while_the_guest_kept_us_are_obeyed_before_anything_is_read(image: Path) -> None:
    begun: list[float] = []
    handlers: dict[str, Any] = {
        "keep": lambda session, request, told: Sluggish(),
        "read": lambda session, request, told: Steady(begun),
    }
    with served.agent({"vda": image}, handlers=handlers) as link:
        host = Host(link)
        host.hello()
        host.tell(messages.ASK, 2, do="read")
        for request in range(3, 8):
            host.tell(messages.ASK, request, do="keep")
            time.sleep(loop.STALE_SECONDS)
            host.send(messages.CANCEL, 2)
            cancelled = time.monotonic()
            assert host.refusal(2) == messages.CANCELLED
            assert max(begun) < cancelled, "it read on with the order to cancel before it"
            host.tell(messages.ASK, 2, do="read")
        host.send(messages.CANCEL, 2)


def test_orders_that_came_while_the_guest_kept_us_in_poll_are_obeyed_before_anything_is_read(
    image: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[float] = []
    kept, looked = threading.Event(), threading.Event()
    wait = loop._wait

    def slow(link: Link, session: Session) -> dict[int, int]:
        ready = wait(link, session)
        if kept.is_set() and session.works:
            kept.clear()
            looked.set()
            time.sleep(2 * loop.STALE_SECONDS)
        return ready

    monkeypatch.setattr(loop, "_wait", slow)
    with served.agent({"vda": image}, handlers={"read": lambda session, request, told: Steady(begun)}) as link:
        host = Host(link)
        host.hello()
        for _ in range(5):
            host.tell(messages.ASK, 2, do="read")
            time.sleep(0.05)
            kept.set()
            assert looked.wait(served.SECONDS)
            looked.clear()
            host.send(messages.CANCEL, 2)
            cancelled = time.monotonic()
            assert host.refusal(2) == messages.CANCELLED
            assert max(begun) < cancelled, "it read on with the order to cancel before it"


def test_reads_have_turns(image: Path) -> None:
    begun: dict[int, list[float]] = {2: [], 3: [], 4: []}
    handlers = {"read": lambda session, request, told: Steady(begun[request])}
    with served.agent({"vda": image}, handlers=handlers) as link:
        host = Host(link)
        host.hello()
        for request in begun:
            host.tell(messages.ASK, request, do="read")
        time.sleep(0.5)
        for request in begun:
            host.send(messages.CANCEL, request)
        time.sleep(0.1)
    counts = [len(each) for each in begun.values()]
    assert min(counts) > 5
    assert max(counts) - min(counts) < 5


# -- a port that outlives the host's program


class Port(served.PairLink):
    """As a virtio-serial port: the other end comes and goes."""

    once = False

    def __init__(self) -> None:
        self.other = self.reconnect()

    def read(self, count: int) -> bytes | None:
        try:
            return super().read(count)
        except Gone:
            return b""

    def reconnect(self) -> socket.socket:
        end, other = socket.socketpair()
        super().__init__(end)
        return other


@contextlib.contextmanager
def served_at(port: Port, session: Session) -> Iterator[None]:
    def run() -> None:
        with contextlib.suppress(Gone):
            loop.serve(port, session)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    yield
    port.once = True
    port.other.close()
    thread.join(served.SECONDS)
    assert not thread.is_alive()


def test_a_host_that_goes_away_leaves_nothing_behind(image: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "ABSENT_SECONDS", 0.02)
    port, session = Port(), served.session({"vda": image})
    with served_at(port, session):
        first = Host(port.other)
        first.hello()
        first.read(2, TARGET, (0, SIZE), credit=SIZE)
        first.next()
        port.other.close()
        deadline = time.monotonic() + 5
        while session.works or session.outbox or session.credit:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        port.other = port.reconnect()
        second = Host(port.other, number=8)
        second.hello()
        second.read(2, TARGET, (0, MIB), credit=MIB)
        assert sum(map(len, second.content(2)[0].values())) == MIB
