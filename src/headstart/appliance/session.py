"""The appliance's end of one round: a thread that listens and talks, and one that works."""

from __future__ import annotations

import logging
import platform
import queue
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from headstart import __version__, errors, plain
from headstart.appliance import messages, relay_process
from headstart.appliance.counter import Counter
from headstart.appliance.link import Link, Lost
from headstart.appliance.messages import Frame, Kind, Malformed
from headstart.appliance.relay import Ticket
from headstart.appliance.work import Gone, Unreadable, Work
from headstart.repository import Repository

_log = logging.getLogger(__name__)

_LISTEN_SECONDS = 1.0
#: Bytes of a token and of a secret.
_TICKET = (messages.TOKEN_LENGTH // 2, relay_process.SECRET_LENGTH // 2)
#: A host has two or three requests under way.
_MOST_ORDERS = 64


class Session:
    """Owns ``link``. ``repository`` is called with what the host said of the one that it means, and refuses others.
    ``keys``: a folder with those of an appliance."""

    def __init__(
        self, link: Link, counter: Counter, keys: Path, repository: Callable[[dict[str, Any]], Repository]
    ) -> None:
        self._link = link
        self._keys = keys
        self._counter = counter
        self._repository = repository
        self._orders: queue.SimpleQueue[Frame | None] = queue.SimpleQueue()
        self._work: Work | None = None
        self._over = threading.Event()
        self._tokens: list[str] = []

    def serve(self) -> None:
        """Until either side ends it."""
        worker = threading.Thread(target=self._run, name="appliance work", daemon=True)
        worker.start()
        try:
            while not self._over.is_set():
                for frame in self._link.poll(_LISTEN_SECONDS):
                    self._take(frame)
            self._link.finish()
        except (Lost, Malformed) as error:
            _log.info("A round ended: %s", error)
        finally:
            self._link.close()
            if self._work is not None:
                self._work.give_up()
            for token in self._tokens:
                self._counter.forget(token)
            self._orders.put(None)
            worker.join()

    def _take(self, frame: Frame) -> None:
        if self._orders.qsize() >= _MOST_ORDERS:
            raise Lost("The host orders more than it may.")
        if frame.kind is Kind.OFFER and "device" not in (told := messages.unpack_json(frame.payload)):
            token = _ticket(told).token
            self._tokens.append(token)
            self._counter.expect(token)
            self._link.send(Kind.READY)
        self._orders.put(frame)

    # -- the thread that works

    def _run(self) -> None:
        try:
            self._greet()
        except Gone:
            pass
        except Unreadable as error:
            self._refuse(messages.UNREADABLE, error)
        except (errors.StoreFailed, errors.NoSpace, errors.Damaged) as error:
            self._refuse(messages.STORE, error)
        except errors.Busy as error:
            self._refuse(messages.BUSY, error)
        except (errors.HeadstartError, Malformed) as error:
            self._refuse(messages.STRANGE, error)
        except Exception as error:
            _log.error("A bug: the round is given up.", exc_info=error)
            self._refuse(messages.FAILED, error)
        finally:
            self._over.set()
            self._link.wake()

    def _greet(self) -> None:
        first = self._next()
        if first.kind is not Kind.HELLO:
            raise Malformed("The host does not greet.")
        told = messages.unpack_json(first.payload)
        _require_protocol(told)
        repo = self._repository(told)
        with Work(repo, self._counter, self._keys, self._link.send) as work:
            self._work = work
            welcome = {"protocol": messages.PROTOCOLS[1], "release": __version__, "name": platform.node()}
            self._link.send(Kind.WELCOME, messages.pack_json(welcome))
            while True:
                self._do(work, self._next())

    def _next(self) -> Frame:
        """Raises ``Gone`` when none follows."""
        frame = self._orders.get()
        if frame is None:
            raise Gone
        return frame

    def _do(self, work: Work, frame: Frame) -> None:
        if frame.kind is Kind.OFFER:
            told = messages.unpack_json(frame.payload)
            disk, size = _number(told, "disk"), _number(told, "size")
            if "device" in told:
                work.find(disk, size, str(told["device"]))
            else:
                work.offer(disk, size, _ticket(told))
        elif frame.kind is Kind.READ:
            work.read(messages.unpack_read(frame.payload))
        elif frame.kind is Kind.FLUSH:
            work.flush()
        else:
            raise Malformed(f"The host sent a frame of kind {frame.kind}.")

    def _refuse(self, code: str, error: BaseException) -> None:
        text = plain.joined(str(error) or type(error).__name__)
        _log.warning("A round is refused (%s): %s", code, text)
        self._link.send(Kind.REFUSAL, messages.pack_json({"code": code, "text": text}))


def _require_protocol(told: dict[str, Any]) -> None:
    try:
        oldest, newest = map(int, told["protocols"])
    except (KeyError, TypeError, ValueError):
        raise Malformed("The host does not say which protocol it speaks.") from None
    ours = messages.PROTOCOLS
    if oldest > ours[1] or newest < ours[0]:
        older = "the appliance" if oldest > ours[1] else "the host"
        raise errors.Unsupported(
            f"The host speaks protocol {oldest} to {newest}, the appliance {ours[0]} to {ours[1]}: update {older}."
        )


def _ticket(told: dict[str, Any]) -> Ticket:
    try:
        ticket = Ticket(told["token"], told["secret"])
        if (len(bytes.fromhex(ticket.token)), len(bytes.fromhex(ticket.secret))) != _TICKET:
            raise ValueError
    except (AttributeError, KeyError, TypeError, ValueError):
        raise Malformed("an offer that makes no sense") from None
    return ticket


def _number(told: dict[str, Any], name: str) -> int:
    value = told.get(name)
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise Malformed("an offer that makes no sense")
    return value
