"""The provider of OpenID Connect as this server asks it: what is believed of it, and what it can do that is bad."""

from __future__ import annotations

import base64
import hmac
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
from joserfc import jwt

from headstart.server import crossing, idtoken, provider
from headstart.server.principal import NobodyKnown
from headstart.server.provider import Account, Away, Provider, Question
from headstart.server.settings import Oidc
from headstart.wire.https import Bound
from tests.kit import openid
from tests.kit.openid import CLIENT, SECRET, Claims, OpenId

URL = "https://backup.example"
ANN = {"email": "Ann@example.org", "email_verified": True}


@pytest.fixture(scope="module")
def example() -> Iterator[OpenId]:
    with OpenId({"ann": ANN}, backs=[f"{URL}/login/oidc/back"]) as running:
        yield running


@pytest.fixture
def asked(example: OpenId) -> Iterator[Provider]:
    example.be_honest()
    yield Provider(Oidc(example.issuer, CLIENT, SECRET, "Example", URL))
    example.be_honest()


def question() -> Question:
    return crossing.begin(0.0).question


def come(asked: Provider, example: OpenId, *, email: bool = True, **other: str) -> Account:
    """Somebody goes there and comes back; ``other``: words of the question that are not those that were asked."""
    wanted = question()
    told = example.let_in(asked.address(wanted), "ann")
    assert told["state"] == wanted.state
    return asked.redeem(told["code"], replace(wanted, **other), told.get("iss"), email=email)


def test_who_comes_back_is_known_by_issuer_and_subject(asked: Provider, example: OpenId) -> None:
    assert come(asked, example) == Account(example.issuer, "ann", "Ann@example.org")


def test_a_code_serves_once_and_with_the_verifier_alone(asked: Provider, example: OpenId) -> None:
    wanted = question()
    told = example.let_in(asked.address(wanted), "ann")
    with pytest.raises(NobodyKnown):
        asked.redeem(told["code"], replace(wanted, verifier="x" * 43), None, email=False)
    wanted = question()
    told = example.let_in(asked.address(wanted), "ann")
    asked.redeem(told["code"], wanted, None, email=False)
    with pytest.raises(NobodyKnown) as raised:
        asked.redeem(told["code"], wanted, None, email=False)
    assert raised.value.facts["reason"] == "the provider does not take the code"


def _text(part: bytes) -> str:
    return base64.urlsafe_b64encode(part).rstrip(b"=").decode()


def _unsigned(claims: Claims, header: Claims | None = None) -> str:
    parts = (header or {"alg": "none"}, claims)
    return ".".join(_text(json.dumps(each).encode()) for each in parts) + "."


def _with_a_secret(secret: bytes) -> Callable[[Claims], str]:
    """By hand: the library does not sign with a public key."""

    def sign(claims: Claims) -> str:
        head = _unsigned(claims, {"alg": "HS256", "kid": "first"}).removesuffix(".")
        return f"{head}.{_text(hmac.digest(secret, head.encode(), 'sha256'))}"

    return sign


LIES: dict[str, Callable[[Claims], Claims]] = {
    "another's issuer": lambda claims: {**claims, "iss": "https://other.example"},
    "no issuer": lambda claims: {name: value for name, value in claims.items() if name != "iss"},
    "another's audience": lambda claims: {**claims, "aud": "another"},
    "no audience": lambda claims: {**claims, "aud": []},
    "an audience of several": lambda claims: {**claims, "aud": [CLIENT, "another"]},
    "another's party": lambda claims: {**claims, "azp": "another"},
    "another's nonce": lambda claims: {**claims, "nonce": "x"},
    "no nonce": lambda claims: {name: value for name, value in claims.items() if name != "nonce"},
    "over": lambda claims: {**claims, "exp": int(time.time()) - idtoken.LEEWAY - 5},
    "without an end": lambda claims: {name: value for name, value in claims.items() if name != "exp"},
    "an end that is no number": lambda claims: {**claims, "exp": "tomorrow"},
    "of the future": lambda claims: {**claims, "iat": int(time.time()) + 3600},
    "no subject": lambda claims: {**claims, "sub": ""},
    "a subject that is a number": lambda claims: {**claims, "sub": 1},
    "a long subject": lambda claims: {**claims, "sub": "x" * 256},
    "a subject with a zero": lambda claims: {**claims, "sub": "a\0b"},
}


@pytest.mark.parametrize("lie", LIES)
def test_a_token_that_is_not_for_this_is_none(asked: Provider, example: OpenId, lie: str) -> None:
    example.bend = LIES[lie]
    with pytest.raises(NobodyKnown):
        come(asked, example)
    example.bend = dict
    come(asked, example)


def test_a_clock_that_is_a_little_off_is_none_of_it(asked: Provider, example: OpenId) -> None:
    now = int(time.time())
    example.bend = lambda claims: {**claims, "iat": now + 90, "exp": now - 60}
    assert come(asked, example).subject == "ann"


def test_a_signature_of_anything_else_is_none(asked: Provider, example: OpenId) -> None:
    stranger = openid.new_key("first")
    forged: list[Callable[[Claims], str]] = [
        _unsigned,
        _with_a_secret(SECRET.encode()),
        _with_a_secret(example.keys[0].as_pem(private=False)),
        lambda claims: jwt.encode({"alg": "RS256", "kid": "first"}, claims, stranger),
        lambda claims: jwt.encode({"alg": "RS256", "kid": "first", "jwk": stranger.as_dict()}, claims, stranger),
        lambda claims: jwt.encode({"alg": "RS256", "kid": "none"}, claims, stranger),
        lambda claims: "a.b.c",
        lambda claims: "x" * 100_000,
        lambda claims: "\u1234",
        lambda claims: "",
    ]
    for each in forged:
        example.sign = each
        with pytest.raises(NobodyKnown):
            come(asked, example)
    example.sign = None
    come(asked, example)


def test_keys_change_and_are_asked_for_again_but_not_all_the_time(example: OpenId) -> None:
    example.be_honest()
    steady = [0.0]
    asked = Provider(Oidc(example.issuer, CLIENT, SECRET, "Example", URL), steady=lambda: steady[0])
    come(asked, example)
    fetched = example.asked.count("/keys")
    steady[0] += 11
    come(asked, example)
    assert example.asked.count("/keys") == fetched, "they are kept"
    example.keys.append(openid.new_key("second"))
    come(asked, example)
    assert example.asked.count("/keys") == fetched + 1
    example.sign = lambda claims: jwt.encode({"alg": "RS256", "kid": "none"}, claims, example.keys[0])
    for _ in range(3):
        with pytest.raises(NobodyKnown):
            come(asked, example)
    assert example.asked.count("/keys") == fetched + 1, "whoever makes up keys does not have them fetched"
    example.keys[:] = example.keys[:1]
    example.be_honest()


def test_an_e_mail_counts_where_the_provider_has_verified_it(asked: Provider, example: OpenId) -> None:
    for told, email in (
        ({"email": "a@b.c", "email_verified": True}, "a@b.c"),
        ({"email": "a@b.c", "email_verified": "true"}, "a@b.c"),
        ({"email": "a@b.c", "email_verified": False}, ""),
        ({"email": "a@b.c", "email_verified": 1}, ""),
        ({"email": "a@b.c"}, ""),
        ({"email": ["a@b.c"], "email_verified": True}, ""),
        ({}, ""),
    ):
        example.people["ann"] = told
        assert come(asked, example).email == email
    example.people["ann"] = ANN


def test_an_e_mail_that_is_not_in_the_token_is_asked_for(asked: Provider, example: OpenId) -> None:
    example.thin = True
    assert come(asked, example).email == "Ann@example.org"
    before = example.asked.count("/userinfo")
    assert come(asked, example, email=False).email == ""
    assert example.asked.count("/userinfo") == before, "for who logs in nobody asks"
    example.answers["/userinfo"] = _telling({"sub": "bob", **ANN})
    with pytest.raises(NobodyKnown):
        come(asked, example)


def test_an_answer_that_names_another_provider_is_not_taken(asked: Provider, example: OpenId) -> None:
    wanted = question()
    told = example.let_in(asked.address(wanted), "ann")
    with pytest.raises(NobodyKnown):
        asked.redeem(told["code"], wanted, "https://other.example", email=False)
    wanted = question()
    told = example.let_in(asked.address(wanted), "ann")
    assert asked.redeem(told["code"], wanted, example.issuer, email=False).subject == "ann"


def _dripping() -> Iterator[bytes]:
    for _ in range(100):
        yield b" "
        time.sleep(0.05)


BAD: dict[str, Callable[[], Any]] = {
    "garbage": lambda: (b"\xff<html>", 200),
    "a list": lambda: (b"[]", 200),
    "an empty table": lambda: (b"{}", 200),
    "tables in tables": lambda: (b'{"keys":' * 50_000, 200),
    "keys that are none": lambda: (b'{"keys": [1, {"kty": "RSA", "n": "x"}]}', 200),
    "too much": lambda: (b" " * (300 << 10), 200),
    "byte by byte": _dripping,
    "an error": lambda: (b"{}", 500),
    "a way elsewhere": lambda: (b"{}", 302),
}


@pytest.mark.parametrize("path", ["/.well-known/openid-configuration", "/keys", "/token"])
@pytest.mark.parametrize("bad", BAD)
def test_a_provider_that_is_not_well_lets_nobody_in(
    asked: Provider, example: OpenId, monkeypatch: pytest.MonkeyPatch, path: str, bad: str
) -> None:
    monkeypatch.setattr(provider, "_BOUND", Bound(256 << 10, 0.3))
    example.answers[path] = BAD[bad]
    begun = time.monotonic()
    with pytest.raises((Away, NobodyKnown)) as raised:
        come(asked, example)
    assert time.monotonic() - begun < 3
    if not (path == "/token" and bad in ("an empty table", "keys that are none")):
        assert isinstance(raised.value, Away) and "password" in str(raised.value)


def _telling(table: Claims) -> Callable[[], tuple[bytes, int]]:
    return lambda: (json.dumps(table).encode(), 200)


def test_one_that_names_another_issuer_or_places_in_the_open_is_not_it(asked: Provider, example: OpenId) -> None:
    good = {"issuer": example.issuer, "authorization_endpoint": f"{example.issuer}/authorize"}
    good |= {"token_endpoint": f"{example.issuer}/token", "jwks_uri": f"{example.issuer}/keys"}
    for bad in (
        {"issuer": "https://other.example"},
        {"issuer": f"{example.issuer}/"},
        {"token_endpoint": "http://other.example/token"},
        {"jwks_uri": "file:///etc/passwd"},
        {"authorization_endpoint": "javascript:alert(1)"},
        {"authorization_endpoint": "https://x/\r\nSet-Cookie: a=b"},
    ):
        example.answers["/.well-known/openid-configuration"] = _telling({**good, **bad})
        with pytest.raises(Away):
            Provider(asked.settings).address(question())


def test_one_that_is_away_is_left_alone_for_a_while(example: OpenId) -> None:
    steady = [0.0]
    asked = Provider(Oidc(example.issuer, CLIENT, SECRET, "Example", URL), steady=lambda: steady[0])
    example.answers["/.well-known/openid-configuration"] = lambda: (b"", 503)
    before = len(example.asked)
    for _ in range(3):
        with pytest.raises(Away):
            asked.address(question())
    assert len(example.asked) == before + 1
    example.be_honest()
    steady[0] += 6
    assert asked.address(question()).startswith(f"{example.issuer}/authorize?")


def test_one_that_hangs_takes_few_threads(example: OpenId, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(provider, "_HEAD_SECONDS", 0.3)
    asked = Provider(Oidc("http://127.0.0.1:9", CLIENT, SECRET, "Example", URL))
    held = [asked._free.acquire() for _ in range(provider._AT_ONCE)]
    begun = time.monotonic()
    with pytest.raises(Away):
        asked.address(question())
    assert all(held) and time.monotonic() - begun < 0.2
