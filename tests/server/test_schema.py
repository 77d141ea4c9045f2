"""The whole API, asked by a machine that has read only its document (schemathesis): whatever it makes up, the server
answers as documented, and never with a failure of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kit import tenancy
from tests.kit.postgres import Postgres
from tests.kit.server import Person, Server

#: All but ``positive_data_acceptance``: what is formed as documented does not always mean something (a policy's TOML, a
#: digest, a token's kind that takes no role).
CHECKS = (
    *("not_a_server_error", "status_code_conformance", "content_type_conformance", "response_headers_conformance"),
    *("response_schema_conformance", "unsupported_method", "ignored_auth", "use_after_free", "negative_data_rejection"),
)
#: A missing body is also refused by what is looked at before it: 412, for an object that is there already.
REFUSED = """[checks.negative_data_rejection]
expected-statuses = [400, 401, 403, 404, 405, 406, 409, 411, 412, 413, 415, 422, 428, 429, "5xx"]
"""
#: Seconds of the whole run, for each who asks.
BUDGETS = {"program": 40, "host": 15, "site": 20}
EXAMPLES, SECONDS = 8, 200


@pytest.fixture(scope="module")
def place(postgres: Postgres, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """On PostgreSQL, which takes fewer texts and numbers than SQLite."""
    options = ("--database", postgres.new_database())
    limits = {"HEADSTART_SERVER_RATE_KNOWN": "0", "HEADSTART_SERVER_RATE_STRANGERS": "0"}
    with Server(tmp_path_factory.mktemp("schema"), options, environment=limits) as running:
        yield running


def test_the_document_is_of_openapi_3_1(place: Server) -> None:
    document = Person(place.identity).get("/v1/openapi.json")
    assert document["openapi"].startswith("3.1")
    for path, methods in document["paths"].items():
        assert path.startswith("/v1/")
        for told in methods.values():
            assert "application/problem+json" in told["responses"]["404"]["content"]


@pytest.mark.parametrize("who", list(BUDGETS))
def test_whatever_is_asked_is_answered_as_documented(place: Server, tmp_path: Path, who: str) -> None:
    estate = tenancy.settle(place, f"schema-{who}")
    person = place.site() if who == "site" else estate.people[who]
    settings = REFUSED
    if who == "program":
        # With ids that there are it gets further; without, as the others, it meets more refusals.
        known = "".join(f'"path.{name}" = "{names[0]}"\n' for name, names in estate.names.items() if name != "token")
        settings += f"[parameters]\n{known}"
    (tmp_path / "schemathesis.toml").write_text(settings)
    headers = dict(person.headers)
    if person.client.identity.token:
        headers["Authorization"] = f"Bearer {person.client.identity.token}"
    # The site would remove its tenants, and everybody log out.
    left_out = ["--exclude-path=/v1/session"]
    if who == "site":
        # A session's cookie counts also beside another scheme's Authorization: that is no ignored one.
        left_out += ["--exclude-method=DELETE", "--exclude-checks=ignored_auth"]
    command = [
        *(str(Path(sys.executable).with_name("schemathesis")), "run", f"{place.identity.url}/v1/openapi.json"),
        *(f"--checks={','.join(CHECKS)}", f"--max-examples={EXAMPLES}", f"--max-time={BUDGETS[who]}"),
        *("--phases=examples,coverage,fuzzing", "--seed=1", "--generation-deterministic", "--no-color"),
        *("--max-failures=20", "--request-timeout=30", "--tls-verify=false", *left_out),
        "--generation-with-security-parameters=false",
        *(f"--header={name}: {value}" for name, value in headers.items()),
    ]
    environment = {**os.environ, "PYTHONWARNINGS": "ignore"}
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=SECONDS, env=environment)
    assert done.returncode == 0, done.stdout[-12000:] + done.stderr[-2000:]
    assert "Traceback" not in place.log(), place.log()[-4000:]
