"""What the server says of policies: a document that is kept, and holds until another comes.

A host goes on with it while the server is away, for as long as that takes. Its own files come first, and commands that
run as root come from these alone.
"""

from __future__ import annotations

import hashlib
import logging
import tomllib
from dataclasses import replace
from datetime import datetime
from pathlib import Path

from headstart import durable, errors
from headstart.host import config
from headstart.host.policy import Config

_log = logging.getLogger("headstart.host")

#: In the directory of the state.
FILE = "server-policies.toml"
#: Bytes.
LONGEST = 4 << 20
_TABLES = ("policy", "vm", "default")


def version_of(text: str) -> str:
    """By which the server names it."""
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def keep(state: Path, text: str, now: datetime) -> str:
    """In place of the one before, if it can be used; its version. Raises ``Usage`` with what is wrong."""
    _read(state / FILE, text, now)
    durable.replace(state / FILE, text.encode())
    return version_of(text)


def kept(state: Path) -> str:
    """The version of the one that is kept; empty: there is none, or it cannot be read and another is to be fetched."""
    try:
        text = _text(state / FILE)
    except errors.Usage:
        return ""
    return "" if text is None else version_of(text)


def forget(state: Path) -> None:
    """The host is of no server, or of another one."""
    (state / FILE).unlink(missing_ok=True)


def beside(local: Config, state: Path, now: datetime, said: Config | None = None) -> Config:
    """The host's own configuration, and beneath it what is kept; where that cannot be used, what was ``said`` before
    stays, which is told."""
    file = state / FILE
    version = ""
    try:
        text = _text(file)
        if text is None:
            return local
        version = version_of(text)
        return together(local, replace(_read(file, text, now), server=version))
    except errors.HeadstartError as error:
        _log.error("What the server said of policies is not used: %s", error)
        return replace(local if said is None else together(local, said), refused=(version, str(error)))


def together(local: Config, said: Config) -> Config:
    own = {each.pattern for each in local.assignments}
    others = [each for each in said.assignments if each.pattern not in own]
    overridden = [f"policy.{name}" for name in said.policies if name in local.policies]
    overridden += [f"vm.{each.pattern}" for each in said.assignments if each.pattern in own]
    overridden += ["default"] if local.decided and said.decided else []
    return replace(
        local,
        policies={**said.policies, **local.policies},
        assignments=(*local.assignments, *(replace(each, remote=True) for each in others)),
        default=local.default if local.decided else said.default,
        warnings=(*local.warnings, *said.warnings),
        server=said.server,
        overridden=tuple(overridden),
        said=said,
    )


def _text(file: Path) -> str | None:
    try:
        return file.read_bytes().decode()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise errors.Usage(f"{file} cannot be read: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise errors.Usage(f"{file} is not text in UTF-8.") from error


def _read(file: Path, text: str, now: datetime) -> Config:
    _refuse_commands(text)
    return config.read(file, text, now, _TABLES)


def _refuse_commands(text: str) -> None:
    """Whoever reaches the server must not reach root on all hosts."""
    try:
        found = tomllib.loads(text).get("policy", {})
    except (ValueError, RecursionError):
        return  # told better by who reads it
    if not isinstance(found, dict):
        return
    named = [name for name, policy in found.items() if isinstance(policy, dict) and "hooks" in policy]
    if named:
        raise errors.Usage(
            f"The policy {named[0]!r} of the server has hooks. These are commands that run as root: they stand in this"
            " host's own files, or nowhere."
        )
