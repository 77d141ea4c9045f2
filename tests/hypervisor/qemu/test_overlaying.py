"""Overlays of a bare QEMU where a step of theirs goes wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from headstart import errors
from headstart.hypervisor.contract import Start
from headstart.hypervisor.qemu.overlaying import Overlaying
from headstart.wire.qmp import Qmp
from tests.hypervisor.qemu import bare
from tests.hypervisor.qemu.test_anchor import BLOCK, DISK, arguments, connected, head, rotate
from tests.kit import layers

pytestmark = pytest.mark.vm


@pytest.mark.parametrize("failure", [errors.Unreachable("It did not answer within 60 s."), KeyboardInterrupt()])
def test_an_overlay_of_which_nobody_told_whether_it_was_put_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failure: BaseException
) -> None:
    """QEMU comes to the order when we have given up: what the guest writes from then on is there after a restart."""
    execute = Qmp.execute

    def late(qmp: Qmp, command: str, /, **values: Any) -> Any:
        told = execute(qmp, command, **values)
        if command == "transaction":
            raise failure
        return told

    link = head(tmp_path)
    with bare.running(*arguments(link)) as vm:
        with monkeypatch.context() as patched, connected(vm) as machine:
            patched.setattr(Qmp, "execute", late)
            with pytest.raises(type(failure)):
                machine.transact([Start(DISK, "a")])
        vm.write(DISK, 0, BLOCK, 1)
        vm.qmp("human-monitor-command", command_line=f"qemu-io -d /machine/peripheral/{DISK} flush")
    with bare.running(*arguments(link)) as vm:
        assert vm.read_is(DISK, 0, BLOCK, 1)
        rotate(vm, "b")
        assert len(layers.chain(link)) == 2
