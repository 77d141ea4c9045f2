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
#: Before what follows HEADSTART_ in these, for the passwords of another repository, and for one to be set.
FROM, TO, NEW = "FROM_", "TO_", "NEW_"
#: A password command may ask a person or a server.
COMMAND_SECONDS = 120.0


def ask(environment: Mapping[str, str]) -> bytes:
    """The password of a repository that exists."""
    return _given(environment) or _checked(_prompt("Password of the repository: ").encode(), "The password")


def ask_for_second(environment: Mapping[str, str], which: str, url: str) -> bytes:
    """That of a second one at ``url``: what its own variables say, if there are any, else the first one's."""
    given = _given(environment, which) or _given(environment)
    return given or _checked(_prompt(f"Password of {url}: ").encode(), "The password")


def named(environment: Mapping[str, str]) -> bytes | None:
    """Without asking at a terminal; None where nothing is said."""
    return _given(environment)


def ask_for_new(environment: Mapping[str, str], which: str = "") -> bytes:
    """The password of a repository that is to be made, or (``NEW``) a further one; typed in, it is asked for twice."""
    given = _given(environment, which)
    if given is not None:
        return given
    first = _prompt("New password: " if which else "Password for the new repository: ", which)
    if first != _prompt("Once more: ", which):
        raise errors.Usage("The two passwords differ. Nothing was made: start again.")
    return _checked(first.encode(), "The password")


def ask_for_export(environment: Mapping[str, str]) -> bytes:
    """The one of a file that is to be made: what ``TO`` says, else the repository's, else typed in twice."""
    return _given(environment, TO) or _given(environment) or ask_for_new(environment, TO)


def _given(environment: Mapping[str, str], which: str = "") -> bytes | None:
    password, file, command = (_variable(each, which) for each in (PASSWORD, FILE, COMMAND))
    if environment.get(password):
        return environment[password].encode(errors="surrogateescape")
    if environment.get(file):
        return _checked(_of_file(file, Path(environment[file])), f"{file}: the first line of {environment[file]}")
    if environment.get(command):
        found = _of_command(command, environment[command])
        return _checked(found, f"{command}: the first line that the command prints")
    return None


def _variable(name: str, which: str) -> str:
    return name.replace("HEADSTART_", f"HEADSTART_{which}")


def _of_file(variable: str, path: Path) -> bytes:
    try:
        return _first_line(path.read_bytes())
    except OSError as error:
        raise errors.Usage(
            f"{variable}: {path} cannot be read: {error.strerror}. Correct the path, or its permissions."
        ) from error


def _of_command(variable: str, command: str) -> bytes:
    try:
        done = subprocess.run(
            ["/bin/sh", "-c", command], stdin=subprocess.DEVNULL, capture_output=True, timeout=COMMAND_SECONDS
        )
    except subprocess.TimeoutExpired:
        raise errors.Usage(
            f"{variable}: the command did not end within {COMMAND_SECONDS:.0f} s. "
            "Run it by hand to see what it waits for."
        ) from None
    if done.returncode != 0:
        said = done.stderr.decode(errors="replace").strip()
        raise errors.Usage(
            f"{variable}: the command failed with status {done.returncode}. {said or 'Run it by hand to see why.'}"
        )
    return _first_line(done.stdout)


def _first_line(content: bytes) -> bytes:
    """Editors and commands end lines; passwords have none inside."""
    return content.split(b"\n", 1)[0].removesuffix(b"\r")


def _checked(password: bytes, what: str) -> bytes:
    if not password:
        raise errors.Usage(f"{what} is empty. A password is needed.")
    return password


def _prompt(text: str, which: str = "") -> str:
    password, file, command = (_variable(each, which) for each in (PASSWORD, FILE, COMMAND))
    if not sys.stdin.isatty():
        raise errors.Usage(
            f"A password is needed, and there is no terminal to ask at. Set {file}, {command} or {password}."
        )
    try:
        return getpass.getpass(text)
    except EOFError:
        raise errors.Usage(f"No password was given. Type it, or set {file}, {command} or {password}.") from None
