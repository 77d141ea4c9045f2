"""From outside: whatever a tenant has is, for everybody of another one, as what does not exist.

Every operation of the running server's own OpenAPI document is asked with every way to name something of ours, by
everybody of theirs, and once more with a name that nobody has. Both answers have to be the same; nothing of ours may
change, and nothing of ours be told. A route with a parameter that this module cannot fill fails it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import pytest

from tests.kit import routes, tenancy
from tests.kit.routes import Operation
from tests.kit.server import Person, Server
from tests.kit.tenancy import Estate

#: Marks of names that are found nowhere else.
OURS, THEIRS, NOBODYS = "zzours", "zztheirs", "zznobody"
#: Parameters that name what belongs to somebody, and which kind of thing.
NAMING = {
    **{name: name for name in ("tenant", "repository", "host", "vm", "snapshot", "user", "token", "policy", "key")},
    **{name: name for name in ("session", "approval", "job", "order")},
    "name": "policy",
    "pattern": "vm",
    "after": "vm",
    "snapshots": "snapshot",
    "vms": "vm",
    "installation": "host",
}
#: And those that name nothing, with a value.
PLAIN: dict[str, Any] = {
    "limit": 10,
    "before": 2000000000,
    "since": 0,
    "prefix": "packs/",
    "range": "bytes=0-3",
    "content-digest": None,  # comes with the body
    "if-none-match": '"x"',
    "state": "done",
    "open": "false",
    "last-event-id": "1",
    "volume": "",
    "path": "/",
    # Sealed for whoever unlocked, who is none of those who ask.
    "x-unlock": "x",
}
#: Texts in bodies that name nothing of anybody's.
WORDS = {
    *("password", "new", "code", "text", "version", "verb", "state", "csrf", "email"),
    *("kind", "kinds", "urls", "zone", "folder", "disks"),
}
#: In a body, ``name`` is that of something new, and ``token`` a secret and no id.
BODY_WORDS = {"name": "fresh", "token": f"hsj_{'0' * 32}_{'0' * 64}"}
#: Where a schema alone would not do.
BODIES: dict[str, list[dict[str, Any]]] = {
    "POST /v1/tokens": [
        {"kind": "api", "name": "fresh", "role": "viewer", "repository": "{repository}"},
        {"kind": "join", "name": "fresh", "repository": "{repository}"},
    ],
    "POST /v1/users": [
        {"name": f"fresh-{role}", "password": "long enough for one", "role": role, "tenant": "{tenant}"}
        for role in ("viewer", "operator", "admin", "site")
    ],
}
#: What the site does with tenants: those are its own objects.
OF_SITE = {
    "GET /v1/jobs/{job}",  # kind, state and times: whether a tenant's work is done
    "POST /v1/jobs/{job}/cancel",  # which it may not, as it is told
    "PUT /v1/tenants/{tenant}/quota",
    "DELETE /v1/tenants/{tenant}",
    "POST /v1/users",
}
#: Without end, and naming nothing of anybody's.
ENDLESS = {"GET /v1/events/stream"}
#: They end the session with which is asked.
LAST = {"DELETE /v1/session"}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    limits = {"HEADSTART_SERVER_RATE_KNOWN": "0", "HEADSTART_SERVER_RATE_STRANGERS": "0"}
    with Server(tmp_path_factory.mktemp("isolation"), environment=limits) as running:
        yield running


@pytest.fixture(scope="module")
def ours(place: Server) -> Estate:
    return tenancy.settle(place, OURS)


@pytest.fixture(scope="module")
def theirs(place: Server) -> Estate:
    return tenancy.settle(place, THEIRS)


@dataclass(frozen=True, slots=True)
class Names:
    """``foreign``: of ours; ``absent``: as it, of nobody; ``own``: of those who ask."""

    foreign: Mapping[str, list[str]]
    absent: Mapping[str, list[str]]
    own: Mapping[str, list[str]]


def test_every_parameter_is_known(place: Server) -> None:
    unknown = {
        (operation.name, field.name)
        for operation in routes.operations(Person(place.identity))
        for field in operation.fields
        if field.name.lower() not in {*NAMING, *PLAIN}
    } | {
        (operation.name, text)
        for operation in routes.operations(Person(place.identity))
        if operation.body is not None
        for text in routes.texts(operation.body)
        if text and text not in {*NAMING, *WORDS}
    }
    assert not unknown, "Tell this module which of them name somebody's objects."


def test_ours_is_for_others_as_what_does_not_exist(place: Server, ours: Estate, theirs: Estate) -> None:
    names = Names(
        ours.names, {kind: [_absent(each) for each in known] for kind, known in ours.names.items()}, theirs.names
    )
    asking = {**theirs.people, "site": place.site(), "nobody": Person(place.identity)}
    before = tenancy.holdings(ours)
    wrong, asked = [], 0
    for operation in sorted(_operations(Person(place.identity)), key=lambda each: each.name in LAST):
        for who, person in asking.items():
            if who == "site" and operation.name in OF_SITE:
                continue
            for foreign, absent in _requests(operation, names):
                asked += 1
                got, expected = _ask(person, operation, foreign), _ask(person, operation, absent)
                if got != expected or OURS in got:
                    wrong.append((operation.name, who, foreign, got, expected))
    assert not wrong, "\n".join(map(str, wrong[:20]))
    assert asked > 200
    after = tenancy.holdings(ours)
    assert {name: after[name] for name in after if after[name] != before[name]} == {}


def test_the_test_sees_the_difference(ours: Estate) -> None:
    """As ours, the same requests do tell ours from nobody's."""
    names = Names(
        ours.names, {kind: [_absent(each) for each in known] for kind, known in ours.names.items()}, ours.names
    )
    seen = set()
    for operation in _operations(ours.admin):
        if operation.method == "GET":
            for foreign, absent in _requests(operation, names):
                if _ask(ours.admin, operation, foreign) != _ask(ours.admin, operation, absent):
                    seen.add(operation.path)
    naming = ("/v1/vms/{vm}", "/v1/snapshots/{snapshot}", "/v1/repositories/{repository}", "/v1/approvals/{approval}")
    assert {*naming, "/v1/repositories/{repository}/objects/{key}"} <= seen


def test_the_site_sees_sizes_and_no_content(place: Server, ours: Estate) -> None:
    site = place.site()
    told = {}
    for operation in _operations(site):
        if operation.method == "GET":
            for foreign, _ in _requests(operation, Names(ours.names, ours.names, ours.names)) or [({}, {})]:
                text = _ask(site, operation, foreign, raw=True)
                if any(f"{kind}-{OURS}" in text for kind in ("vault", "hv", "db", "gold", "token", "viewer")):
                    told[operation.name] = text
    # What it was asked for by is told back with the refusal.
    refused = {name: text for name, text in told.items() if text.startswith(("403", "404"))}
    assert told == refused
    assert any(each["name"] == f"t-{OURS}" for each in site.get("/v1/tenants"))


def _operations(anybody: Person) -> list[Operation]:
    return [each for each in routes.operations(anybody) if each.name not in ENDLESS]


def _absent(name: str) -> str:
    """Of the same form."""
    if OURS in name:
        return name.replace(OURS, NOBODYS)
    return re.sub(
        r"[0-9a-f]{32}",
        lambda found: found[0][::-1].translate(str.maketrans("0123456789abcdef", "fedcba9876543210")),
        name,
    )


def _requests(operation: Operation, names: Names) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """Pairs: something foreign in one or more places, and something absent in the same ones."""
    bodies = BODIES.get(operation.name, [{}])
    found = []
    for template in bodies:
        kinds = _kinds(operation, template)
        for which in range(1, 1 << len(kinds)):
            outside = [name for position, name in enumerate(kinds) if which >> position & 1]
            inside = [name for name in kinds if name not in outside]
            own = {name: names.own[kinds[name]][0] for name in inside}
            foreign = [*routes.choices(outside, {name: names.foreign[kinds[name]] for name in outside})]
            absent = [*routes.choices(outside, {name: names.absent[kinds[name]] for name in outside})]
            for one, other in zip(foreign, absent, strict=True):
                found.append(({**own, **one, "": template}, {**own, **other, "": template}))
    return found


def _kinds(operation: Operation, template: Mapping[str, Any]) -> dict[str, str]:
    """Places in which something is named, and what."""
    kinds = {field.name: NAMING[field.name] for field in operation.fields if field.name in NAMING}
    if not operation.path.endswith("/vms"):
        kinds.pop("after", None)  # a number there, or a file's name
    if template:
        return kinds | {name: NAMING[name] for name, value in template.items() if value == f"{{{name}}}"}
    if operation.body is not None:
        kinds |= {
            f".{text}": NAMING[text]
            for text in routes.texts(operation.body)
            if text in NAMING and text not in BODY_WORDS
        }
    return kinds


def _ask(person: Person, operation: Operation, given: Mapping[str, Any], *, raw: bool = False) -> str:
    path, query, headers = operation.path, [], dict(person.headers)
    for field in operation.fields:
        value = given.get(field.name, PLAIN.get(field.name.lower()))
        if value is None or (field.place == "header" and operation.takes_bytes):
            continue
        if field.place == "path":
            path = path.replace(f"{{{field.name}}}", quote(str(value), safe="/" if field.name == "key" else ""))
        elif field.place == "query":
            query.append(f"{field.name}={quote(str(value), safe='')}")
        else:
            headers[field.name] = str(value)
    assert "{" not in path, f"{operation.name} has a parameter in its path that is not known: {path}"
    data = None
    if operation.takes_bytes:
        data, more = tenancy.body_of_object()
        headers |= more
    elif operation.body is not None:
        template = given.get("", {})
        body = (
            {name: given.get(name, value) for name, value in template.items()}
            if template
            else routes.filled(
                operation.body, BODY_WORDS | {name[1:]: value for name, value in given.items() if name.startswith(".")}
            )
        )
        data = json.dumps(body).encode()
        headers["Content-Type"] = "application/json"
    answer = person.client.request(operation.method, path + (f"?{'&'.join(query)}" if query else ""), data, headers)
    dropped = ("date", "x-request-id", "content-length")
    kept = sorted((name, value) for name, value in answer.headers.items() if name not in dropped)
    text = f"{answer.status} {kept} {answer.data.decode(errors='replace')}"
    if raw:
        return text
    for name, value in sorted(given.items(), key=lambda each: -len(str(each[1]))):
        if isinstance(value, str):
            text = text.replace(value, f"<{name}>")
    return re.sub(r"[0-9a-f]{20,}", "<hex>", re.sub(r"\d{9,}(\.\d+)?", "<moment>", text))
