"""The product, sending the commands of a batch one by one, so that it can be killed, or hang, between two of them."""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence
from typing import Any

from headstart.cli import main as product
from headstart.wire.qmp import Command, CommandFailed, Qmp

#: After how many commands to hang, if at all.
HANG = "HEADSTART_TEST_HANG_AFTER"


def send(qmp: Qmp, command: Command) -> Any:
    try:
        return qmp.call(*command)
    except CommandFailed as error:
        return error


def batch(qmp: Qmp, commands: Sequence[Command]) -> list[Any]:
    outcomes = []
    for command in commands:
        outcomes.append(send(qmp, command))
        if os.environ.get(HANG) == str(len(outcomes)):
            os.kill(os.getpid(), signal.SIGSTOP)
    return outcomes


def main() -> object:
    setattr(Qmp, "batch", batch)  # noqa: B010
    return product.main()
