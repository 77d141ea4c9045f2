"""The guard: a process of its own that continues a VM and thaws a guest if we cannot.

Runs as ``python -I -S guard_process.py CONTROL QMP FREEZER THAW NOTE`` with inherited descriptors, the bytes
(in hexadecimal) that make FREEZER (may be -1) thaw, and the name of a file that says that the VM was
stopped by us; few modules, so that it is up in milliseconds. One byte on CONTROL is one order, answered by
the same byte:

====  ===============================================================
 P p   the VM is about to be stopped by us / has been continued
 F f   the guest is about to be frozen by us / has been thawed
====  ===============================================================

It acts when the other end closes (we died, by whatever signal) or when a state lasts too long (we
hang). It writes on the very connections that we used: they stay open with us gone, and a monitor
would not greet a second client.
"""

from __future__ import annotations

import os
import select
import signal
import sys
import time

#: A pause that we make is at most 50 ms, even if we hang.
PAUSE_SECONDS = 0.045
#: No guest is frozen for longer than 10 s; to thaw it takes time, too.
FREEZE_SECONDS = 9.0
#: How long to go on reading, so that QEMU does not drop an order that nobody waits for.
ANSWER_SECONDS = 5.0

#: Beginnings of answers after which nothing has to be read any longer: the monitor's, qga's, the agent's.
ANSWERS = (b"headstart-guard", b'{"return": ', b'"thawed":')

CONTINUE = b'{"execute": "cont", "id": "headstart-guard"}\n'
QGA_THAW = b'\xff{"execute": "guest-fsfreeze-thaw"}\n'


def main(control: int, qmp: int, freezer: int, thaw: bytes, note: str) -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGPIPE):
        signal.signal(number, signal.SIG_IGN)
    deadlines = {b"P": 0.0, b"F": 0.0}
    limits = {b"P": PAUSE_SECONDS, b"F": FREEZE_SECONDS}
    actions = {b"P": (qmp, CONTINUE), b"F": (freezer, thaw)}
    while True:
        waiting = [deadline for deadline in deadlines.values() if deadline]
        timeout = max(0.0, min(waiting) - time.monotonic()) if waiting else None
        if select.select([control], [], [], timeout)[0]:
            order = heard(control)
            if not order:
                break
            state = order.upper()
            deadlines[state] = time.monotonic() + limits[state] if order == state else 0.0
            answer(control, order)
        for state, deadline in deadlines.items():
            if deadline and time.monotonic() >= deadline:
                deadlines[state] = 0.0
                send(*actions[state])
                forget(state, note)
    alive = [state for state, deadline in deadlines.items() if deadline]
    for state in alive:
        send(*actions[state])
        forget(state, note)
    linger([actions[state][0] for state in alive])


def heard(control: int) -> bytes:
    """An order; empty once the other end is closed, with answers that it has not read (``ECONNRESET``) or without."""
    try:
        return os.read(control, 1)
    except OSError:
        return b""


def answer(control: int, order: bytes) -> None:
    """Who gave an order may have died since: what it left stopped or frozen is undone all the same."""
    try:
        os.write(control, order)
    except OSError:
        return  # the next order that is heard is the end


def send(descriptor: int, message: bytes) -> None:
    """All of it, also where the descriptor does not block; a VM that is gone needs nothing."""
    end = time.monotonic() + ANSWER_SECONDS
    while message and descriptor >= 0 and time.monotonic() < end:
        try:
            message = message[os.write(descriptor, message) :]
        except BlockingIOError:
            select.select([], [descriptor], [], 0.1)
        except OSError:
            return


def forget(state: bytes, note: str) -> None:
    """What the VM's owner stops from now on, nobody of ours continues."""
    if state == b"P":
        try:
            os.unlink(note)  # noqa: PTH108 (pathlib takes longer to import than all the rest)
        except OSError:
            return


def linger(descriptors: list[int]) -> None:
    """Read answers until QEMU has had time to act; closing at once would drop queued orders."""
    end = time.monotonic() + ANSWER_SECONDS
    seen = {descriptor: b"" for descriptor in descriptors if descriptor >= 0}
    while seen and time.monotonic() < end:
        for descriptor in select.select(list(seen), [], [], end - time.monotonic())[0]:
            try:
                data = os.read(descriptor, 65536)
            except BlockingIOError:
                continue
            except OSError:
                data = b""
            seen[descriptor] += data
            if not data or any(answer in seen[descriptor] for answer in ANSWERS):
                del seen[descriptor]


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), bytes.fromhex(sys.argv[4]), sys.argv[5])
