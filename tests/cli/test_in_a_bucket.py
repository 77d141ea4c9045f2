"""The commands on a repository in a bucket, as their users start them."""

from __future__ import annotations

import time
from email.utils import formatdate
from pathlib import Path

import pytest

from tests.kit import gateway as gateways
from tests.kit import weed as weeds
from tests.kit.cli import Cli, QuickCli
from tests.kit.gateway import Gateway


@pytest.fixture
def cli(tmp_path: Path, gateway: Gateway, bucket: str, place: str) -> Cli:
    return in_bucket(tmp_path, gateway, f"s3://{bucket}/{place}")


def in_bucket(folder: Path, gateway: Gateway, url: str) -> Cli:
    return QuickCli(folder, HEADSTART_REPOSITORY=url, **weeds.environment(gateway.url))


def findings(cli: Cli, check: str = "repository") -> list[tuple[str, str]]:
    found = cli.run("doctor", expect=None).json["findings"]
    return [(each["level"], each["what"]) for each in found if each["check"] == check]


def test_a_repository_is_made_once(cli: Cli) -> None:
    made = cli.run("init").json
    assert made["repository"] == cli.environment["HEADSTART_REPOSITORY"]
    assert made["immutable_days"] == 0
    said = cli.run("init", expect=24).error["error"]["message"]
    assert "holds a repository already" in said
    assert cli.run("snapshots").json["snapshots"] == []
    assert cli.run("verify").json["findings"] == []


def test_immutable_wants_a_bucket_with_object_lock(
    cli: Cli, tmp_path: Path, gateway: Gateway, locking_bucket: str, place: str
) -> None:
    assert "object lock" in cli.run("init", "--immutable", "3", expect=14).error["error"]["message"]
    assert "--immutable" in cli.run("init", "--immutable", "soon", expect=2).error["error"]["message"]
    other = in_bucket(tmp_path / "other", gateway, f"s3://{locking_bucket}/{place}")
    assert other.run("init", "--immutable", "3").json["immutable_days"] == 3
    assert ("ok", "what snapshots need is immutable for 3 days") in findings(other)


def test_an_immutable_repository_has_no_place_in_a_directory(tmp_path: Path) -> None:
    assert "bucket of S3" in Cli(tmp_path).run("init", "--immutable", "3", expect=14).error["error"]["message"]


def test_the_doctor_finds_what_is_wrong_with_a_bucket(cli: Cli, gateway: Gateway) -> None:
    assert findings(cli)[0][0] == "problem"
    cli.run("init")
    url = cli.environment["HEADSTART_REPOSITORY"]
    assert findings(cli) == [("ok", f"{url} can be reached")]
    gateway.plan("HEAD", "", gateways.at_time(formatdate(time.time() + 600, usegmt=True)), None)
    [(level, said), _] = findings(cli)
    assert level == "warning" and "behind the store's" in said


@pytest.mark.parametrize(
    ("name", "value", "status", "said"),
    [
        ("AWS_SECRET_ACCESS_KEY", "wrong", 25, "credentials are not right"),
        ("AWS_ACCESS_KEY_ID", "", 2, "AWS_PROFILE"),
        ("HEADSTART_REPOSITORY", "s3://B/x", 2, "name of a bucket"),
        ("HEADSTART_REPOSITORY", "s3://bucket0/a?b=c", 2, "no '?'"),
        ("AWS_ENDPOINT_URL", "nonsense", 2, "nonsense"),
    ],
)
def test_what_is_wrong_is_said(cli: Cli, name: str, value: str, status: int, said: str) -> None:
    cli.environment[name] = value
    outcome = cli.run("snapshots", expect=status)
    assert "Traceback" not in outcome.stderr
    assert said in outcome.error["error"]["message"]
