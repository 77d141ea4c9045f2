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
from tests.kit.server import Person, Server

#: All but those: answers of lists are documented loosely, a name that fits is not always one that may be taken
#: (``positive_data_acceptance``), and what does not fit may be refused for another reason before
#: (``negative_data_rejection``: who may not do it is told so, whatever the body).
CHECKS = (
    *("not_a_server_error", "status_code_conformance", "content_type_conformance", "response_headers_conformance"),
    *("response_schema_conformance", "unsupported_method", "ignored_auth", "use_after_free"),
)
EXAMPLES, MAX_SECONDS, SECONDS = 8, 60, 240


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    limits = {"HEADSTART_SERVER_RATE_KNOWN": "0", "HEADSTART_SERVER_RATE_STRANGERS": "0"}
    with Server(tmp_path_factory.mktemp("schema"), environment=limits) as running:
        yield running


def test_the_document_is_of_openapi_3_1(place: Server) -> None:
    document = Person(place.identity).get("/v1/openapi.json")
    assert document["openapi"].startswith("3.1")
    for path, methods in document["paths"].items():
        assert path.startswith("/v1/")
        for told in methods.values():
            assert "application/problem+json" in told["responses"]["404"]["content"]


@pytest.mark.parametrize("who", ["program", "host", "site"])
def test_whatever_is_asked_is_answered_as_documented(place: Server, tmp_path: Path, who: str) -> None:
    person = place.site() if who == "site" else tenancy.settle(place, f"schema-{who}").people[who]
    headers = dict(person.headers)
    if person.client.identity.token:
        headers["Authorization"] = f"Bearer {person.client.identity.token}"
    # The site would remove its tenants, and everybody log out.
    left_out = ("--exclude-path=/v1/session", *(("--exclude-method=DELETE",) if who == "site" else ()))
    command = [
        *(str(Path(sys.executable).with_name("schemathesis")), "run", f"{place.identity.url}/v1/openapi.json"),
        *(f"--checks={','.join(CHECKS)}", f"--max-examples={EXAMPLES}", f"--max-time={MAX_SECONDS}"),
        *("--phases=examples,coverage,fuzzing", "--seed=1", "--generation-deterministic", "--no-color"),
        *("--max-failures=20", "--request-timeout=30", "--tls-verify=false", *left_out),
        *(f"--header={name}: {value}" for name, value in headers.items()),
    ]
    environment = {**os.environ, "PYTHONWARNINGS": "ignore"}
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=SECONDS, env=environment)
    assert done.returncode == 0, done.stdout[-12000:] + done.stderr[-2000:]
    assert "Traceback" not in place.log(), place.log()[-4000:]
