"""A provider of OpenID Connect on loopback: the server's half of authlib, with a page to log in; it can be told to lie.

It is at ``localhost`` and servers of ours at ``127.0.0.1``: for a browser another site.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self
from urllib.parse import parse_qsl, urlsplit

import flask
import urllib3
from authlib.integrations.flask_oauth2 import AuthorizationServer
from authlib.oauth2 import OAuth2Error
from authlib.oauth2.rfc6749 import grants
from authlib.oauth2.rfc7636 import CodeChallenge
from authlib.oidc.core import OpenIDCode
from joserfc import jwt
from joserfc.jwk import KeySet, RSAKey
from werkzeug.serving import make_server

CLIENT, SECRET = "headstart", "a secret: of the client's/+"

Claims = dict[str, Any]


@dataclass(slots=True)
class _Client:
    """Who may ask: with that secret, for codes, to come back to addresses that the provider was told."""

    backs: list[str]

    def get_client_id(self) -> str:
        return CLIENT

    def get_default_redirect_uri(self) -> str:
        return ""

    def get_allowed_scope(self, scope: str) -> str:
        return scope

    def check_redirect_uri(self, place: str) -> bool:
        return place in self.backs

    def check_client_secret(self, secret: str) -> bool:
        return secret == SECRET

    def check_endpoint_auth_method(self, method: str, endpoint: str) -> bool:
        return method == "client_secret_basic"

    def check_response_type(self, kind: str) -> bool:
        return kind == "code"

    def check_grant_type(self, kind: str) -> bool:
        return kind == "authorization_code"


@dataclass(slots=True)
class _Code:
    subject: str
    redirect_uri: str
    scope: str
    nonce: str
    code_challenge: str
    code_challenge_method: str

    def get_redirect_uri(self) -> str:
        return self.redirect_uri

    def get_scope(self) -> str:
        return self.scope

    def get_nonce(self) -> str:
        return self.nonce

    def get_auth_time(self) -> int:
        return int(time.time())

    def get_acr(self) -> None:
        return None

    def get_amr(self) -> None:
        return None


def new_key(name: str) -> RSAKey:
    return RSAKey.generate_key(2048, {"kid": name, "use": "sig", "alg": "RS256"})


@dataclass(slots=True)
class OpenId:
    """A context manager. ``people``: what it says of a subject. Lies: ``bend`` changes the claims of ID tokens,
    ``sign`` makes one of claims, ``answers`` take the place of what a path would answer, and can be slow."""

    people: dict[str, Claims] = field(default_factory=dict)
    backs: list[str] = field(default_factory=list)
    bend: Callable[[Claims], Claims] = dict
    sign: Callable[[Claims], str] | None = None
    answers: dict[str, Callable[[], Iterable[bytes] | tuple[bytes, int]]] = field(default_factory=dict)
    #: Told only where the access token is shown.
    thin: bool = False
    #: That sign: the last one. All of them are published.
    keys: list[RSAKey] = field(default_factory=lambda: [new_key("first")])
    asked: list[str] = field(default_factory=list)
    codes: dict[str, _Code] = field(default_factory=dict)
    tokens: dict[str, str] = field(default_factory=dict)
    _server: Any = None

    def __enter__(self) -> Self:
        self._server = make_server("localhost", 0, _app(self), threaded=True)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._server.shutdown()
        self._server.server_close()

    @property
    def issuer(self) -> str:
        return f"http://localhost:{self._server.server_port}"

    def be_honest(self) -> None:
        self.bend, self.sign, self.thin = dict, None, False
        self.answers.clear()

    def token(self, claims: Claims) -> str:
        """An ID token."""
        if self.sign is not None:
            return self.sign(self.bend(claims))
        return jwt.encode({"alg": "RS256", "kid": self.keys[-1].kid}, self.bend(claims), self.keys[-1])

    def environment(self, url: str) -> dict[str, str]:
        """Of a server of ours at ``url``, that lets people in through this one."""
        told = {"ISSUER": self.issuer, "CLIENT": CLIENT, "SECRET": SECRET, "NAME": "Example", "URL": url}
        return {f"HEADSTART_SERVER_OIDC_{name}": value for name, value in told.items()}

    def let_in(self, address: str, subject: str) -> dict[str, str]:
        """What somebody comes back with who was sent to ``address`` and logs in there."""
        headers = {"Content-Type": "application/x-www-form-urlencoded"}
        answer = urllib3.request("POST", address, body=f"subject={subject}", headers=headers, redirect=False)
        assert answer.status == 302, answer.data[:500]
        return dict(parse_qsl(urlsplit(answer.headers["location"]).query))


def _app(provider: OpenId) -> flask.Flask:
    app = flask.Flask(__name__)
    server = AuthorizationServer()

    def save(token: dict[str, str], request: Any) -> None:
        provider.tokens[token["access_token"]] = request.user

    server.init_app(app, lambda client: _Client(provider.backs) if client == CLIENT else None, save)
    server.register_grant(_grant(provider), [CodeChallenge(required=True), _id_tokens(provider)])

    @app.before_request
    def lie() -> Any:
        provider.asked.append(flask.request.path)
        if flask.request.path in provider.answers:
            told = provider.answers[flask.request.path]()
            return flask.Response(*told) if isinstance(told, tuple) else flask.Response(told)
        return None

    @app.get("/.well-known/openid-configuration")
    def discovery() -> Any:
        names = {"authorization_endpoint": "authorize", "token_endpoint": "token", "jwks_uri": "keys"}
        places = {name: f"{provider.issuer}/{path}" for name, path in names.items()}
        return {"issuer": provider.issuer, **places, "userinfo_endpoint": f"{provider.issuer}/userinfo"}

    @app.get("/keys")
    def keys() -> Any:
        return KeySet(list(provider.keys)).as_dict()

    @app.route("/authorize", methods=["GET", "POST"])
    def authorize() -> Any:
        try:
            grant = server.get_consent_grant()
        except OAuth2Error as error:
            return f"Refused: {error}", 400
        if flask.request.method == "GET":
            return (
                "<!doctype html><title>Example</title><form method=post><label>Account <input name=subject></label>"
                "<button>Let me in</button><button name=deny value=yes>Cancel</button></form>"
            )
        user = None if "deny" in flask.request.form else flask.request.form["subject"]
        return server.create_authorization_response(grant_user=user, grant=grant)

    @app.post("/token")
    def token() -> Any:
        return server.create_token_response()

    @app.get("/userinfo")
    def userinfo() -> Any:
        subject = provider.tokens[flask.request.headers["Authorization"].removeprefix("Bearer ")]
        return {"sub": subject, **provider.people.get(subject, {})}

    return app


def _grant(provider: OpenId) -> type:
    class Grant(grants.AuthorizationCodeGrant):  # type: ignore[misc]
        def save_authorization_code(self, code: str, request: Any) -> None:
            told = request.payload
            words = (told.data[name] for name in ("nonce", "code_challenge", "code_challenge_method"))
            provider.codes[code] = _Code(request.user, told.redirect_uri, told.scope, *words)

        def query_authorization_code(self, code: str, client: _Client) -> _Code | None:
            return provider.codes.get(code)

        def delete_authorization_code(self, found: _Code) -> None:
            provider.codes = {code: each for code, each in provider.codes.items() if each is not found}

        def authenticate_user(self, found: _Code) -> str:
            return found.subject

    return Grant


def _id_tokens(provider: OpenId) -> Any:
    class Tokens(OpenIDCode):  # type: ignore[misc]
        def exists_nonce(self, nonce: str, request: Any) -> bool:
            return any(each.nonce == nonce for each in provider.codes.values())

        def encode_id_token(self, token: dict[str, str], request: Any) -> str:
            claims = {"iss": provider.issuer, "sub": request.user, **self.get_compatible_claims(request)}
            claims |= self.get_authorization_code_claims(request.authorization_code)
            return provider.token(claims if provider.thin else {**claims, **provider.people.get(request.user, {})})

    return Tokens(require_nonce=True)
