"""Orders of the server: each is done once, or has failed.

::

    offered  ->  taken            noted here, then told to the server
    the server agrees  ->  begun  noted here, and done
    over  ->  done, failed        noted here, told until the server knows

A VM that runs by order ends when the server says that it is stopping, or anything else than that we have the order.

A host that is started anew takes up what was not begun. What was begun has failed: how far it had come is not known.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol

from headstart import errors, plain
from headstart.host import log, restoring
from headstart.host.booter import Ending
from headstart.host.control import Tell
from headstart.host.house import House
from headstart.host.remote import Offered
from headstart.repository.proof import Proof
from headstart.state.outbox import Outbox

_log = logging.getLogger("headstart.host")

#: Orders in hand at a time, beside those that take no time: what ends the others must not wait for them.
MOST = 4
#: A pulse tells of so many at most: one that told of more would be refused, and so would all after it.
MOST_TOLD = 100
_QUICK = ("pause", "resume", "cancel")
_OVER = ("done", "failed")
#: Of so many that are over it is remembered that they were: a database of the server's that was put back offers again
#: what was done long ago.
_REMEMBERED = 200
#: Of a report, what an order's result tells: the run itself tells all of it.
_REPORTED = ("snapshot", "created", "consistency", "window_seconds", "seconds", "failures", "notes")
_STOPPED = "It was stopped by order."
_BEFORE = "It was stopped before it began."
_UNKNOWN = "The server does not know of it any longer."
_INTERRUPTED = "Headstart was started anew while it did this. See what there is, and order it again."


class Doer(Protocol):
    """Who does what is ordered."""

    house: House

    def handle(self, request: Mapping[str, Any], tell: Tell) -> Any:
        """As the command line asks it."""
        ...

    def restore_into(self) -> Path | None: ...

    def rehearse(self, snapshot: str) -> Proof:
        """Raises ``Denied`` where the host does not offer itself."""
        ...

    def boot(self, snapshot: str, hours: float, ending: Ending, tell: Tell) -> dict[str, Any]:
        """Until it has ended. Raises ``Denied`` as ``rehearse``."""
        ...


class Errands:
    """``wake`` is called when there is something to tell. For the liaison's thread, but for what is being done."""

    def __init__(self, doer: Doer, wake: Callable[[], None]) -> None:
        self._doer = doer
        self._wake = wake
        self._outbox = Outbox(doer.house.journal)
        self._lock = threading.Lock()
        self._progress: dict[str, dict[str, Any]] = {}
        self._boots: dict[str, Ending] = {}
        self._threads: list[threading.Thread] = []
        self._hand = self._outbox.orders()
        begun = [each for each in self._hand.values() if each["state"] == "begun"]
        for each in begun:
            each |= {"state": "failed", "result": {"error": _INTERRUPTED}}
        if begun:
            self._outbox.put_orders(self._hand)

    def told(self) -> dict[str, dict[str, Any]]:
        """What the server is to know of those in hand."""
        with self._lock:
            return {
                order: {
                    "state": each["state"] if each["state"] in _OVER else "taken",
                    "progress": self._progress.get(order),
                    "result": each["result"],
                }
                for order, each in self._hand.items()
                if each["state"] != "known"
            }

    def take(self, offered: Sequence[Offered]) -> bool:
        """Whether there are new ones, of which the server is to be told."""
        with self._lock:
            busy = [each for each in self._hand.values() if each["state"] in ("taken", "begun")]
            room = MOST - sum(each["kind"] not in _QUICK for each in busy)
            unknown = [each for each in offered if each.id not in self._hand]
            long = [each.id for each in unknown if each.kind not in _QUICK][: max(0, room)]
            held = sum(each["state"] != "known" for each in self._hand.values())
            new = [each for each in unknown if each.kind in _QUICK or each.id in long][: max(0, MOST_TOLD - held)]
            hand = dict(self._hand)
            for each in new:
                order = {"kind": each.kind, "vm": each.vm, "arguments": dict(each.arguments)}
                hand[each.id] = {**order, "state": "taken", "result": {}}
            if new:
                self._keep(hand)
        return bool(new)

    def heard(self, states: Mapping[str, str]) -> None:
        """What the server says of those in hand."""
        with self._lock:
            hand = {order: dict(each) for order, each in self._hand.items()}
            stopped = [order for order, each in hand.items() if _pair(each, states.get(order)) == ("taken", "stopping")]
            for order in stopped:
                hand[order] |= {"state": "failed", "result": {"error": _BEFORE}}
            for order, ending in self._boots.items():
                if (state := states.get(order)) not in (None, "taken"):
                    ending.ask(_STOPPED if state == "stopping" else _UNKNOWN)
            begin = [order for order, each in hand.items() if _pair(each, states.get(order)) == ("taken", "taken")]
            gone = [order for order, each in hand.items() if _is_gone(each, states.get(order))]
            for order in begin:
                hand[order]["state"] = "begun"
            for order in gone:
                self._progress.pop(order, None)
                if hand.pop(order)["state"] in _OVER:
                    hand[order] = {"state": "known"}
            known = [order for order, each in hand.items() if each["state"] == "known"]
            for order in known[: max(0, len(known) - _REMEMBERED)]:
                del hand[order]
            if stopped or begin or gone:
                self._keep(hand)
            todo = [(order, dict(hand[order])) for order in begin]
            self._boots |= {order: Ending() for order, each in todo if each["kind"] == "boot"}
        for order, each in todo:
            thread = threading.Thread(target=self._do, args=(order, each), name=f"order {order[:8]}", daemon=True)
            thread.start()
            if each["kind"] == "boot":
                self._threads = [*(other for other in self._threads if other.is_alive()), thread]

    def _keep(self, hand: dict[str, dict[str, Any]]) -> None:
        """Durable before it holds: what is only said to be begun would never be."""
        self._outbox.put_orders(hand)
        self._hand = hand

    def end_boots(self, reason: str) -> None:
        """Of VMs that run by order."""
        with self._lock:
            for ending in self._boots.values():
                ending.ask(reason)

    def join(self, seconds: float) -> None:
        """Until these have ended, at most for so long."""
        deadline = time.monotonic() + seconds
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))

    def _do(self, order: str, each: Mapping[str, Any]) -> None:
        vm, kind = str(each["vm"] or ""), str(each["kind"])
        log.decision(vm, event="order", kind=kind, order=order)
        try:
            state, result = "done", self._result(order, kind, vm, each["arguments"])
        except errors.HeadstartError as error:
            message = " ".join((str(error), *getattr(error, "__notes__", ())))
            state, result = "failed", {"error": message, "kind": errors.kind(error)}
        except Exception as error:
            # An order that this release cannot do must not end anything else.
            _log.error("An order failed in a way that it should not.", exc_info=error)
            state, result = "failed", {"error": f"{type(error).__name__}: {error}", "kind": "HeadstartError"}
        log.decision(vm, event=f"order-{state}", kind=kind, order=order, reason=result.get("error"))
        try:
            with self._lock:
                self._boots.pop(order, None)
                self._progress.pop(order, None)
                if order in self._hand:
                    self._hand[order] |= {"state": state, "result": result}
                    self._outbox.put_orders(self._hand)
        except errors.HeadstartError as error:
            # The daemon ends: the next one says that it was interrupted.
            _log.warning("How an order ended cannot be noted: %s", error)
        self._wake()

    def _result(self, order: str, kind: str, vm: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
        def progress(what: str, done: int, total: int) -> None:
            self._progress[order] = {"what": plain.line(what, 100), "done": done, "total": total}

        def tell(values: Mapping[str, Any]) -> None:
            if isinstance(found := values.get("progress"), Mapping):
                progress(str(found["what"]), int(found["done"]), int(found["total"]))

        match kind:
            case "backup":
                report = self._doer.handle({"do": "backup", "vm": vm, "options": None}, tell)
                return {name: report[name] for name in _REPORTED if name in report}
            case "pause" | "resume" | "cancel":
                return dict(self._doer.handle({"do": kind, "vm": vm}, tell))
            case "restore":
                return restoring.restore(self._doer.house, self._doer.restore_into(), arguments, progress)
            case "rehearse":
                proof = self._doer.rehearse(str(arguments.get("snapshot", "")))
                return asdict(proof)
            case "boot":
                return self._boot(order, arguments)
        raise errors.Unsupported(f"This host does not know how to '{plain.line(kind, 50)}': it is of another version.")

    def _boot(self, order: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
        def tell(values: Mapping[str, Any]) -> None:
            if (before := self._progress.get(order)) != values:
                self._progress[order] = dict(values)
                if before is None:
                    self._wake()

        hours = arguments.get("hours")
        if not isinstance(hours, int | float):
            raise errors.Usage("The order does not say for how many hours the VM is to run.")
        return self._doer.boot(str(arguments.get("snapshot", "")), float(hours), self._boots[order], tell)


def _pair(each: Mapping[str, Any], state: str | None) -> tuple[str, str | None]:
    return each["state"], state


def _is_gone(each: Mapping[str, Any], state: str | None) -> bool:
    """It is over, and the server knows; or it was not begun, and is not to be."""
    if state is None or each["state"] == "begun":
        return False
    return state not in ("taken", "stopping") if each["state"] in ("taken", *_OVER) else False
