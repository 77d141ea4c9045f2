"""Requests to a server of ours over HTTPS: pinned to its certificate where that is its own, else by authorities."""

from __future__ import annotations

import json
import os
import ssl
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import SplitResult, urlsplit

import urllib3

from headstart import errors, plain

#: Seconds until a connection stands, and in which some byte of an answer must come.
CONNECT_SECONDS, ANSWER_SECONDS = 10.0, 60.0
_CONNECTIONS = 32
_LONGEST = 500
_PIECE = 1 << 16
#: A file of authorities to trust beside the system's.
CERTIFICATES = "HEADSTART_CA_BUNDLE"


@dataclass(frozen=True, slots=True)
class Identity:
    """Where the server is and who we are there. ``url``: scheme, host and port; ``fingerprint``: SHA-256 of its
    certificate, in hex; empty: an authority vouches for it."""

    url: str
    token: str = field(repr=False)
    fingerprint: str = ""


@dataclass(frozen=True, slots=True)
class Answer:
    """``status`` of HTTP; names of ``headers`` in lower case."""

    status: int
    headers: Mapping[str, str]
    data: bytes

    def json(self) -> Any:
        """Raises ``StoreFailed`` for what is none."""
        try:
            return json.loads(self.data)
        except (ValueError, RecursionError) as error:
            raise errors.StoreFailed("The server's answer cannot be read: is it a server of Headstart's?") from error

    @property
    def detail(self) -> str:
        """What the server says of an error, as one plain line."""
        try:
            told = json.loads(self.data)
            found = told["detail"] if isinstance(told, dict) else ""
        except (ValueError, KeyError, RecursionError):
            found = ""
        return plain.line(str(found) or f"status {self.status}", _LONGEST)


class Unanswered(errors.StoreFailed):
    """No answer, or a part of one: what was asked may have been done."""


class Untrusted(errors.Usage):
    """Whoever answers there is not the server that was meant."""


@dataclass(frozen=True, slots=True)
class Bound:
    """What an answer takes at most: bytes, and seconds from its head to its end."""

    size: int
    seconds: float


class Client:
    """For any number of threads. It tries nothing again, and follows no redirection.

    ``renewed``: who we are by now; asked when the server does not know the token any longer, as tokens are replaced
    while processes run."""

    def __init__(self, identity: Identity, renewed: Callable[[], Identity] | None = None) -> None:
        self.identity = identity
        self._renewed = renewed
        self._pool = _pool(identity)

    def request(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        answer_seconds: float = ANSWER_SECONDS,
        bound: Bound | None = None,
    ) -> Answer:
        """``path`` begins with a slash and is quoted. Any status is an answer. Raises ``Unanswered``, ``Untrusted``."""
        with self.open(method, path, body, headers, answer_seconds) as found:
            try:
                data = found.read() if bound is None else self._read(found, bound)
                return Answer(found.status, _lower(found.headers), data)
            except (urllib3.exceptions.HTTPError, OSError) as error:
                raise self._unanswered(error) from error

    def _read(self, found: urllib3.BaseHTTPResponse, bound: Bound) -> bytes:
        """As it was sent: what is compressed could be of any size."""
        data, deadline = bytearray(), time.monotonic() + bound.seconds
        # It may come byte by byte: then each of them is in time.
        while piece := found.read1(_PIECE, decode_content=False):
            data += piece
            if len(data) > bound.size or time.monotonic() > deadline:
                raise Unanswered(f"The answer of {self.identity.url} is too long, or comes too slowly.")
        return bytes(data)

    def open(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        answer_seconds: float = ANSWER_SECONDS,
    ) -> urllib3.BaseHTTPResponse:
        """As ``request``, with the body of the answer still to be read. Close it."""
        found = self._open(method, path, body, headers, answer_seconds)
        if found.status != 401 or self._renewed is None:
            return found
        identity = self._renewed()
        if identity.token == self.identity.token:
            return found
        found.close()
        self.identity = identity
        return self._open(method, path, body, headers, answer_seconds)

    def _open(
        self, method: str, path: str, body: bytes | None, headers: Mapping[str, str] | None, answer_seconds: float
    ) -> urllib3.BaseHTTPResponse:
        told = {"Authorization": f"Bearer {self.identity.token}"} if self.identity.token else {}
        try:
            return self._pool.request(
                method,
                self.identity.url + path,
                body=body,
                headers={**told, **(headers or {})},
                timeout=urllib3.Timeout(connect=CONNECT_SECONDS, read=answer_seconds),
                preload_content=False,
                retries=False,
                redirect=False,
            )
        except urllib3.exceptions.SSLError as error:
            raise self._untrusted(error) from error
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise self._unanswered(error) from error

    def call(
        self,
        method: str,
        path: str,
        value: object = None,
        *,
        answer_seconds: float = ANSWER_SECONDS,
        bound: Bound | None = None,
    ) -> Any:
        """JSON there and back; None where the answer has no body. An error that the server tells is raised as one of
        ours, by its status."""
        body = None if value is None else json.dumps(value, allow_nan=False).encode()
        headers = {} if body is None else {"Content-Type": "application/json"}
        answer = self.request(method, path, body, headers, answer_seconds, bound)
        if answer.status >= 400:
            raise error_of(answer, self.identity.url)
        return answer.json() if answer.data else None

    def lines(self, path: str) -> Iterator[bytes]:
        """An answer of many lines, as they come. Raises as ``call``; ``Unanswered`` where it breaks off."""
        found = self.open("GET", path)
        try:
            if found.status >= 400:
                raise error_of(Answer(found.status, _lower(found.headers), found.read()), self.identity.url)
            rest = b""
            for piece in found.stream(1 << 16):
                *lines, rest = (rest + piece).split(b"\n")
                yield from lines
            if rest:
                yield rest
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise self._unanswered(error) from error
        finally:
            found.close()

    def close(self) -> None:
        self._pool.clear()

    def _unanswered(self, error: Exception) -> errors.HeadstartError:
        # A wrong fingerprint comes wrapped.
        if isinstance(getattr(error, "reason", None), urllib3.exceptions.SSLError):
            return self._untrusted(error)
        return Unanswered(f"{self.identity.url} does not answer: {_cause(error)}. Is it up, and the address right?")

    def _untrusted(self, error: Exception) -> errors.HeadstartError:
        text = str(error)
        if not any(word in text for word in ("certificate", "Fingerprints", "CERTIFICATE")):
            return Unanswered(f"{self.identity.url} does not speak TLS as it should: {_cause(error)}.")
        if self.identity.fingerprint:
            return Untrusted(
                f"{self.identity.url} has another certificate than the one it had when this host joined. If that was"
                " changed on purpose, join again; if not, somebody else answers there."
            )
        return Untrusted(
            f"The certificate of {self.identity.url} is of an authority that is not known here, or for another name."
            f" Name the authority's file in {CERTIFICATES}, or join with a token that has the server's fingerprint."
        )


def _pool(identity: Identity) -> urllib3.PoolManager:
    parts = _parts(identity.url)
    if parts.scheme == "http" and parts.hostname in ("127.0.0.1", "localhost", "::1"):
        # On this machine, for a server behind another one that speaks TLS.
        return urllib3.PoolManager(maxsize=_CONNECTIONS)
    if parts.scheme != "https" or not parts.hostname or parts.path not in ("", "/"):
        raise errors.Usage(f"{identity.url!r} is no address of a server: write https://HOST:PORT.")
    if identity.fingerprint:
        # The certificate itself is what is trusted: neither its name nor its time matters.
        return urllib3.PoolManager(
            maxsize=_CONNECTIONS, cert_reqs="CERT_NONE", assert_hostname=False, assert_fingerprint=identity.fingerprint
        )
    context = ssl.create_default_context()
    if named := os.environ.get(CERTIFICATES):
        try:
            context.load_verify_locations(named)
        except OSError as error:
            raise errors.Usage(f"{CERTIFICATES}: {named} cannot be read as certificates: {error}.") from error
    return urllib3.PoolManager(maxsize=_CONNECTIONS, ssl_context=context)


def _parts(url: str) -> SplitResult:
    try:
        found = urlsplit(url)
        _ = found.port  # it is looked at only when it is asked for
    except ValueError as error:
        raise errors.Usage(f"{url!r} is no address of a server: {error}.") from error
    return found


def error_of(answer: Answer, url: str) -> errors.HeadstartError:
    """What a status says, as one of our errors: the other direction of ``errors.HTTP_STATUS``."""
    text = f"{url}: {answer.detail}"
    match answer.status:
        case 401:
            return errors.WrongPassword(text)
        case 403:
            return errors.Denied(text)
        case 404:
            return errors.NotFound(text)
        case 409:
            return errors.Busy(text)
        case 429:
            return errors.TooOften(text, seconds=_seconds(answer))
        case 507:
            return errors.NoSpace(text)
        case status if status >= 500 or status == 408:
            return errors.StoreFailed(text)
    return errors.Usage(text)


def _seconds(answer: Answer) -> float:
    told = answer.headers.get("retry-after", "")
    return float(told) if told.isdecimal() else 5.0


def _lower(headers: Mapping[str, str]) -> dict[str, str]:
    return {name.lower(): value for name, value in headers.items()}


def _cause(error: Exception) -> str:
    found: BaseException = error
    while (inner := found.__cause__ or getattr(found, "reason", None)) is not None and isinstance(inner, BaseException):
        found = inner
    return plain.line(getattr(found, "strerror", None) or str(found) or type(found).__name__, _LONGEST)
