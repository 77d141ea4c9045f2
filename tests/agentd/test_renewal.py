"""What of a renewal needs no guest: see tests/guest/test_renewal.py for the rest."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from headstart.agentd import messages, release, renewal
from headstart.agentd.session import Session
from headstart.agentd.work import Refused, Work
from headstart.guest import package


def session(renewing: renewal.Renewal) -> Session:
    def read(session: Session, request: int, payload: bytes) -> Work:
        raise NotImplementedError

    return Session(renewing.handlers(), read, renewing.take, dict, lambda told: True)


def test_check_tells_the_release(tmp_path: Path) -> None:
    package.write(tmp_path / "agentd")
    command = [sys.executable, "-I", "-S", str(tmp_path / "agentd"), "--port", "/nowhere", "--check"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == f"headstart-agentd {release.RELEASE} {package.digest(package.sources())}\n"


def program(file: Path | None) -> renewal.Program:
    made = renewal.Program()
    made.file = None if file is None else str(file)
    return made


def test_not_started_from_a_file() -> None:
    assert renewal.Program().file is None
    renewing = renewal.Renewal(program(None))
    with pytest.raises(Refused, match="not started from a file"):
        renewing.begin(session(renewing), 1, {"size": 1, "digest": ""})


@pytest.mark.parametrize("size", [0, -1, renewal.LONGEST + 1])
def test_sizes_that_no_agent_has(tmp_path: Path, size: int) -> None:
    renewing = renewal.Renewal(program(tmp_path / "agentd"))
    with pytest.raises(Refused) as caught:
        renewing.begin(session(renewing), 1, {"size": size, "digest": ""})
    assert caught.value.code == messages.WRONG


@pytest.mark.parametrize("told", [{}, {"size": "many", "digest": ""}, {"size": [], "digest": ""}])
def test_nonsense_is_no_renewal(tmp_path: Path, told: dict[str, Any]) -> None:
    renewing = renewal.Renewal(program(tmp_path / "agentd"))
    with pytest.raises((KeyError, TypeError, ValueError)):  # what a session makes a refusal of
        renewing.begin(session(renewing), 1, told)


def test_what_was_left_is_written_over_and_links_are_not_followed(tmp_path: Path) -> None:
    own, victim = tmp_path / "agentd", tmp_path / "victim"
    own.write_bytes(b"old")
    own.chmod(0o744)
    (tmp_path / "agentd.new").write_bytes(b"left behind" * 100)
    renewing = renewal.Renewal(program(own))
    renewing.begin(session(renewing), 1, {"size": 3, "digest": ""})
    found = (tmp_path / "agentd.new").stat()
    assert (found.st_size, found.st_mode & 0o777) == (3, 0o744)
    (tmp_path / "agentd.new").unlink()
    renewing = renewal.Renewal(program(own))
    victim.write_bytes(b"precious")
    (tmp_path / "agentd.new").symlink_to(victim)
    with pytest.raises(Refused, match="cannot be replaced"):
        renewing.begin(session(renewing), 1, {"size": 3, "digest": ""})
    assert victim.read_bytes() == b"precious"


def test_frames_out_of_place_are_ignored() -> None:
    renewal.Renewal(program(None)).take(0, b"nobody asked for this")


def test_the_command_for_another_file(monkeypatch: pytest.MonkeyPatch) -> None:
    made = program(None)
    made.words = ["python3", "-I", "-S", "/lib/agentd", "--port", "/dev/vport0p1"]
    monkeypatch.setattr(sys, "argv", made.words[3:])
    assert made.words_for("/new") == ["python3", "-I", "-S", "/new", "--port", "/dev/vport0p1"]
