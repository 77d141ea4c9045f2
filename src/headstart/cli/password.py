"""Where the password of the repository comes from: the environment, a file, a command, or the terminal."""

from __future__ import annotations

import getpass
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from headstart import errors

#: In this order.
PASSWORD = "HEADSTART_PASSWORD"
FILE = "HEADSTART_PASSWORD_FILE"
COMMAND = "HEADSTART_PASSWORD_COMMAND"
#: A password command may ask a person or a server.
COMMAND_SECONDS = 120.0


def ask(environment: Mapping[str, str]) -> bytes:
    """The password of a repository that exists."""
    return _given(environment) or _checked(_prompt("Password of the repository: ").encode(), "The password")


def named(environment: Mapping[str, str]) -> bytes | None:
    """Without asking at a terminal; None where nothing is said."""
    return _given(environment)


def of_second(environment: Mapping[str, str]) -> dict[str, str]:
    """The environment as it is for a second repository: what its own variables say, if there are any."""
    names = {f"HEADSTART_FROM_{name.removeprefix('HEADSTART_')}": name for name in (PASSWORD, FILE, COMMAND)}
    own = {name: environment[theirs] for theirs, name in names.items() if environment.get(theirs)}
    return {**environment, **dict.fromkeys(names.values(), ""), **own} if own else dict(environment)


def ask_for_new(environment: Mapping[str, str]) -> bytes:
    """The password of a repository that is to be made; typed in, it is asked for twice."""
    given = _given(environment)
    if given is not None:
        return given
    first = _prompt("Password for the new repository: ")
    if first != _prompt("Once more: "):
        raise errors.Usage("The two passwords differ. Nothing was made: start again.")
    return _checked(first.encode(), "The password")


def _given(environment: Mapping[str, str]) -> bytes | None:
    if environment.get(PASSWORD):
        return environment[PASSWORD].encode(errors="surrogateescape")
    if environment.get(FILE):
        return _checked(_of_file(Path(environment[FILE])), f"{FILE}: the first line of {environment[FILE]}")
    if environment.get(COMMAND):
        return _checked(_of_command(environment[COMMAND]), f"{COMMAND}: the first line that the command prints")
    return None


def _of_file(path: Path) -> bytes:
    try:
        return _first_line(path.read_bytes())
    except OSError as error:
        raise errors.Usage(
            f"{FILE}: {path} cannot be read: {error.strerror}. Correct the path, or its permissions."
        ) from error


def _of_command(command: str) -> bytes:
    try:
        done = subprocess.run(
            ["/bin/sh", "-c", command], stdin=subprocess.DEVNULL, capture_output=True, timeout=COMMAND_SECONDS
        )
    except subprocess.TimeoutExpired:
        raise errors.Usage(
            f"{COMMAND}: the command did not end within {COMMAND_SECONDS:.0f} s. "
            "Run it by hand to see what it waits for."
        ) from None
    if done.returncode != 0:
        said = done.stderr.decode(errors="replace").strip()
        raise errors.Usage(
            f"{COMMAND}: the command failed with status {done.returncode}. {said or 'Run it by hand to see why.'}"
        )
    return _first_line(done.stdout)


def _first_line(content: bytes) -> bytes:
    """Editors and commands end lines; passwords have none inside."""
    return content.split(b"\n", 1)[0].removesuffix(b"\r")


def _checked(password: bytes, what: str) -> bytes:
    if not password:
        raise errors.Usage(f"{what} is empty. A password is needed.")
    return password


def _prompt(text: str) -> str:
    if not sys.stdin.isatty():
        raise errors.Usage(
            f"A password is needed, and there is no terminal to ask at. Set {FILE}, {COMMAND} or {PASSWORD}."
        )
    try:
        return getpass.getpass(text)
    except EOFError:
        raise errors.Usage(f"No password was given. Type it, or set {FILE}, {COMMAND} or {PASSWORD}.") from None
