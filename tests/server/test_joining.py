"""``join``, ``leave``, and what the other commands say of the server."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from headstart.host import document
from headstart.store import membership
from tests.kit.cli import Cli, QuickCli
from tests.kit.server import Server, Tenant
from tests.server.joined import NIGHTLY


@pytest.fixture(scope="module")
def tenant(server: Server) -> Tenant:
    made = server.tenant("joiners")
    made.repository()
    return made


def kept(cli: Cli) -> Path:
    return cli.state / membership.FILE


def join(cli: Cli, server: Server, tenant: Tenant, name: str, *more: str, expect: int = 0) -> Any:
    return cli.run("join", server.identity.url, tenant.join_token(), "--name", name, *more, expect=expect)


def test_joining_twice_is_on_purpose_or_not_at_all(server: Server, tenant: Tenant, tmp_path: Path) -> None:
    cli = QuickCli(tmp_path)
    join(cli, server, tenant, "twice")
    before = kept(cli).read_text()
    assert kept(cli).stat().st_mode & 0o777 == 0o600
    refused = join(cli, server, tenant, "twice", expect=2).error["error"]["message"]
    assert "has joined" in refused and "--again" in refused
    assert kept(cli).read_text() == before
    join(cli, server, tenant, "twice", "--again")
    after = json.loads(kept(cli).read_text())
    assert after["token"] != json.loads(before)["token"] and after["host"] == json.loads(before)["host"]
    # Also what was damaged is mended by joining.
    kept(cli).write_text("{")
    join(cli, server, tenant, "twice")


def test_what_joining_refuses(server: Server, tenant: Tenant, tmp_path: Path) -> None:
    cli, other = QuickCli(tmp_path / "one"), QuickCli(tmp_path / "two")
    token = tenant.join_token()
    for url in ("ftp://x", "nonsense", "https://", "https://x:99999", "http://192.0.2.1:8443"):
        cli.run("join", url, token, expect=2)
    assert "hsj_" in cli.run("join", server.identity.url, "abc", expect=2).error["error"]["message"]
    away = cli.run("join", "https://127.0.0.1:1", token, expect=25).error["error"]["message"]
    assert "does not answer" in away
    wrong = token.rsplit("_", 1)[0] + "_" + "0" * 64
    assert "another certificate" in cli.run("join", server.identity.url, wrong, expect=2).error["error"]["message"]
    cli.run("join", server.identity.url, token, "--name", "taken")
    said = join(other, server, tenant, "taken", expect=21).error["error"]["message"]
    assert "Another machine has joined as 'taken'" in said
    assert not kept(other).exists()
    assert "cannot be the name" in join(other, server, tenant, "a name", expect=2).error["error"]["message"]


def test_who_leaves_is_known_no_longer(server: Server, tenant: Tenant, tmp_path: Path) -> None:
    cli = QuickCli(tmp_path)
    assert "has joined no server" in cli.run("leave", expect=2).error["error"]["message"]
    join(cli, server, tenant, "leaver")
    (cli.state / document.FILE).write_text("")
    gone = membership.load(kept(cli))
    assert gone is not None
    assert cli.run("leave").json["told"]
    assert not kept(cli).exists() and not (cli.state / document.FILE).exists()
    tokens = [each for each in tenant.admin.get("/v1/tokens") if each["host"] == gone.host]
    assert tokens and all(each["revoked"] for each in tokens)
    # It may come again, as whom it was.
    join(cli, server, tenant, "leaver")
    again = membership.load(kept(cli))
    assert again is not None and again.host == gone.host
    away = json.loads(kept(cli).read_text()) | {"url": "https://127.0.0.1:1"}
    kept(cli).write_text(json.dumps(away))
    assert "--unheard" in cli.run("leave", expect=25).error["error"]["message"]
    assert cli.run("leave", "--unheard").json["told"] is False and not kept(cli).exists()


def test_what_other_commands_say_of_it(server: Server, tenant: Tenant, tmp_path: Path) -> None:
    cli = QuickCli(tmp_path, HEADSTART_REPOSITORY="", HEADSTART_CONFIG="")
    assert cli.run("status").json["server"] is None
    join(cli, server, tenant, "teller")
    # The repository is that of the server, unless another is named.
    cli.run("init")
    assert cli.run("verify").json["snapshots"] == 0
    told = cli.run("status").json["server"]
    assert told["url"] == server.identity.url and told["state"] == "nobody asks it"
    cli.run("vm", "add", "web", "--qmp", "/run/nothing.qmp", expect=None)
    text = f"[policy.gold]\n{NIGHTLY}".replace("[schedule]", "[policy.gold.schedule]")
    text = text.replace("[head_start]", "[policy.gold.head_start]")
    (cli.state / document.FILE).write_text(text + '[default]\npolicy = "gold"\n')
    # No file of its own: the server's document is the configuration.
    checked = cli.run("config", "check").json
    assert [each["name"] for each in checked["policies"]] == ["gold"]
    found = {
        each["level"]: each for each in cli.run("doctor", expect=None).json["findings"] if each["check"] == "server"
    }
    assert server.identity.url in found["ok"]["what"]
    kept(cli).write_text(kept(cli).read_text().replace(server.identity.fingerprint, "0" * 64))
    findings = cli.run("doctor", expect=27).json["findings"]
    assert any(each["check"] == "server" and "another certificate" in each["what"] for each in findings)
