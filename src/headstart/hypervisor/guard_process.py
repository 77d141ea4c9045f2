"""The guard: a process of its own that continues a VM and thaws a guest if we cannot.

Runs as ``python -I -S guard_process.py CONTROL QMP FREEZER THAW NOTE`` with inherited descriptors, the bytes
(in hexadecimal) that make FREEZER (may be -1) thaw, and the name of a file that says that the VM was
stopped by us; few modules, so that it is up in milliseconds. One byte on CONTROL is one order, answered by
the same byte:

====  ===============================================================
 P p   the VM is about to be stopped by us / has been continued
 F f   the guest is about to be frozen by us / has been thawed
====  ===============================================================

P makes NOTE first; where that fails the answer is ``-``, and nothing may be stopped.

It acts when the other end closes (we died, by whatever signal) or when a state lasts too long (we
hang). On a busy host our stop may come only after that: so the VM is continued again and again until ``p``,
and once more at the end. It writes on the very connections that we used: they stay open with us gone, and
a monitor would not greet a second client. It holds them until what it ordered is done: QEMU, which may hang in a
stop for as long as its storage does, drops the orders of a monitor whose client has left.
"""

from __future__ import annotations

import os
import select
import signal
import sys
import time

#: A pause that we make is at most 50 ms, even if we hang.
PAUSE_SECONDS = 0.045
#: Then the VM is continued again, if its end is not told.
AGAIN_SECONDS = 1.0
#: No guest is frozen for longer than 10 s; to thaw it takes time, too.
FREEZE_SECONDS = 9.0
#: How long to wait for whoever thaws.
ANSWER_SECONDS = 5.0
#: How long to wait for QEMU, which greets nobody else before it answers. Then the note is for the next run.
STUCK_SECONDS = 3600.0
#: Between questions to QEMU, the first time and at most: an answer may have gone to whom we guarded.
ASK_SECONDS = 0.5, 60.0

#: In place of the answer to an order that is not followed.
REFUSED = b"-"

#: Parts of answers after which nothing has to be read any longer: the monitor's, and qga's or the agent's.
CONTINUED = (b"headstart-guard-end",)
THAWED = (b'{"return": ', b'"thawed":')

CONTINUE = b'{"execute": "cont", "id": "headstart-guard"}\n'
#: At the end: an answer to an earlier one, which we have read or not, tells nothing of a stop that came after it.
CONTINUE_LAST = b'{"execute": "cont", "id": "headstart-guard-end"}\n'
#: Answered after all that was ordered before.
ASK = b'{"execute": "query-status", "id": "headstart-guard-end"}\n'
QGA_THAW = b'\xff{"execute": "guest-fsfreeze-thaw"}\n'


def main(control: int, qmp: int, freezer: int, thaw: bytes, note: str) -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGPIPE):
        signal.signal(number, signal.SIG_IGN)
    deadlines = {b"P": 0.0, b"F": 0.0}
    limits = {b"P": PAUSE_SECONDS, b"F": FREEZE_SECONDS}
    actions = {b"P": (qmp, CONTINUE), b"F": (freezer, thaw)}
    thawed = False
    while True:
        waiting = [deadline for deadline in deadlines.values() if deadline]
        timeout = max(0.0, min(waiting) - time.monotonic()) if waiting else None
        if select.select([control], [], [], timeout)[0]:
            order = heard(control)
            if not order:
                break
            if order == b"P" and not noted(note):
                answer(control, REFUSED)
                continue
            state = order.upper()
            deadlines[state] = time.monotonic() + limits[state] if order == state else 0.0
            if state == b"F":
                thawed = False
            answer(control, order)
        now = time.monotonic()
        for state, deadline in deadlines.items():
            if deadline and now >= deadline:
                deadlines[state] = now + AGAIN_SECONDS if state == b"P" else 0.0
                thawed = thawed or state == b"F"
                send(*actions[state])
    step_aside()
    if deadlines[b"P"]:
        send(qmp, CONTINUE_LAST)
    if deadlines[b"F"]:
        send(freezer, thaw)
    if deadlines[b"P"] and answered(qmp, CONTINUED, STUCK_SECONDS, ASK):
        forget(note)
    if deadlines[b"F"] or thawed:
        answered(freezer, THAWED, ANSWER_SECONDS)


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


def step_aside() -> None:
    """Whoever reads what we and those we guarded write is not kept waiting for its end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)


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


def answered(descriptor: int, words: tuple[bytes, ...], seconds: float, question: bytes = b"") -> bool:
    """Wait for one of these words, asking again and again; True also if there is nobody (any longer) to say it."""
    now = time.monotonic()
    end = now + seconds
    pause, longest = ASK_SECONDS
    ask = now + pause if question else end
    seen = b""
    while descriptor >= 0:
        now = time.monotonic()
        if now >= end:
            return False
        if now >= ask:
            send(descriptor, question)
            pause = min(2 * pause, longest)
            ask = now + pause
        if not select.select([descriptor], [], [], max(0.0, min(ask, end) - now))[0]:
            continue
        try:
            data = os.read(descriptor, 65536)
        except BlockingIOError:
            continue
        except OSError:
            return True
        seen += data
        if not data or any(word in seen for word in words):
            return True
        seen = seen[-max(map(len, words)) :]
    return True


def noted(note: str) -> bool:
    """A later run may continue the VM, should we not live to do it."""
    try:
        os.close(os.open(note, os.O_WRONLY | os.O_CREAT, 0o600))
    except OSError:
        return False
    return True


def forget(note: str) -> None:
    """What the VM's owner stops from now on, nobody of ours continues."""
    try:
        os.unlink(note)  # noqa: PTH108 (pathlib takes longer to import than all the rest)
    except OSError:
        return


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), bytes.fromhex(sys.argv[4]), sys.argv[5])
