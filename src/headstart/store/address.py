"""From the address of a repository to its store."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import unquote, urlsplit

from headstart import errors
from headstart.store import contract, local

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")


def open_store(url: str) -> contract.Store:
    """The store at ``url``: a path or ``file:///path``. Touches nothing yet; else raises ``Usage``."""
    scheme = _SCHEME.match(url)
    if scheme is None:
        return local.LocalStore(_directory(url, url))
    if scheme[1].lower() != "file":
        raise errors.Usage(
            f"{url}: there is no kind of repository called {scheme[1]!r}. Use a path or file:///path.",
            url=url,
        )
    parts = urlsplit(url)
    if parts.netloc not in ("", "localhost") or parts.query or parts.fragment:
        raise errors.Usage(f"{url}: a directory of this machine is written file:///path.", url=url)
    return local.LocalStore(_directory(unquote(parts.path), url))


def local_directory(url: str) -> Path | None:
    """The directory of this machine that ``url`` names; None where the store is elsewhere. Raises ``Usage``."""
    found = open_store(url)
    return found.root if isinstance(found, local.LocalStore) else None


def _directory(path: str, url: str) -> Path:
    if not path or "\0" in path:
        raise errors.Usage(f"{url!r} does not name a directory.", url=url)
    return Path(path).expanduser().absolute()
