"""A store at a server of ours: https://server/REPOSITORY.

========  =============================================================
create    PUT, with the digest of what is meant; 412 where it is there
read      GET, of a range with Range
list      GET ?prefix=, one answer of many lines, the last with a count
delete    DELETE; a host may only take away its own leases and drafts
clock     that of the repository's own store, as the server tells it
========  =============================================================
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

from headstart import errors
from headstart.store import contract
from headstart.store.contract import Data, Exists, Missing, Protection, Refused
from headstart.wire import https
from headstart.wire.https import Answer, Client

#: As for other stores that are not at hand.
WINDOW = 16
#: The answer to an object comes when it is durable on the other side.
_CREATE_SECONDS = 300.0


class ServerStore:
    """``repository``: its id, or its name in the tenant of who asks."""

    def __init__(self, client: Client, repository: str) -> None:
        self._client = client
        self._url = f"{client.identity.url}/{repository}"
        self._path = f"/v1/repositories/{quote(repository, safe='')}"

    @property
    def window(self) -> int:
        return WINDOW

    @property
    def host(self) -> str:
        return urlsplit(self._client.identity.url).hostname or ""

    def __repr__(self) -> str:
        return self._url

    def create(self, key: str, data: Data) -> None:
        path, content = self._object(key), bytes(data)
        digest = base64.b64encode(hashlib.sha256(content).digest()).decode()
        headers = {"Content-Digest": f"sha-256=:{digest}:", "Content-Type": "application/octet-stream"}
        answer = self._client.request("PUT", path, content, headers, _CREATE_SECONDS)
        if answer.status == 412:
            raise Exists(f"{key} is there already in {self._url}.", object=key)
        self._require(answer, key)

    def read(self, key: str) -> bytes:
        return self._require(self._client.request("GET", self._object(key)), key).data

    def read_range(self, key: str, offset: int, length: int) -> bytes:
        if length == 0:
            self._head(key)
            return b""
        headers = {"Range": f"bytes={offset}-{offset + length - 1}"}
        answer = self._client.request("GET", self._object(key), headers=headers)
        return b"" if answer.status == 416 else self._require(answer, key).data

    def list(self, prefix: str) -> Iterator[tuple[str, int]]:
        return ((key, size) for key, size, _ in self._listed(prefix))

    def modified(self, prefix: str) -> Iterator[tuple[str, int, float]]:
        return self._listed(prefix)

    def delete(self, key: str) -> None:
        self._require(self._client.request("DELETE", self._object(key)), key)

    def clock(self) -> float:
        return float(self._show()["time"])

    def locks(self) -> contract.Locks:
        return _Locks(self)

    # -- for the locks

    def immutable_days(self) -> int:
        return int(self._show()["immutable_days"])

    def _show(self) -> dict[str, Any]:
        answer = self._client.request("GET", self._path)
        if answer.status == 404:
            raise errors.NoRepository(f"{self._url}: {answer.detail}")
        told = self._require(answer, "").json()
        if not isinstance(told, dict) or not {"time", "immutable_days"} <= told.keys():
            raise errors.StoreFailed(f"{self._url} does not say what it is: is the server of this release?")
        return told

    def locked_until(self, key: str) -> float:
        return float(self._require(self._client.request("GET", self._lock(key)), key).json()["until"])

    def extend(self, key: str, until: float) -> None:
        body, headers = json.dumps({"until": until}).encode(), {"Content-Type": "application/json"}
        self._require(self._client.request("PUT", self._lock(key), body, headers), key)

    def _object(self, key: str) -> str:
        return f"{self._path}/objects/{quote(contract.check_key(key))}"

    def _lock(self, key: str) -> str:
        return f"{self._path}/locks/{quote(contract.check_key(key))}"

    def _head(self, key: str) -> None:
        self._require(self._client.request("GET", self._object(key), headers={"Range": "bytes=0-0"}), key)

    def _listed(self, prefix: str) -> Iterator[tuple[str, int, float]]:
        """Raises ``StoreFailed`` where the answer was cut short: what is missing must not count as gone."""
        for count, line in enumerate(self._lines(f"{self._path}/objects?{urlencode({'prefix': prefix})}")):
            try:
                told = json.loads(line)
                if isinstance(told, dict):
                    if told["objects"] == count:
                        return
                    break
                key, size, created = told
                yield str(key), int(size), float(created)
            except (ValueError, TypeError, KeyError):
                break
        raise https.Unanswered(f"The list of {self._url} was cut short.")

    def _lines(self, path: str) -> Iterator[bytes]:
        try:
            yield from self._client.lines(path)
        except errors.TooOften as error:  # that passes
            raise errors.StoreFailed(str(error)) from error

    def _require(self, answer: Answer, key: str) -> Answer:
        """``answer`` itself, if it is none of an error."""
        if answer.status < 400 or answer.status == 416:
            return answer
        if answer.status == 404:
            raise Missing(f"{key} is missing in {self._url}: {answer.detail}", object=key)
        error = https.error_of(answer, self._url)
        if isinstance(error, errors.NoSpace):
            raise error
        if isinstance(error, errors.StoreFailed | errors.TooOften):
            raise errors.StoreFailed(str(error))
        if answer.status == 422:  # what came is not what was sent
            raise errors.StoreFailed(str(error))
        raise Refused(str(error), status=answer.status)


class _Locks:
    """The server locks by itself, by its own clock, and its admin says for how long."""

    def __init__(self, store: ServerStore) -> None:
        self._store = store

    def available(self) -> bool:
        return self.days() > 0

    def days(self) -> int:
        return self._store.immutable_days()

    def protect(self, protection: Protection) -> None:
        """Nothing to do."""

    def locked_until(self, key: str) -> float:
        return self._store.locked_until(key)

    def extend(self, key: str, until: float) -> None:
        self._store.extend(key, until)
