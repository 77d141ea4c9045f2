"""Whatever answers at the server's address: the host works on, says once what is wrong, and takes no harm."""

from __future__ import annotations

import contextlib
import http.server
import json
import logging
import socketserver
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from headstart import errors
from headstart.host import remote
from headstart.host.remote import Nonsense, Remote, beat_of
from headstart.state.outbox import Outbox
from headstart.store.membership import Membership
from headstart.wire.https import Bound
from tests.host import home as homes
from tests.host.home import HOUR, MIDNIGHT, Home
from tests.kit.waiting import wait_until
from tests.server import joined
from tests.server.joined import serving, standing

TWO = MIDNIGHT + 2 * HOUR
Answer = Callable[[http.server.BaseHTTPRequestHandler], None]


@contextlib.contextmanager
def answering(answer: Answer) -> Iterator[Membership]:
    """Something that speaks HTTP on loopback."""
    ended = threading.Event()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers.get("content-length", 0)))
            with contextlib.suppress(OSError):
                answer(self)

        do_GET = do_POST  # noqa: N815 (http.server's own names)

        def log_message(self, *values: Any) -> None:
            pass

    class Server(socketserver.ThreadingTCPServer):
        allow_reuse_address = daemon_threads = True
        block_on_close = False

    with Server(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        try:
            url = f"http://127.0.0.1:{server.server_address[1]}"
            yield Membership(url, "hsh_x", "", "theirs", "0" * 32, "main", time.time() + 1e6)
        finally:
            ended.set()
            server.shutdown()


def plain(status: int, data: bytes, **headers: str) -> Answer:
    def answer(to: http.server.BaseHTTPRequestHandler) -> None:
        to.send_response(status)
        for name, value in {"Content-Length": str(len(data)), **headers}.items():
            to.send_header(name, value)
        to.end_headers()
        to.wfile.write(data)

    return answer


def dripping(to: http.server.BaseHTTPRequestHandler) -> None:
    to.send_response(200)
    to.end_headers()
    while True:
        to.wfile.write(b" ")
        time.sleep(0.05)


def endless(to: http.server.BaseHTTPRequestHandler) -> None:
    to.send_response(200)
    to.end_headers()
    while True:
        to.wfile.write(b" " * 65536)


def hanging(to: http.server.BaseHTTPRequestHandler) -> None:
    time.sleep(3)


def beat(**values: object) -> Answer:
    return plain(200, json.dumps({"policies": "v", "next": 1, **values}).encode())


LIES = {
    "no JSON": plain(200, b"<html>It works!</html>"),
    "another JSON": plain(200, b"[1, 2]"),
    "deep JSON": plain(200, b"[" * 100_000),
    "nothing": plain(200, b""),
    "half": plain(200, b"{", **{"Content-Length": "100"}),
    "forged length": plain(200, b"{}", **{"Content-Length": "99999999999"}),
    "redirection": plain(302, b"", Location="http://127.0.0.1:1/"),
    "an error": plain(500, b"oops"),
    "too often": plain(429, b"", **{"Retry-After": "99999999"}),
    "compressed": plain(200, b"\x1f\x8b\x08", **{"Content-Encoding": "gzip"}),
    "dripping": dripping,
    "endless": endless,
    "hanging": hanging,
    "wrong types": beat(next="soon", offered=7),
    "no number": plain(200, b'{"policies": "v", "next": NaN}'),
    "orders of nobody": beat(offered=[{"id": "../../x", "kind": "backup", "vm": "web", "arguments": {}}]),
    "revoked": plain(401, b'{"detail": "\\u001b[31mred"}'),
}


home = homes.fresh


@pytest.fixture(autouse=True)
def impatient() -> Iterator[None]:
    with mock.patch.multiple(remote, ANSWER_SECONDS=0.5, _BOUND=Bound(1 << 20, 1.0), _DOCUMENT=Bound(1 << 20, 1.0)):
        yield


@pytest.mark.parametrize("lie", LIES)
def test_a_host_works_on_whatever_answers(home: Home, lie: str, caplog: pytest.LogCaptureFixture) -> None:
    home.add("web")
    with answering(LIES[lie]) as member:
        joined.join(home, member)
        with serving(home):
            wait_until(lambda: standing(home)["state"] in ("away", "refused"))
            home.now = TWO
            wait_until(lambda: home.snapshots())
            time.sleep(0.5)
            assert standing(home)["state"] in ("away", "refused")
    said = [each for each in caplog.records if each.levelno >= logging.WARNING and "event=server-" in each.message]
    assert len(said) == 1 and "Backups go on" in said[0].message, caplog.text
    assert "\x1b" not in caplog.text and "A bug" not in caplog.text


def test_policies_that_are_none(home: Home, caplog: pytest.LogCaptureFixture) -> None:
    """A beat as it should be, and then a document that is not."""
    home.add("web")
    documents = iter([b"\xff\xfe", b"[policy.gold", b'[host]\nrepository = "/evil"\n', b"x" * (2 << 20)])

    def answer(to: http.server.BaseHTTPRequestHandler) -> None:
        number[0] += 1
        if "policies" in to.path:
            served[0] += 1
            plain(200, next(documents, b"[host]"))(to)
        else:
            beat(policies=f"version {number[0]}")(to)

    number, served = [0], [0]
    with answering(answer) as member:
        joined.join(home, member)
        with serving(home):
            wait_until(lambda: served[0] > 4)
            home.now = TWO
            wait_until(lambda: home.snapshots())
            assert home.status()["policy"] == "nightly"
    assert "cannot be used" in caplog.text and not (home.folder / "state" / "server-policies.toml").exists()


def test_nothing_of_a_lying_order_is_done_twice_or_outside(home: Home, tmp_path: Path) -> None:
    """The same orders again and again; of kinds that nobody knows; for VMs that are not there."""
    home.add("web")
    joined_orders = [
        {"id": "a" * 32, "kind": "backup", "vm": "web", "arguments": {}},
        {"id": "b" * 32, "kind": "format-all-disks", "vm": "web", "arguments": {}},
        {"id": "c" * 32, "kind": "pause", "vm": "../nobody", "arguments": {}},
        {"id": "d" * 32, "kind": "restore", "vm": "web", "arguments": {"snapshot": "../../etc", "folder": "x"}},
    ]
    ended: dict[str, Any] = {}

    def answer(to: http.server.BaseHTTPRequestHandler) -> None:
        beat(offered=joined_orders, orders={each["id"]: "taken" for each in joined_orders})(to)

    with answering(answer) as member:
        joined.join(home, member)
        with serving(home):
            wait_until(lambda: home.verbs().count("backup") == 1)
            time.sleep(1.0)
            for order, each in Outbox(home.journal).orders().items():
                ended[order[0]] = each
    assert home.verbs().count("backup") == 1
    assert {order: each["state"] for order, each in ended.items()} == {"a": "done", **dict.fromkeys("bcd", "failed")}
    assert "another version" in ended["b"]["result"]["error"]


@pytest.mark.parametrize("told", [None, [], "x", {}, {"policies": ""}, {"policies": "v", "next": float("inf")}])
def test_beats_that_are_none(told: Any) -> None:
    with pytest.raises(Nonsense):
        beat_of(told)


def test_a_pause_is_neither_none_nor_for_ever() -> None:
    assert beat_of({"policies": "v", "next": 0}).next == remote._SOONEST
    assert beat_of({"policies": "v", "next": 1e12}).next == remote._LATEST


def test_what_json_has_no_word_for() -> None:
    told = remote.sane({"a": float("nan"), "b": [float("inf"), 1.5], "c\0": "x\0\udcff", "d": Path("/x"), "e": True})
    assert told == {"a": None, "b": [None, 1.5], "c?": "x??", "d": "/x", "e": True}


def test_another_certificate_is_told_apart_from_silence(tmp_path: Path) -> None:
    """Told apart from a server that is away."""
    with pytest.raises(errors.StoreFailed):
        Remote(Membership("https://127.0.0.1:1", "hsh_x", "00" * 32, "t", "h", "r", 0.0)).pulse({}, {}, {})
