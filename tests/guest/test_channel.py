"""Whatever a guest answers: the truth, ``Refused`` or ``Lost``, in bounded time and memory."""

from __future__ import annotations

import contextlib
import json
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from headstart import errors
from headstart.agentd import frames, messages
from headstart.extents import Extent
from headstart.guest import channel as channels
from headstart.guest import trimming
from headstart.guest.channel import Channel, Lost, Mismatch, Refused
from headstart.guest.reader import AgentReader
from tests.agentd import served
from tests.guest import hostile
from tests.guest.hostile import Guest


@pytest.fixture(autouse=True)
def nothing_is_left_open() -> Iterator[None]:
    before = len(list(Path("/proc/self/fd").iterdir()))
    yield
    assert len(list(Path("/proc/self/fd").iterdir())) <= before


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(channels, "HELLO_AGAIN_SECONDS", 0.1)
    monkeypatch.setattr(channels, "PROBE_SECONDS", 0.1)
    monkeypatch.setattr(channels, "CANCEL_SECONDS", 0.5)
    monkeypatch.setattr(channels, "SILENCE_SECONDS", 1.0)


Script = Callable[[Guest], object]


def idle(guest: Guest) -> None:
    return None


def answering(answer: bytes, kind: int = messages.ANSWER) -> Script:
    def script(guest: Guest) -> None:
        guest.send(kind, guest.next(messages.ASK).request, answer)

    return script


# -- welcome


def test_nobody_answers() -> None:
    with hostile.playing(idle, welcome=False) as link, pytest.raises(Lost, match="does not answer"):
        Channel(link, seconds=0.3)


def test_the_end_of_an_old_stream_comes_first() -> None:
    old = frames.encode(messages.DATA, 12345, 1, b"x" * messages.PIECE)

    def script(guest: Guest) -> None:
        guest.raw(old[100:] + old * 3 + old[:200])
        guest.welcome()
        guest.tell(messages.ANSWER, guest.next(messages.ASK).request, well=True)

    with hostile.playing(script, welcome=False) as link, Channel(link) as channel:
        assert channel.ask("map") == {"well": True}


def test_a_hello_is_sent_until_it_is_heard() -> None:
    def script(guest: Guest) -> None:
        guest.next(messages.HELLO)
        guest.next(messages.HELLO)
        guest.welcome()

    with hostile.playing(script, welcome=False) as link, Channel(link) as channel:
        assert channel.welcome["release"] == 1


NONSENSE: list[Any] = [
    *({}, {"protocols": None}, {"protocols": 1}, {"protocols": []}, {"protocols": [1]}, {"protocols": "11"}),
    *({"protocols": ["1", "1"]}, {"protocols": [1, None]}, {"protocols": [1.5, 2]}, {"protocols": {"a": 1, "b": 2}}),
    {"protocols": [float("inf"), float("inf")]},
    {"protocols": [float("nan"), 1]},
]


@pytest.mark.parametrize("welcome", NONSENSE, ids=str)
def test_a_welcome_of_nonsense(welcome: Any) -> None:
    def script(guest: Guest) -> None:
        guest.send(messages.WELCOME, guest.next(messages.HELLO).request, json.dumps(welcome).encode())

    with hostile.playing(script, welcome=False) as link, pytest.raises(Lost):
        Channel(link)


@pytest.mark.parametrize("payload", [b"", b"[]", b"[" * 200_000, b'{"a":' * 30_000, b"\xff" * 1000])
def test_a_welcome_that_is_no_object(payload: bytes) -> None:
    def script(guest: Guest) -> None:
        guest.send(messages.WELCOME, guest.next(messages.HELLO).request, payload)

    with hostile.playing(script, welcome=False) as link, pytest.raises(Lost):
        Channel(link)


@pytest.mark.parametrize("kind", [messages.ANSWER, messages.NOTE, messages.DATA, 99])
def test_something_else_than_a_welcome(kind: int) -> None:
    def script(guest: Guest) -> None:
        guest.send(kind, guest.next(messages.HELLO).request, messages.pack_json(hostile.WELCOME))

    with hostile.playing(script, welcome=False) as link, pytest.raises(Lost, match=r"kind|more than"):
        Channel(link)


@pytest.mark.parametrize(("spoken", "advice"), [([2, 3], "update Headstart"), ([0, 0], "update the agent")])
def test_another_protocol(spoken: list[int], advice: str) -> None:
    def script(guest: Guest) -> None:
        for _ in range(2):
            guest.tell(messages.WELCOME, guest.next(messages.HELLO).request, protocols=spoken)

    with hostile.playing(script, welcome=False) as link, pytest.raises(Mismatch, match=advice):
        Channel(link)


def test_protocols_that_overlap() -> None:
    def script(guest: Guest) -> None:
        guest.tell(messages.WELCOME, guest.next(messages.HELLO).request, protocols=[0, 9], news="ignored")

    with hostile.playing(script, welcome=False) as link:
        Channel(link).close()


# -- answers


@pytest.mark.parametrize("payload", [b"", b"[]", b"null", b"{", b"\xff", b"[" * 100_000, b"1" * 100_000])
def test_an_answer_that_is_no_object(payload: bytes) -> None:
    with hostile.playing(answering(payload)) as link, Channel(link) as channel, pytest.raises(Lost, match="nonsense"):
        channel.ask("map")


@pytest.mark.parametrize("kind", [messages.HELLO, messages.WELCOME, messages.ZEROES, 0, 255])
def test_an_answer_of_a_kind_that_is_none(kind: int) -> None:
    with hostile.playing(answering(b"{}", kind)) as link, Channel(link) as channel, pytest.raises(Lost, match="kind"):
        channel.ask("map")


@pytest.mark.parametrize(
    "told", [{}, {"code": 5, "text": [1] * 1000}, {"code": "x" * 1000, "text": "\x1b[2J\n\ud800" * 1000}]
)
def test_a_refusal_is_short_and_can_be_shown(told: dict[str, Any]) -> None:
    script = answering(json.dumps(told).encode(), messages.REFUSAL)
    with hostile.playing(script) as link, Channel(link) as channel:
        with pytest.raises(Refused) as found:
            channel.ask("map")
        text = str(found.value) + found.value.code
    assert len(text) < 400
    assert text.isprintable()
    text.encode()


def test_a_refusal_that_is_no_object() -> None:
    with hostile.playing(answering(b"no", messages.REFUSAL)) as link, Channel(link) as channel, pytest.raises(Lost):
        channel.ask("map")


def test_answers_to_other_requests_and_of_other_sessions_are_none() -> None:
    def script(guest: Guest) -> None:
        request = guest.next(messages.ASK).request
        guest.tell(messages.ANSWER, request + 1, wrong=True)
        guest.tell(messages.ANSWER, 0, wrong=True)
        guest.raw(frames.encode(messages.ANSWER, guest.session ^ 1, request, b'{"wrong":true}'))
        guest.raw(frames.encode(messages.REFUSAL, guest.session ^ 1, request, b'{"code":"strange"}'))
        guest.tell(messages.ANSWER, request, right=True)

    with hostile.playing(script) as link, Channel(link) as channel:
        assert channel.ask("map") == {"right": True}


def test_an_agent_that_was_restarted_is_found_out_soon() -> None:
    def script(guest: Guest) -> None:
        request = guest.next(messages.ASK).request
        guest.next(messages.CREDIT)
        guest.tell(messages.REFUSAL, request + 7, code=messages.STRANGE)

    with hostile.playing(script) as link, Channel(link) as channel, pytest.raises(Lost, match="restarted"):
        channel.ask("map")


def test_silence() -> None:
    with hostile.playing(idle) as link, Channel(link) as channel:
        begun = time.monotonic()
        with pytest.raises(Lost, match="has not answered"):
            channel.ask("map", 0.4)
        assert 0.3 < time.monotonic() - begun < 2


def test_the_channel_is_closed_while_we_wait() -> None:
    def script(guest: Guest) -> None:
        guest.next(messages.ASK)
        guest._link.shutdown(socket.SHUT_RDWR)

    with hostile.playing(script) as link, Channel(link) as channel, pytest.raises(Lost):
        channel.ask("map")


def test_a_guest_that_does_not_listen() -> None:
    """Nor does it speak: a request that does not fit into the channel."""

    def script(guest: Guest) -> None:
        time.sleep(2.5)

    with hostile.playing(script) as link, Channel(link) as channel:
        begun = time.monotonic()
        with pytest.raises(Lost, match="has not listened"):
            for _ in range(1000):
                channel.file(0, bytes(16 << 10))
        assert time.monotonic() - begun < 5


# -- figures, which come again and again


def telling(count: int, payload: bytes = b'{"time":%d}', then: Script = idle) -> Script:
    def script(guest: Guest) -> None:
        request = guest.next(messages.ASK).request
        for number in range(count):
            guest.send(messages.NOTE, request, payload.replace(b"%d", b"%d" % number))
        then(guest)

    return script


def wait_for(channel: Channel, request: int) -> dict[str, Any]:
    for _ in range(200):
        found = channel.newest(request)
        if found is not None:
            return found
        channel.pump(0.02)
    raise AssertionError("nothing came")


def test_the_newest_counts() -> None:
    with hostile.playing(telling(50)) as link, Channel(link) as channel:
        request = channel.follow("figures", seconds=0.2)
        channel.pump(0.3)
        assert channel.newest(request) == {"time": 49}
        assert channel.newest(request) is None
        assert channel._unread == 0


def test_what_is_told_again_and_again_keeps_no_memory_while_something_else_is_waited_for() -> None:
    """40 MB of it, before the answer."""

    def script(guest: Guest) -> None:
        followed, asked = guest.next(messages.ASK).request, guest.next(messages.ASK).request
        for _ in range(400):
            guest.send(messages.NOTE, followed, b'{"a":"%s"}' % (b"x" * 100_000))
        guest.tell(messages.ANSWER, asked, well=True)

    with hostile.playing(script) as link, Channel(link) as channel:
        request = channel.follow("figures")
        assert channel.ask("map") == {"well": True}
        assert len(channel._inbox[request]) == 1
        assert channel._unread < 110_000


def test_without_news_nothing_is_waited_for() -> None:
    with hostile.playing(idle) as link, Channel(link) as channel:
        request = channel.follow("figures")
        begun = time.monotonic()
        for _ in range(100):
            assert channel.newest(request) is None
        assert time.monotonic() - begun < 0.3


def test_figures_that_are_refused_end() -> None:
    def script(guest: Guest) -> None:
        guest.tell(messages.REFUSAL, guest.next(messages.ASK).request, code="unknown", text="figures")

    with hostile.playing(script) as link, Channel(link) as channel:
        request = channel.follow("figures")
        with pytest.raises(Refused, match="figures"):
            wait_for(channel, request)
        assert channel.newest(request) is None


def test_a_flood_does_not_keep_who_looks_for_news() -> None:
    with hostile.playing(flood(encoded(messages.NOTE, b'{"a":"%s"}' % (b"x" * 10_000)))) as link:
        channel = Channel(link)
        request = channel.follow("figures")
        begun = time.monotonic()
        for _ in range(5):
            channel.newest(request)
        channel.pump(0.3)
        assert time.monotonic() - begun < 3
        assert channel._unread < 20_000
        channel.close()


def test_pumping_takes_its_time_and_finds_an_agent_that_was_restarted() -> None:
    def script(guest: Guest) -> None:
        guest.next(messages.CREDIT)
        guest.tell(messages.REFUSAL, 0, code=messages.STRANGE)

    with hostile.playing(idle) as link, Channel(link) as channel:
        begun = time.monotonic()
        channel.pump(0.3)
        assert 0.25 < time.monotonic() - begun < 1
    with hostile.playing(script) as link, Channel(link) as channel, pytest.raises(Lost, match="restarted"):
        channel.pump(5.0)


def test_pumping_a_closed_channel() -> None:
    def script(guest: Guest) -> None:
        guest._link.shutdown(socket.SHUT_RDWR)

    with hostile.playing(script) as link, Channel(link) as channel, pytest.raises(Lost):
        channel.pump(5.0)


@pytest.mark.parametrize(
    "ask", [lambda channel, request: channel.newest(request), lambda channel, _: channel.pump(1.0)]
)
def test_a_channel_that_we_closed_tells_no_news(ask: Callable[[Channel, int], object]) -> None:
    """A read that could not be cancelled closes it; who watches the load does not know."""
    with hostile.playing(idle) as link:
        channel = Channel(link)
        request = channel.follow("figures")
        channel.close()
        with pytest.raises(Lost, match="closed"):
            ask(channel, request)


# -- whoever waits attends to something else


def test_who_waits_attends_four_times_a_second() -> None:
    times: list[float] = []

    def script(guest: Guest) -> None:
        request = guest.next(messages.ASK).request
        time.sleep(0.9)
        guest.tell(messages.ANSWER, request, filesystems=[])

    with hostile.playing(script) as link, Channel(link) as channel:
        channel.attend = lambda: times.append(time.monotonic())
        assert trimming.through_agent(channel, 10.0) == []
    assert 2 <= len(times) <= 4


def test_who_asks_for_what_is_done_in_a_moment_does_not_attend() -> None:
    """A halt must not come between what was read and its being counted."""

    def script(guest: Guest) -> None:
        request = guest.next(messages.ASK).request
        time.sleep(0.6)
        guest.tell(messages.ANSWER, request, well=True)

    with hostile.playing(script) as link, Channel(link) as channel:
        channel.attend = lambda: pytest.fail("the answer is needed")
        assert channel.ask("flush") == {"well": True}


def test_what_attending_raises_ends_the_wait_and_the_request_can_be_cancelled() -> None:
    """It looks at the figures, which the guest tells meanwhile."""
    found: list[dict[str, Any]] = []

    def script(guest: Guest) -> None:
        followed, read = guest.next(messages.ASK).request, guest.next(messages.READ).request
        guest.tell(messages.NOTE, followed, busy=True)
        guest.next(messages.CANCEL)
        guest.tell(messages.REFUSAL, read, code=messages.CANCELLED)
        guest.tell(messages.ANSWER, guest.next(messages.ASK).request, well=True)

    with hostile.playing(script) as link, Channel(link) as channel:
        request = channel.follow("figures")

        def attend() -> None:
            told = channel.newest(request)
            if told is not None:
                found.append(told)
                raise ZeroDivisionError

        channel.attend = attend
        with pytest.raises(ZeroDivisionError):
            list(AgentReader(channel, {"disk": "vda"}, 1 << 20).read([Extent(0, 4096)]))
        channel.attend = lambda: None
        assert found == [{"busy": True}]
        assert channel.ask("map") == {"well": True}


def test_a_stream_of_answers_is_not_interrupted() -> None:
    def script(guest: Guest) -> None:
        request = guest.next(messages.ASK).request
        for _ in range(10):
            time.sleep(0.05)
            guest.tell(messages.NOTE, request)

    with hostile.playing(script) as link, Channel(link) as channel:
        channel.attend = lambda: pytest.fail("nothing is late")
        request = channel.start("freeze")
        for _ in range(10):
            channel.answer(request, 1.0)


# -- floods


def flood(piece: Callable[[Guest, int], bytes]) -> Script:
    """One request is answered with the same again and again, and nothing is listened to."""

    def script(guest: Guest) -> None:
        data = piece(guest, guest.next().request)
        data *= max(1, (1 << 20) // len(data))
        deadline = time.monotonic() + 15
        while time.monotonic() < deadline:
            guest.raw(data)

    return script


def encoded(kind: int, payload: bytes) -> Callable[[Guest, int], bytes]:
    return lambda guest, request: frames.encode(kind, guest.session, request, payload)


FLOODS: dict[str, Callable[[Guest, int], bytes]] = {
    "noise": lambda guest, request: bytes(range(256)),
    "beginnings of frames": lambda guest, request: frames.MAGIC,
    "damaged frames": lambda guest, request: frames.encode(11, guest.session, request, b"x" * 5000)[:-1] + b"y",
    "promises": lambda guest, request: frames.encode(11, guest.session, request, bytes(frames.FROM_GUEST))[:32],
    "frames of another session": lambda guest, request: frames.encode(11, guest.session ^ 1, request, b"x" * 1000),
    "frames of no request": lambda guest, request: frames.encode(9, guest.session, request + 5, b"{}"),
    "content of no request": lambda guest, request: frames.encode(11, guest.session, request + 5, b"x" * 1000),
}


@pytest.mark.parametrize("name", FLOODS)
def test_a_flood_does_not_keep_us_longer_than_silence(name: str) -> None:
    with hostile.playing(flood(FLOODS[name])) as link, Channel(link) as channel:
        begun = time.monotonic()
        with pytest.raises(Lost):
            channel.ask("map", 1.0)
        assert time.monotonic() - begun < 3


@pytest.mark.parametrize(
    "name, payload",
    [("notes", b'{"a":"%s"}' % (b"x" * 100_000)), ("small", b"{}"), ("content", bytes(8) + b"x" * 9000)],
)
def test_what_nobody_takes_out_is_bounded(name: str, payload: bytes) -> None:
    """It waits for the answer to another request meanwhile."""
    kind = messages.DATA if name == "content" else messages.NOTE

    def size(channel: Channel) -> int:
        return sum(len(frame.payload) + 100 for waiting in channel._inbox.values() for frame in waiting)

    with hostile.playing(flood(encoded(kind, payload))) as link, Channel(link) as channel:
        channel.start("freeze")
        with pytest.raises(Lost, match="more than it may"):
            channel.ask("map", 5.0)
        assert size(channel) <= channels.UNREAD_LIMIT + channels.WINDOW + (1 << 20)


def test_content_in_crumbs_is_bounded_too() -> None:
    """Each costs more than it holds: 8 MiB of credit would be 2 GiB of memory."""
    crumb = bytes(8) + b"x"
    with hostile.playing(flood(encoded(messages.DATA, crumb))) as link, Channel(link) as channel:
        channel.read({"disk": "vda"}, [(0, 8 << 20)])
        with pytest.raises(Lost, match="more than it may"):
            channel.ask("map", 10.0)
        assert sum(map(len, channel._inbox.values())) < 20_000


def test_a_flood_while_we_send() -> None:
    with hostile.playing(flood(encoded(messages.NOTE, b"{}"))) as link, Channel(link) as channel:
        channel.start("freeze")
        with pytest.raises(Lost):
            for _ in range(10_000):
                channel.file(0, bytes(16 << 10))


# -- credit


def test_what_was_given_up_is_not_held_against_those_who_come_after(tmp_path: Path) -> None:
    """Requests are cancelled at any moment, with content in any place, until the window would be used up."""
    (tmp_path / "vda").write_bytes(b"x" * (32 << 20))
    with served.agent({"vda": tmp_path / "vda"}) as link, Channel(link) as channel:
        for turn in range(8):
            request = channel.read({"disk": "vda"}, [(0, 32 << 20)])
            for _ in range(turn % 3):
                frame = channel.frame(request)
                channel.consumed(len(frame.payload) - 8)
            channel.cancel(request)
            assert channel._held == 0
        assert channel._unread == 0
        assert channel._outstanding <= channels.WINDOW


def test_a_slow_consumer_is_waited_for_and_a_silent_agent_is_not() -> None:
    def script(guest: Guest) -> None:
        request = guest.next(messages.READ).request
        for position in range(0, channels.WINDOW, messages.PIECE):
            guest.data(request, position, b"x" * messages.PIECE)

    with hostile.playing(script) as link, Channel(link) as channel:
        request = channel.read({"disk": "vda"}, [(0, 64 << 20)])
        pieces = channels.WINDOW // messages.PIECE
        for _ in range(pieces - 1):
            channel.frame(request)
        channel.consumed(channels.WINDOW - messages.PIECE)
        channel.frame(request)
        with pytest.raises(Lost, match="has not answered"):
            channel.frame(request, 0.5)


def test_an_order_is_the_same_request_by_other_hands() -> None:
    def script(guest: Guest) -> None:
        frame = guest.next(messages.ASK)
        assert messages.unpack_json(frame.payload) == {"do": "thaw"}
        assert frame.session == guest.session
        guest.tell(messages.ANSWER, frame.request, thawed=1)
        guest.tell(messages.ANSWER, guest.next(messages.ASK).request, well=True)

    with hostile.playing(script) as link, Channel(link) as channel:
        link.sendall(channel.order("thaw"))
        assert channel.ask("map") == {"well": True}


def test_a_closed_channel_is_an_error_of_ours() -> None:
    with hostile.playing(idle) as link:
        channel = Channel(link)
        channel.close()
        channel.close()
        channel.consumed(5)
        with pytest.raises(errors.Unreachable):
            channel.ask("map")


def test_to_cancel_what_has_ended_takes_no_time() -> None:
    def script(guest: Guest) -> None:
        guest.tell(messages.REFUSAL, guest.next(messages.ASK).request, code="failed")
        guest.tell(messages.ANSWER, guest.next(messages.ASK).request)

    with hostile.playing(script) as link, Channel(link) as channel:
        for _ in range(2):
            request = channel.start("figures")
            begun = time.monotonic()
            with contextlib.suppress(Refused):
                channel.answer(request, 1.0)
            channel.cancel(request)
            assert time.monotonic() - begun < 0.4
