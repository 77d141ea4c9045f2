"""The folder of sockets: of a user alone, but for root's, through which QEMU's user passes."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from headstart.restore import runfolder


def test_a_user_has_his_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert runfolder.ensure({"XDG_RUNTIME_DIR": str(tmp_path)}) == tmp_path / "headstart"
    assert (tmp_path / "headstart").stat().st_mode & 0o777 == 0o700
    assert runfolder.ensure({}) is None


def test_others_pass_through_that_of_root_whoever_made_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An older command left it closed, and what another user's QEMU has in it could not be reached."""
    system = tmp_path / "headstart"
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(runfolder, "_SYSTEM", system)
    system.mkdir(mode=0o700)
    assert runfolder.ensure({}) == system
    assert system.stat().st_mode & 0o777 == 0o755
