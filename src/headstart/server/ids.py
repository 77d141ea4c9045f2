"""Identifiers that the server gives out: random, and telling nothing."""

from __future__ import annotations

import re
import secrets

_LENGTH = 16
_ID = re.compile(rf"[0-9a-f]{{{2 * _LENGTH}}}")
#: Of tenants, hosts, policies, repositories and people: safe in URLs, file names and logs.
NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"
_NAME = re.compile(NAME)


def new() -> str:
    return secrets.token_hex(_LENGTH)


def is_id(text: str) -> bool:
    return _ID.fullmatch(text) is not None


def is_name(text: str) -> bool:
    return _NAME.fullmatch(text) is not None
