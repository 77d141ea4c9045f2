"""What is noted of a VM: each is kept by itself, and goes with the VM."""

from __future__ import annotations

from headstart.state.journal import Journal
from headstart.state.noted import Noted
from headstart.state.values import Rollback, Vm

UNDER_WAY = Rollback("5afe", 12.5, True, "how", writing=True)


def test_what_is_noted_is_kept_by_vm() -> None:
    with Journal.in_memory() as journal:
        noted = Noted(journal)
        assert (noted.rollback("web"), noted.volumes("web"), noted.trimmed("web")) == (None, None, 0.0)
        noted.begin_rollback("web", UNDER_WAY)
        noted.put_volumes("web", {"volumes": ["ä"]})
        noted.put_trimmed("web", 1e10 / 3)
        assert noted.rollback("web") == UNDER_WAY
        assert noted.volumes("web") == {"volumes": ["ä"]}
        assert noted.trimmed("web") == 1e10 / 3
        assert (noted.rollback("app"), noted.volumes("app"), noted.trimmed("app")) == (None, None, 0.0)
        noted.end_rollback("web")
        assert noted.rollback("web") is None


def test_it_goes_with_the_vm() -> None:
    with Journal.in_memory() as journal:
        journal.add_vm(Vm("web"))
        noted = Noted(journal)
        noted.begin_rollback("web", UNDER_WAY)
        noted.put_volumes("web", [1])
        noted.put_trimmed("web", 5.0)
        journal.remove_vm("web")
        assert (noted.rollback("web"), noted.volumes("web"), noted.trimmed("web")) == (None, None, 0.0)
