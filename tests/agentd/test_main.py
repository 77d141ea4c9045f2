"""agentd's command line."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from headstart.guest import keys, package


def run(folder: Path, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    package.write(folder / "agentd")
    command = [sys.executable, "-I", "-S", str(folder / "agentd"), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=20)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--tcp", "127.0.0.1:0"), "need each other"),
        (("--keys", "/nowhere"), "need each other"),
        (("--vsock", "--tcp", "127.0.0.1:0"), "not allowed with"),
        (("--port", "/dev/null", "--vsock"), "not allowed with"),
    ],
)
def test_options_that_do_not_go_together(tmp_path: Path, arguments: tuple[str, ...], said: str) -> None:
    done = run(tmp_path, *arguments)
    assert done.returncode == 2
    assert said in done.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--port", "/nowhere"), "No such file"),
        (("--tcp", "127.0.0.1:0", "--keys", "/nowhere"), "No such file"),
        (("--tcp", "127.0.0.1:http!", "--keys", "keys"), "invalid literal"),
        (("--tcp", "192.0.2.1:4000", "--keys", "keys"), "assign requested address"),
    ],
)
def test_what_cannot_be_opened_is_told(tmp_path: Path, arguments: tuple[str, ...], said: str) -> None:
    keys.make(tmp_path / "keys")
    done = run(tmp_path, *(tmp_path / "keys" if word == "keys" else word for word in arguments))
    assert done.returncode == 1
    assert done.stderr.startswith("headstart-agentd: ") and said in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_secret_that_can_be_guessed(tmp_path: Path) -> None:
    keys.make(tmp_path / "keys")
    (tmp_path / "keys" / "secret").write_text("1234\n")
    done = run(tmp_path, "--tcp", "127.0.0.1:0", "--keys", tmp_path / "keys")
    assert (done.returncode, "too short" in done.stderr) == (1, True)
