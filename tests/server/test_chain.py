"""The way of a backup through the server: a host joins, makes its repository there, stores, reads; others cannot."""

from __future__ import annotations

from pathlib import Path

import pytest

from headstart import errors, repository
from headstart.store import membership, open_store
from tests.kit.cli import Cli
from tests.kit.server import Server
from tests.kit.stores import PASSWORD, QUICK


def test_a_host_joins_and_keeps_a_repository_there(server: Server, tmp_path: Path) -> None:
    tenant = server.tenant("joining")
    tenant.repository()
    cli = Cli(tmp_path)
    joined = cli.run("join", server.identity.url, tenant.join_token(), "--name", "alpha").json
    assert joined["repository"] == f"{server.identity.url}/main"
    cli.run("--repository", joined["repository"], "init")
    assert cli.run("--repository", joined["repository"], "verify").json["snapshots"] == 0
    assert [host["name"] for host in tenant.admin.get("/v1/hosts")] == ["alpha"]


def test_a_token_joins_once(server: Server, tmp_path: Path) -> None:
    tenant = server.tenant("once")
    tenant.repository()
    token = tenant.join_token()
    Cli(tmp_path / "one").run("join", server.identity.url, token, "--name", "one")
    refused = Cli(tmp_path / "two").run("join", server.identity.url, token, "--name", "two", expect=12).error
    assert "Get a new one" in refused["error"]["message"]


def test_another_tenants_repository_is_as_if_it_were_not_there(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours, theirs = server.tenant("ours"), server.tenant("theirs")
    ours.repository()
    theirs.repository("other")
    joined = ours.host()
    membership.save(tmp_path / "server.json", joined)
    monkeypatch.setenv(membership.PATH, str(tmp_path / "server.json"))
    with repository.create(open_store(joined.address), PASSWORD, cost=QUICK):
        pass
    for name in ("other", "nothing"):
        with pytest.raises(errors.HeadstartError, match="no repository"):
            repository.open(open_store(f"{joined.url}/{name}"), lambda: PASSWORD)
