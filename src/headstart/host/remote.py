"""The server as a host sees it: what is asked of it, and what of its answers can be used.

Whatever answers there may be slow, of another version, or not what it should be: an answer that is not as it must be
is ``Nonsense``, and no more comes of it than of none.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from headstart import __version__, errors, plain
from headstart.host import document
from headstart.state.series import Minute
from headstart.state.values import Run
from headstart.store.membership import Membership
from headstart.wire import https
from headstart.wire.https import Bound, Client, Identity

#: Seconds without a byte of an answer; and what an answer takes at most.
ANSWER_SECONDS = 30.0
_BOUND = Bound(2 << 20, 60.0)
_DOCUMENT = Bound(document.LONGEST, 60.0)
#: Whatever a server says, hosts neither hammer at it nor forget it.
_SOONEST, _LATEST = 1.0, 300.0
_TEXT = 500
_MANY = 2000
_TOKEN = re.compile(r"[A-Za-z0-9_-]{20,256}")


class Nonsense(errors.StoreFailed):
    """An answer that is none of a server of ours."""


@dataclass(frozen=True, slots=True)
class Offered:
    """An order that is to be taken."""

    id: str
    kind: str
    vm: str | None
    arguments: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Beat:
    """``policies``: the version of the document; ``next``: seconds until the next pulse; ``refused``: VMs that are not
    taken in, and why; ``orders``: by id, the state of those that the host has."""

    policies: str
    next: float
    renew: bool = False
    refused: Mapping[str, str] = field(default_factory=dict)
    offered: tuple[Offered, ...] = ()
    orders: Mapping[str, str] = field(default_factory=dict)


def join(identity: Identity, token: str, name: str, installation: str) -> Membership:
    """Raises what the server answers with, ``Nonsense``."""
    client = Client(identity)
    try:
        asked = {"token": token, "name": name, "installation": installation, "version": __version__}
        told = _table(_call(client, "POST", "/v1/host/join", asked))
        words = {each: _text(told, each) for each in ("tenant", "host", "repository")}
        secret, expires = _token(told)
        return Membership(identity.url, secret, identity.fingerprint, **words, expires=expires)
    finally:
        client.close()


class Remote:
    """``close`` it. For one thread."""

    def __init__(self, membership: Membership) -> None:
        self.membership = membership
        self._client = Client(membership.identity)

    def close(self) -> None:
        self._client.close()

    def pulse(
        self,
        state: Mapping[str, Any],
        vms: Mapping[str, Mapping[str, Any] | None],
        orders: Mapping[str, Mapping[str, Any]],
    ) -> Beat:
        told = {"version": __version__, "state": state, "vms": vms, "orders": orders}
        return beat_of(_call(self._client, "POST", "/v1/host/pulse", told))

    def policies(self, version: str) -> str | None:
        """The document; None: it is that of ``version`` still."""
        headers = {"If-None-Match": f'"{version}"'} if version else {}
        answer = self._client.request("GET", "/v1/host/policies", None, headers, ANSWER_SECONDS, _DOCUMENT)
        if answer.status == 304:
            return None
        if answer.status != 200:
            raise https.error_of(answer, self.membership.url)
        try:
            return answer.data.decode()
        except UnicodeDecodeError:
            raise Nonsense(f"{self.membership.url}: the policies are not text.") from None

    def runs(self, runs: Iterable[Run]) -> None:
        told = [asdict(run) for run in runs]
        _call(self._client, "POST", "/v1/host/runs", {"runs": told})

    def snapshots(self, facts: Sequence[Mapping[str, Any]]) -> None:
        _call(self._client, "POST", "/v1/host/snapshots", {"snapshots": facts})

    def figures(self, minutes: Mapping[str, Iterable[Minute]]) -> None:
        told = {vm: [asdict(minute) for minute in each] for vm, each in minutes.items()}
        _call(self._client, "POST", "/v1/host/figures", {"vms": told})

    def renew(self) -> Membership:
        """With a new token: that in use is good until the new one comes."""
        token, expires = _token(_table(_call(self._client, "POST", "/v1/host/token")))
        return replace(self.membership, token=token, expires=expires)

    def leave(self) -> None:
        _call(self._client, "POST", "/v1/host/leave")


def _call(client: Client, method: str, path: str, value: object = None) -> Any:
    body = None if value is None else sane(value)
    return client.call(method, path, body, answer_seconds=ANSWER_SECONDS, bound=_BOUND)


def sane(value: Any) -> Any:
    """As JSON has it: without numbers that are none, and text that is none."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {_word(str(key)): sane(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [sane(each) for each in value]
    return value if value is None or isinstance(value, int) else _word(str(value))


def _word(text: str) -> str:
    """No half of a surrogate pair, as of file names, and no byte that a database refuses."""
    return text.encode(errors="replace").decode().replace("\0", plain.HIDDEN)


# answers


def beat_of(found: Any) -> Beat:
    told = _table(found)
    pause = told.get("next", 0.0)
    if not isinstance(pause, int | float) or not math.isfinite(pause):
        raise Nonsense(f"The server says no time for the next pulse, but {str(pause)[:_TEXT]!r}.")
    offered = told.get("offered", [])
    if not isinstance(offered, list):
        raise Nonsense("The server offers orders in a way that is not known here.")
    return Beat(
        _text(told, "policies"),
        min(max(float(pause), _SOONEST), _LATEST),
        told.get("renew") is True,
        _texts(told.get("refused", {})),
        tuple(_offered(_table(each)) for each in offered[:_MANY]),
        _texts(told.get("orders", {})),
    )


def _offered(told: Mapping[str, Any]) -> Offered:
    vm = told.get("vm")
    order = _text(told, "id")
    if not re.fullmatch(r"[0-9a-f]{32}", order):
        raise Nonsense("The server offers an order without an id.")
    return Offered(
        order, _text(told, "kind"), None if vm is None else str(vm)[:_TEXT], _table(told.get("arguments", {}))
    )


def _texts(found: Any) -> dict[str, str]:
    pairs = list(_table(found).items())[:_MANY]
    return {str(key)[:_TEXT]: plain.line(str(value), _TEXT) for key, value in pairs}


def _table(found: Any) -> Mapping[str, Any]:
    if not isinstance(found, dict):
        raise Nonsense("The server's answer is none that is known here: is it a server of Headstart's?")
    return found


def _text(told: Mapping[str, Any], name: str) -> str:
    found = told.get(name)
    if not isinstance(found, str) or not 0 < len(found) <= _TEXT:
        raise Nonsense(f"The server's answer has no {name}: is it a server of Headstart's?")
    return found


def _token(told: Mapping[str, Any]) -> tuple[str, float]:
    token, expires = _text(told, "token"), told.get("expires")
    if not _TOKEN.fullmatch(token) or not isinstance(expires, int | float) or not math.isfinite(expires):
        raise Nonsense("The server's answer has no token that can be used.")
    return token, float(expires)
