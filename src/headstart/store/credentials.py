"""Nobody's password stands in an address: those are shown, logged and kept."""

from __future__ import annotations

import re

from headstart import errors

#: What stands before the host, or the bucket. Half of all secret keys of AWS have a "/", and no address an "@" but that
#: of a directory.
_BEFORE = re.compile(r"^(?:((?!file:)[a-z][a-z0-9+.-]*://).*|(file://)[^/]*)@", re.IGNORECASE | re.DOTALL)


def shown(url: str) -> str:
    return _BEFORE.sub(r"\1\2...@", url)


def refuse(url: str) -> None:
    """Raises ``Usage``, which does not repeat them."""
    if _BEFORE.match(url):
        raise errors.Usage(
            f"{shown(url)}: an address holds no user and no password. Object storage finds its keys as its own tools do"
            " (AWS_PROFILE and the like), a server knows who has joined it."
        )
