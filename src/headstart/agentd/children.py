"""Processes of ours that outlive us, so that they can put right what we leave when we die.

A child has two pipes: orders to it, one byte each, and news from it, lines of JSON. That we are dead, or
want no more of it, is the end of the orders.
"""

import json
import os
import select
import signal
import time
from typing import Any, Callable, Dict, List

from headstart.agentd import priority


class Ended(Exception):
    """There will be no more news."""


class Line:
    """The child's end."""

    def __init__(self, orders: int, news: int) -> None:
        self._orders = orders
        self._news = news

    def tell(self, **news: Any) -> None:
        try:
            os.write(self._news, json.dumps(news).encode() + b"\n")
        except OSError:
            # Nobody is left to be told.
            pass

    def ordered(self, deadline: float, *also: int) -> bool:
        """Until there is an order, or the end of orders; whether there is. Also returns when one of ``also`` is
        readable."""
        rest = max(0.0, deadline - time.monotonic())
        return self._orders in select.select([self._orders, *also], [], [], rest)[0]

    def order(self) -> bytes:
        """Empty at the end of orders."""
        return os.read(self._orders, 1)


class Child:
    """Our end. ``body`` runs in the child."""

    def __init__(self, body: Callable[[Line], None]) -> None:
        """Raises ``OSError``."""
        orders, self._orders = os.pipe()
        #: Readable when there are news.
        self.news, told = os.pipe()
        self._pending = b""
        between = os.fork()
        if between == 0:
            _become(body, orders, told)
        os.close(orders)
        os.close(told)
        # It ends at once, and its child is nobody's: init's.
        os.waitpid(between, 0)
        os.set_blocking(self.news, False)

    def order(self, order: bytes) -> bool:
        """False if the child is gone."""
        try:
            return os.write(self._orders, order) == len(order)
        except OSError:
            return False

    def heard(self) -> List[Dict[str, Any]]:
        """News since the last call. Raises ``Ended``."""
        try:
            data = os.read(self.news, 65536)
        except BlockingIOError:
            return []
        if not data:
            raise Ended
        lines = (self._pending + data).split(b"\n")
        self._pending = lines.pop()
        return [json.loads(line.decode()) for line in lines]

    def release(self) -> None:
        """The end of orders."""
        os.close(self._orders)

    def close(self) -> None:
        """No more news are wanted."""
        os.close(self.news)


def _become(body: Callable[[Line], None], orders: int, news: int) -> None:
    try:
        # Before anything else: it is needed for what must not wait.
        priority.normal()
        if os.fork() == 0:
            os.setsid()
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                signal.signal(number, signal.SIG_IGN)
            _let_go(orders, news)
            body(Line(orders, news))
    finally:
        os._exit(0)


def _let_go(*kept: int) -> None:
    """Of all other descriptors: whoever follows us needs the port, and nothing of ours goes to a log."""
    nothing = os.open("/dev/null", os.O_RDWR)
    for number in range(3):
        os.dup2(nothing, number)
    for name in os.listdir("/proc/self/fd"):
        number = int(name)
        if number > 2 and number not in kept:
            try:
                os.close(number)
            except OSError:
                # The one by which the folder was listed.
                pass
