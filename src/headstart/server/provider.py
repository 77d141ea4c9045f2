"""The provider of OpenID Connect that people may log in through: what it publishes, and what it gives for a code.

Whatever comes from it is bounded in bytes and time, and believed only as far as ``idtoken`` proves it. It may be away
or broken at any time: then nobody logs in through it, and nothing else of the server waits for it.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

import pydantic
from joserfc.errors import JoseError
from joserfc.jwk import KeySet

from headstart import errors, plain, units
from headstart.server import idtoken
from headstart.server.principal import NobodyKnown
from headstart.server.settings import Oidc, is_safe
from headstart.wire import https
from headstart.wire.https import Answer, Bound, Client, Identity

_log = logging.getLogger("headstart.server")

#: Of one answer: until its head, and the whole of it. Documents of providers have some thousand bytes.
_HEAD_SECONDS, _BOUND = 5.0, Bound(256 * units.KIB, 10.0)
#: What was published is asked for again after so long; keys that do not fit at once, but not more often than that.
_KEPT_SECONDS, _ANEW_SECONDS = 3600.0, 10.0
#: After a failure it is left alone for so long.
_REST_SECONDS = 5.0
#: Conversations at a time: one that hangs must not take the threads of everybody.
_AT_ONCE = 16
_LONGEST_SUBJECT, _LONGEST_EMAIL = 255, 255
#: Bytes of what it says of an error, in the log.
_TOLD = 300
_FORM = "application/x-www-form-urlencoded"


class Away(errors.StoreFailed):
    """It does not answer, or not as it should."""


class Published(pydantic.BaseModel):
    """OpenID Connect Discovery 1.0, as far as it is of use here."""

    issuer: str
    authorization_endpoint: str
    token_endpoint: str
    jwks_uri: str
    userinfo_endpoint: str = ""
    # The default is that document's.
    token_endpoint_auth_methods_supported: list[str] = ["client_secret_basic"]
    authorization_response_iss_parameter_supported: bool = False


@dataclass(frozen=True, slots=True)
class Account:
    """Somebody at the provider: ``issuer`` and ``subject`` together never change. ``email``: empty where the provider
    does not say that it has verified it."""

    issuer: str
    subject: str
    email: str = ""


@dataclass(frozen=True, slots=True)
class Question:
    """What an answer has to fit. ``verifier``: of PKCE (RFC 7636), known to nobody but the one who asks."""

    state: str
    nonce: str
    verifier: str


@dataclass(frozen=True, slots=True)
class _Kept:
    value: Any
    since: float
    until: float


@dataclass(slots=True)
class Provider:
    """For any number of threads. ``clock`` is wall time, ``steady`` only goes forward."""

    settings: Oidc
    clock: Callable[[], float] = time.time
    steady: Callable[[], float] = time.monotonic
    _kept: dict[str, _Kept] = field(default_factory=dict)
    _clients: dict[str, Client] = field(default_factory=dict)
    _free: threading.BoundedSemaphore = field(default_factory=lambda: threading.BoundedSemaphore(_AT_ONCE))

    @property
    def name(self) -> str:
        return self.settings.name

    @property
    def back(self) -> str:
        """Where the provider sends people back to: it has to know this address."""
        return f"{self.settings.url}/login/oidc/back"

    def address(self, question: Question) -> str:
        """Where a browser asks it. Raises ``Away``."""
        place = self._published().authorization_endpoint
        digest = hashlib.sha256(question.verifier.encode()).digest()
        told = {
            "response_type": "code",
            "client_id": self.settings.client,
            "redirect_uri": self.back,
            "scope": "openid email",
            "state": question.state,
            "nonce": question.nonce,
            "code_challenge": base64.urlsafe_b64encode(digest).rstrip(b"=").decode(),
            "code_challenge_method": "S256",
        }
        return f"{place}{'&' if urlsplit(place).query else '?'}{urlencode(told)}"

    def redeem(self, code: str, question: Question, issuer: str | None, *, email: bool) -> Account:
        """Whose code it is. ``issuer``: who says to answer (RFC 9207), None where nobody says so. ``email``: whether it
        is wanted. Raises ``NobodyKnown`` with the ``reason``, ``Away``."""
        published = self._published()
        if issuer != published.issuer and (
            issuer is not None or published.authorization_response_iss_parameter_supported
        ):
            raise self._refused("the answer is another provider's")
        told = self._tokens(published, code, question.verifier)
        claims = self._claims(published, told.get("id_token"), question.nonce)
        subject = claims["sub"]
        if not 0 < len(subject) <= _LONGEST_SUBJECT or not subject.isprintable():
            raise self._refused("the subject is none")
        if email and "email" not in claims and published.userinfo_endpoint:
            claims = self._userinfo(published, told.get("access_token"), subject)
        return Account(published.issuer, subject, _verified(claims))

    def _tokens(self, published: Published, code: str, verifier: str) -> Mapping[str, Any]:
        form = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": self.back,
            "code_verifier": verifier,
        }
        headers = {"Content-Type": _FORM, "Accept": "application/json"}
        ways = published.token_endpoint_auth_methods_supported
        if "client_secret_basic" in ways or "client_secret_post" not in ways:
            # RFC 6749, 2.3.1. Not every provider takes "+" for a blank there.
            pair = f"{quote(self.settings.client, safe='')}:{quote(self.settings.secret, safe='')}"
            headers["Authorization"] = f"Basic {base64.b64encode(pair.encode()).decode()}"
        else:
            form |= {"client_id": self.settings.client, "client_secret": self.settings.secret}
        answer = self._ask("POST", published.token_endpoint, urlencode(form).encode(), headers)
        if answer.status == 400:
            # RFC 6749, 5.2: the code is wrong, has ended or was used before.
            raise self._refused("the provider does not take the code")
        return self._table(answer, published.token_endpoint)

    def _claims(self, published: Published, token: object, nonce: str) -> Mapping[str, Any]:
        wanted = idtoken.Wanted(published.issuer, self.settings.client, nonce, self.clock)
        if not isinstance(token, str):
            raise self._refused("there is no id_token")
        try:
            try:
                return idtoken.verify(token, self._keys(published), wanted)
            except idtoken.OtherKey:
                # Providers change their keys without a word.
                return idtoken.verify(token, self._keys(published, anew=True), wanted)
        except idtoken.Wrong as error:
            raise self._refused(str(error)) from error

    def _userinfo(self, published: Published, token: object, subject: str) -> Mapping[str, Any]:
        """Some providers tell it only there. OpenID Connect Core 1.0, 5.3.2: its subject must be the same."""
        headers = {"Authorization": f"Bearer {token}", "Accept": "application/json"}
        if not isinstance(token, str) or not token.isascii() or not token.isprintable():
            return {}
        told = self._table(self._ask("GET", published.userinfo_endpoint, None, headers), published.userinfo_endpoint)
        if told.get("sub") != subject:
            raise self._refused("the userinfo is somebody else's")
        return told

    # -- what it publishes

    def _published(self) -> Published:
        def read(told: Mapping[str, Any]) -> Published:
            found = Published.model_validate(told)
            if found.issuer != self.settings.issuer:
                raise ValueError(f"it names itself {found.issuer[:200]!r}")
            for place in (found.authorization_endpoint, found.token_endpoint, found.jwks_uri, found.userinfo_endpoint):
                if place and not is_safe(place):
                    raise ValueError(f"{place[:200]!r} is not https")
            return found

        place = f"{self.settings.issuer.rstrip('/')}/.well-known/openid-configuration"
        found: Published = self._document(place, read, _KEPT_SECONDS)
        return found

    def _keys(self, published: Published, *, anew: bool = False) -> KeySet:
        def read(told: Mapping[str, Any]) -> KeySet:
            return KeySet.import_key_set({"keys": [dict(each) for each in told["keys"]]})

        found: KeySet = self._document(published.jwks_uri, read, _ANEW_SECONDS if anew else _KEPT_SECONDS)
        return found

    def _document(self, place: str, read: Callable[[Mapping[str, Any]], Any], seconds: float) -> Any:
        """Not older than ``seconds``."""
        kept = self._kept.get(place)
        now = self.steady()
        if kept is not None and now < min(kept.until, kept.since + seconds):
            if isinstance(kept.value, Away):
                raise Away(str(kept.value))
            return kept.value
        try:
            found = self._read(place, read)
        except Away as error:
            self._kept[place] = _Kept(error, now, now + _REST_SECONDS)
            raise
        self._kept[place] = _Kept(found, now, now + _KEPT_SECONDS)
        return found

    def _read(self, place: str, read: Callable[[Mapping[str, Any]], Any]) -> Any:
        told = self._table(self._ask("GET", place, None, {"Accept": "application/json"}), place)
        try:
            return read(told)
        except (ValueError, TypeError, KeyError, AttributeError, JoseError) as error:
            raise self._away(place, f"what is published cannot be used: {error}") from error

    # -- how it is asked

    def _ask(self, method: str, place: str, body: bytes | None, headers: Mapping[str, str]) -> Answer:
        parts = urlsplit(place)
        origin = f"{parts.scheme}://{parts.netloc}"
        path = f"{parts.path or '/'}{f'?{parts.query}' if parts.query else ''}"
        with self._talking(place):
            try:
                client = self._clients.setdefault(origin, Client(Identity(origin, "")))
                return client.request(method, path, body, headers, _HEAD_SECONDS, _BOUND)
            except (https.Unanswered, https.Untrusted, errors.Usage) as error:
                raise self._away(place, str(error)) from error

    @contextlib.contextmanager
    def _talking(self, place: str) -> Iterator[None]:
        if not self._free.acquire(blocking=False):
            raise self._away(place, "too many wait for it already")
        try:
            yield
        finally:
            self._free.release()

    def _table(self, answer: Answer, place: str) -> Mapping[str, Any]:
        if answer.status != 200:
            detail = plain.line(answer.data[:_TOLD].decode(errors="replace"))
            raise self._away(place, f"status {answer.status}: {detail}")
        try:
            told = answer.json()
        except errors.StoreFailed:
            told = None
        if not isinstance(told, dict):
            raise self._away(place, "what it answers is no table in JSON")
        return told

    def _away(self, place: str, reason: str) -> Away:
        _log.warning("The provider of OpenID Connect does not do as it should.", extra={"url": place, "reason": reason})
        return Away(f"{self.name} does not answer as it should. Log in with your password, or try again later.")

    def _refused(self, reason: str) -> NobodyKnown:
        return NobodyKnown(f"What {self.name} answered is not right for this login. Begin again.", reason=reason)


def _verified(claims: Mapping[str, Any]) -> str:
    # Some providers say it in words.
    email, verified = claims.get("email"), claims.get("email_verified")
    good = isinstance(email, str) and len(email) <= _LONGEST_EMAIL and (verified is True or verified == "true")
    return str(email) if good else ""
