"""A store in a bucket of object storage: S3 and what speaks like it, Google Cloud Storage, Azure Blob Storage.

========  ===================================================================
create    PUT with If-None-Match: * (Google: x-goog-if-generation-match: 0)
read      GET, of a range with Range
list      GET ?prefix=, one request for each 1,000 objects
delete    DELETE
clock     HEAD of the server itself: any answer has a Date
========  ===================================================================
"""

from __future__ import annotations

import email.utils
import http.client
import ssl
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import obstore
from obstore import exceptions

from headstart import errors
from headstart.store import contract, replies
from headstart.store.patience import interruptibly

if TYPE_CHECKING:
    from obstore.store import ClientConfig

#: Seconds until a connection stands, and in which some byte of an answer must come.
CONNECT_SECONDS = 10
ANSWER_SECONDS = 60
#: Requests of a few hundred KiB each fill a line of 100 Mbit/s and 50 ms with less; this is for 1 Gbit/s.
WINDOW = 16
#: Seconds that the whole of one object may take: 32 MiB, several at a time, on a line of 2 Mbit/s.
TRANSFER_SECONDS = 900


@dataclass(frozen=True, slots=True)
class Bucket:
    """An open connection. ``reading`` and ``writing`` are stores of obstore, which differ in what they wait for;
    ``endpoint`` a URL of the server, and ``certificates`` a file of issuers to trust beside the system's."""

    reading: Any
    writing: Any
    endpoint: str
    certificates: str | None = None


def client_options(endpoint: str, certificates: str | None, *, writing: bool) -> ClientConfig:
    """For obstore. The answer to an upload begins when the upload has ended: it is not waited for like others."""
    options: ClientConfig = {
        "connect_timeout": f"{CONNECT_SECONDS}s",
        "timeout": f"{TRANSFER_SECONDS}s",
        "allow_http": endpoint.startswith("http://"),
    }
    if not writing:
        options["read_timeout"] = f"{ANSWER_SECONDS}s"
    if certificates:
        options["root_certificate"] = contents(certificates)
    return options


def contents(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError as error:
        raise errors.Usage(f"The CA bundle {path} cannot be read: {error.strerror}. Correct AWS_CA_BUNDLE.") from error


class ObjectStore:
    """Keeps the contract of :class:`contract.Store` below ``prefix`` (empty, or ending in a slash) of a bucket.

    ``connect`` is called once, when the bucket is first needed; what it raises is raised then, and tried again by the
    next request.
    """

    def __init__(self, url: str, prefix: str, connect: Callable[[], Bucket]) -> None:
        self._url = url
        self._prefix = prefix
        self._connect = connect
        self._lock = threading.Lock()
        self._connected: Bucket | None = None

    @property
    def window(self) -> int:
        return WINDOW

    @property
    def host(self) -> str:
        return urlsplit(self._bucket.endpoint).hostname or ""

    def __repr__(self) -> str:
        return self._url

    def create(self, key: str, data: contract.Data) -> None:
        path, action = self._path(key), f"write {key} in {self._url}"
        try:
            view, writing = memoryview(data).cast("B"), self._bucket.writing
            interruptibly(lambda: obstore.put(writing, path, view, mode="create", use_multipart=False))
        except exceptions.NotSupportedError as error:
            raise contract.overwrites(self) from error
        except (exceptions.BaseError, FileNotFoundError) as error:
            reply = replies.of_text(str(error))
            if reply.taken:
                raise self._exists(key) from error
            if reply.status == 501:
                raise contract.overwrites(self) from error
            raise replies.error_of(reply, action) from error

    def read(self, key: str) -> bytes:
        path, reading = self._path(key), self._bucket.reading
        try:
            data, size = interruptibly(lambda: _got(reading, path))
        except (exceptions.BaseError, FileNotFoundError) as error:
            raise self._unread(key, replies.of_text(str(error))) from error
        if len(data) != size:
            raise errors.StoreFailed(f"Could not read {key} in {self._url}: the answer was cut.")
        return data

    def read_range(self, key: str, offset: int, length: int) -> bytes:
        path, reading = self._path(key), self._bucket.reading
        if length == 0:
            self._look(key, path)
            return b""
        try:
            return interruptibly(lambda: bytes(obstore.get_range(reading, path, start=offset, length=length)))
        except (exceptions.BaseError, FileNotFoundError) as error:
            reply = replies.of_text(str(error))
            if reply.status == 416:  # it ends before
                return b""
            raise self._unread(key, reply) from error

    def list(self, prefix: str) -> Iterator[tuple[str, int]]:
        return ((key, facts["size"]) for key, facts in self._found(prefix))

    def delete(self, key: str) -> None:
        path, writing = self._path(key), self._bucket.writing
        try:
            interruptibly(lambda: obstore.delete(writing, path))
        except (exceptions.BaseError, FileNotFoundError) as error:
            reply = replies.of_text(str(error))
            if not reply.missing:
                raise replies.error_of(reply, f"delete {key} in {self._url}") from error

    def modified(self, prefix: str) -> Iterator[tuple[str, int, float]]:
        return ((key, facts["size"], facts["last_modified"].timestamp()) for key, facts in self._found(prefix))

    def locks(self) -> contract.Locks | None:
        return None

    def clock(self) -> float:
        bucket = self._bucket
        try:
            date = _date(bucket.endpoint, bucket.certificates)
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise replies.error_of(
                replies.Reply(None, "", str(error)), f"ask {bucket.endpoint} for the time"
            ) from error
        if date is None:
            raise errors.StoreFailed(f"{bucket.endpoint} does not say what time it is.")
        return date

    @property
    def _bucket(self) -> Bucket:
        with self._lock:
            if self._connected is None:
                self._connected = self._connect()
            return self._connected

    def _path(self, key: str) -> str:
        return self._prefix + contract.check_key(key)

    def _exists(self, key: str) -> contract.Exists:
        return contract.Exists(f"{key} exists already in {self._url}.", object=key)

    def _unread(self, key: str, reply: replies.Reply) -> errors.HeadstartError:
        if reply.missing:
            return contract.Missing(f"{key} is missing in {self._url}.", object=key)
        return replies.error_of(reply, f"read {key} in {self._url}")

    def _look(self, key: str, path: str) -> None:
        reading = self._bucket.reading
        try:
            interruptibly(lambda: obstore.head(reading, path))
        except (exceptions.BaseError, FileNotFoundError) as error:
            raise self._unread(key, replies.of_text(str(error))) from error

    def _found(self, prefix: str) -> Iterator[tuple[str, Any]]:
        """Servers list by the order of names: what starts alike stands together."""
        wanted = self._prefix + prefix
        folder, _, start = wanted.rpartition("/")
        # A name just before the first that is wanted.
        offset = wanted[:-1] + chr(ord(wanted[-1]) - 1) if start else None
        try:
            pages = iter(obstore.list(self._bucket.reading, folder or None, offset=offset))
            while (page := interruptibly(lambda: next(pages, None))) is not None:
                for facts in page:
                    if facts["path"].startswith(wanted):
                        yield facts["path"][len(self._prefix) :], facts
                    elif start and facts["path"] > wanted:
                        return
        except (exceptions.BaseError, FileNotFoundError) as error:
            raise replies.error_of(replies.of_text(str(error)), f"list {prefix} in {self._url}") from error


def _got(store: Any, path: str) -> tuple[bytes, int]:
    """An object, and how long it is."""
    answer = obstore.get(store, path)
    return bytes(answer.bytes()), answer.meta["size"]


def _date(endpoint: str, certificates: str | None) -> float | None:
    """Seconds since 1970, UTC, from the headers of whatever the server answers."""
    trusted = ssl.create_default_context()
    if certificates:
        trusted.load_verify_locations(certificates)
    request = urllib.request.Request(endpoint, method="HEAD")
    try:
        with urllib.request.urlopen(request, timeout=ANSWER_SECONDS, context=trusted) as answer:
            date = answer.headers["Date"]
    except urllib.error.HTTPError as error:  # nobody may look at the server itself, and yet it answers
        date = error.headers["Date"]
    return email.utils.parsedate_to_datetime(date).timestamp() if date else None
