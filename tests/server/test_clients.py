"""Clients that are slow, silent, half open, or say what is not so: they get their answer, and others do not wait."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from headstart.store.membership import Membership
from headstart.store.server import ServerStore
from headstart.wire.https import Client
from tests.kit import hurried
from tests.kit.server import Server
from tests.server.packs import pack

MIB = 1 << 20
KEY = "packs/00000000000000000000000000000001"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with Server(tmp_path_factory.mktemp("server"), program="tests.kit.hurried") as running:
        yield running


@pytest.fixture(scope="module")
def host(server: Server) -> Membership:
    tenant = server.tenant("clients")
    tenant.repository()
    return tenant.host()


@contextlib.contextmanager
def line(server: Server) -> Iterator[ssl.SSLSocket]:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with socket.create_connection(("127.0.0.1", server.port), 20) as plain, context.wrap_socket(plain) as found:
        yield found


def head(host: Membership, *more: str, key: str = KEY) -> bytes:
    lines = [
        f"PUT /v1/repositories/main/objects/{key} HTTP/1.1",
        "Host: x",
        f"Authorization: Bearer {host.token}",
        *more,
    ]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def answer(link: ssl.SSLSocket) -> bytes:
    """All of it, until the connection ends."""
    found = b""
    with contextlib.suppress(ssl.SSLEOFError, ConnectionResetError, BrokenPipeError):
        while piece := link.recv(65536):
            found += piece
    return found


def status(text: bytes) -> int:
    return int(text.split(b" ", 2)[1])


@pytest.fixture
def watched(server: Server, host: Membership) -> Iterator[list[float]]:
    """How long others wait for an answer meanwhile, seconds."""
    taken: list[float] = []
    stop = threading.Event()
    store = ServerStore(Client(host.identity), "main")

    def ask() -> None:
        while not stop.wait(0.05):
            began = time.monotonic()
            store.clock()
            taken.append(time.monotonic() - began)

    with ThreadPoolExecutor(1) as thread:
        asking = thread.submit(ask)
        try:
            yield taken
        finally:
            stop.set()
            asking.result(30)


def absent(host: Membership, key: str = KEY) -> bool:
    return key not in dict(ServerStore(Client(host.identity), "main").list("packs/"))


def test_ten_gigabytes_are_refused_before_they_come(server: Server, host: Membership) -> None:
    with line(server) as link:
        link.sendall(head(host, f"Content-Length: {10 << 30}"))
        assert status(answer(link)) == 413


@pytest.mark.parametrize(
    "told",
    ["Content-Length: -1", "Content-Length: 1e3", f"Content-Length: {'9' * 40}", "Transfer-Encoding: chunked", "X: y"],
)
def test_lengths_that_are_none(server: Server, host: Membership, told: str) -> None:
    with line(server) as link:
        link.sendall(head(host, told) + b"0\r\n\r\n")
        assert status(answer(link)) in (400, 413, 422)
    assert absent(host)


def test_a_body_without_end_in_pieces_is_cut_off(server: Server, host: Membership) -> None:
    with line(server) as link:
        link.sendall(head(host, "Transfer-Encoding: chunked"))
        with contextlib.suppress(OSError):
            for _ in range(400):
                link.sendall(b"100000\r\n" + bytes(MIB) + b"\r\n")
        # Without a length it is refused before anything is read; h11 closes on what is left.
        assert answer(link)[:12] in (b"", b"HTTP/1.1 400")
    assert absent(host)


def test_a_body_that_is_shorter_than_it_says(server: Server, host: Membership) -> None:
    with line(server) as link:
        link.sendall(head(host, "Content-Length: 100000", "Content-Digest: sha-256=:AAAA:") + pack(1)[:50000])
        link.shutdown(socket.SHUT_WR)
        answer(link)
    assert absent(host)


def test_a_body_that_does_not_come_is_not_waited_for(server: Server, host: Membership, watched: list[float]) -> None:
    began = time.monotonic()
    with line(server) as link:
        link.sendall(head(host, "Content-Length: 100000") + bytes(1000))
        assert status(answer(link)) == 408
    assert time.monotonic() - began < hurried.SILENCE + 5
    assert max(watched) < 3


def test_one_that_comes_byte_by_byte_has_its_end(server: Server, host: Membership) -> None:
    with line(server) as link:
        link.sendall(head(host, "Content-Length: 100000"))
        began = time.monotonic()
        with contextlib.suppress(OSError):
            while time.monotonic() - began < hurried.WHOLE + 10:
                link.sendall(b"x")
                time.sleep(0.2)
        assert time.monotonic() - began < hurried.WHOLE + 8
    assert absent(host)


@pytest.mark.parametrize("said", [b"", b"GET /v1/health/live HTTP/1.1\r\nX: "], ids=["nothing", "half a head"])
def test_who_does_not_ask_is_let_go(server: Server, said: bytes) -> None:
    with line(server) as link:
        began = time.monotonic()
        link.sendall(said)
        ended = threading.Event()

        def trickle() -> None:
            with contextlib.suppress(OSError):
                while said and not ended.wait(0.3):
                    link.sendall(b"x")

        thread = threading.Thread(target=trickle)
        thread.start()
        answer(link)
        ended.set()
        thread.join()
        assert time.monotonic() - began < hurried.IDLE + 8


def test_many_large_bodies_stay_within_bounds(server: Server, host: Membership, watched: list[float]) -> None:
    """Each says 200 MiB, sends 40 of them, and waits: together 4 GiB were said."""
    assert server.process is not None

    def send(number: int) -> int:
        with line(server) as link:
            link.sendall(head(host, f"Content-Length: {200 * MIB}", key=f"packs/{number:032x}"))
            with contextlib.suppress(OSError):
                for _ in range(40):
                    link.sendall(bytes(MIB))
            found = answer(link)
            return status(found) if found else 0

    with ThreadPoolExecutor(20) as threads:
        found = set(threads.map(send, range(100, 120)))
    # Too slow, no room, or cut off while sending.
    assert found <= {408, 429, 0}
    text = Path(f"/proc/{server.process.pid}/status").read_text()
    peak = int(next(line for line in text.splitlines() if line.startswith("VmHWM")).split()[1]) * 1024
    assert peak < 900 * MIB, f"{peak / MIB:.0f} MiB"
    assert all(absent(host, f"packs/{number:032x}") for number in range(100, 120))
    ServerStore(Client(host.identity), "main").create(f"packs/{200:032x}", pack(200))


def test_half_open_connections_are_not_in_the_way(server: Server, host: Membership) -> None:
    """A thousand that never end their handshake, or say nothing."""
    with contextlib.ExitStack() as stack:
        for _ in range(500):
            stack.enter_context(contextlib.closing(socket.create_connection(("127.0.0.1", server.port), 20)))
        began = time.monotonic()
        ServerStore(Client(host.identity), "main").create(f"packs/{300:032x}", pack(300))
        assert time.monotonic() - began < 10
