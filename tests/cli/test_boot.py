"""What ``boot`` does with a VM that another command had it move."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from headstart import errors
from headstart.cli import boot
from headstart.restore.booting import moving, settling
from headstart.restore.booting.hold import Hold


class Guest:
    def __init__(self, *, runs: bool) -> None:
        self.runs = runs
        self.ended = self.stays = False
        self.orders: list[str] = []
        #: It is its own monitor.
        self.qmp = self

    def execute(self, order: str) -> None:
        self.orders.append(order)

    def stop(self) -> None:
        self.execute("stop")

    def go_on(self) -> None:
        self.execute("cont")


@pytest.mark.parametrize(
    ("runs", "gone_over", "kept", "orders"),
    [
        (True, False, True, []),
        (True, True, True, ["stop", "quit"]),
        (True, True, False, ["stop", "cont"]),
        # Its owner has stopped it.
        (False, False, True, []),
        (False, False, False, []),
        (False, True, True, ["quit"]),
        (False, True, False, []),
    ],
)
def test_a_move_that_fails(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, runs: bool, gone_over: bool, kept: bool, orders: list[str]
) -> None:
    """Only where a disk has gone over, and overlays are kept that lack what would be written, the VM is ended."""

    def move(qmp: Any, held: Hold, *rest: Any) -> None:
        if gone_over:
            held.begin()
            held.gone_over = True
        raise errors.TargetRefused("It cannot be made.")

    monkeypatch.setattr(settling, "prepared", lambda *told: settling.Home(tmp_path, {}))
    monkeypatch.setattr(moving, "move", move)
    guest = Guest(runs=runs)
    booted: Any = SimpleNamespace(
        instance=guest,
        overlays=SimpleNamespace(again=True, kept=kept),
        served=None,
        place=SimpleNamespace(variables=None),
        derived=SimpleNamespace(consoles=()),
    )
    source: Any = SimpleNamespace(repo=None, manifest=None)
    session: Any = SimpleNamespace(output=SimpleNamespace(note=lambda note: None))
    vm = boot._Moving(session, None, source, booted)
    with pytest.raises(errors.TargetRefused):
        vm.later(tmp_path, lambda *told: None)
    assert guest.orders == orders
