"""From the address of a repository to its store."""

from __future__ import annotations

import contextlib
import re
from pathlib import Path
from urllib.parse import SplitResult, unquote, urlsplit, urlunsplit

from headstart import errors
from headstart.store import archive, contract, credentials, local
from headstart.store.retrying import PATIENCE, RetryingStore

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
_KINDS = "a path, file:///path, s3://bucket/prefix, gs://bucket/prefix, az://container/prefix or https://server/name"
#: What all of S3, Google and Azure take.
_BUCKET = re.compile(r"[a-z0-9][a-z0-9._-]{1,61}[a-z0-9]")
#: Buckets of S3 in one zone list in no order, and have neither versions nor locks.
_EXPRESS = "--x-s3"


def open_store(url: str, patience: float = PATIENCE) -> contract.Store:
    """The store at ``url``. Changes and reads nothing yet; else raises ``Usage``. ``patience``: how long one that is
    not at hand is asked again, in seconds."""
    scheme = _SCHEME.match(url)
    if scheme is None:
        return _in_path(_directory(url, url))
    kind = scheme[1].lower()
    if kind in ("s3", "gs", "az"):
        return _in_bucket(kind, url, patience)
    if kind in ("https", "http"):
        return _at_server(url, patience)
    credentials.refuse(url)
    if kind != "file":
        raise errors.Usage(f"{url}: there is no kind of repository called {scheme[1]!r}. Use {_KINDS}.", url=url)
    parts = _split(url)
    if parts.netloc not in ("", "localhost"):
        raise errors.Usage(f"{url}: a directory of this machine is written file:///path.", url=url)
    return _in_path(_directory(unquote(parts.path), url))


def canonical(url: str) -> str:
    """One spelling for all that name the same place. Raises ``Usage``."""
    scheme = _SCHEME.match(url)
    kind = "file" if scheme is None else scheme[1].lower()
    if kind == "file":
        return str(_directory(url if scheme is None else unquote(_split(url).path), url).resolve())
    parts = _split(url)
    path = parts.path.strip("/")
    if kind not in ("https", "http"):
        return f"{kind}://{parts.netloc}/{path}"
    # Loading what speaks HTTP takes its time.
    from headstart.store.membership import identity_for, server_of

    if not path:
        with contextlib.suppress(errors.Usage, errors.Damaged):
            path = identity_for(url)[1] or ""
    return f"{server_of(url)}/{path}"


def local_directory(url: str) -> Path | None:
    """The directory of this machine that ``url`` names; None where the store is elsewhere. Raises ``Usage``."""
    found = open_store(url)
    return found.root if isinstance(found, local.LocalStore) else None


def _in_path(path: Path) -> contract.Store:
    """A file is a repository that was exported."""
    return archive.ArchiveStore(path) if path.is_file() else local.LocalStore(path)


def _in_bucket(kind: str, url: str, patience: float) -> contract.Store:
    # Of no use to those who have a directory, and slow to load.
    from headstart.store import buckets

    parts = _split(url)
    bucket = parts.netloc
    if not _BUCKET.fullmatch(bucket) or bucket.endswith(_EXPRESS):
        raise errors.Usage(f"{url}: {bucket!r} cannot be the name of a bucket. Write {kind}://bucket/prefix.", url=url)
    prefix = parts.path.strip("/")
    if prefix:
        try:
            contract.check_key(prefix)
        except ValueError:
            raise errors.Usage(
                f"{url}: the prefix takes letters, digits, '.', '_' and '-' in parts joined by '/', none beginning with"
                " a dot.",
                url=url,
            ) from None
    return buckets.open_bucket(kind, bucket, prefix, patience)


def _at_server(url: str, patience: float) -> contract.Store:
    # As above: loading what speaks HTTP takes its time.
    from headstart.store.membership import identity_for
    from headstart.store.server import ServerStore
    from headstart.wire.https import Client

    name = _split(url).path.strip("/")
    identity, own = identity_for(url)
    if not (name or own) or "/" in name:
        raise errors.Usage(f"{url}: name the repository: https://SERVER/REPOSITORY.", url=url)
    client = Client(identity, lambda: identity_for(url)[0])
    return RetryingStore(ServerStore(client, name or own or ""), patience=patience)


def _split(url: str) -> SplitResult:
    credentials.refuse(url)
    try:
        parts = urlsplit(url)
    except ValueError as error:
        raise errors.Usage(f"{url}: {error}. Write {_KINDS}.", url=url) from error
    if parts.query or parts.fragment:
        rest = urlunsplit(parts._replace(query="", fragment=""))
        raise errors.Usage(f"{rest}: an address has no '?' and no '#'. Write {_KINDS}.", url=rest)
    return parts


def _directory(path: str, url: str) -> Path:
    if not path or "\0" in path:
        raise errors.Usage(f"{url!r} does not name a directory.", url=url)
    return Path(path).expanduser().absolute()
