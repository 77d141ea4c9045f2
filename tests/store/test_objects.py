"""Object storage: what a real server answers, and what networks and providers do to it."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path

import pytest

from headstart import errors
from headstart.store import contract, objects, open_store
from headstart.store.contract import Exists, Missing, Refused
from headstart.store.locking import LockingStore
from headstart.store.s3 import Account
from tests.kit import gateway as gateways
from tests.kit import weed as weeds
from tests.kit.gateway import Gateway
from tests.kit.weed import Weed

DATA = os.urandom(300_000)


@pytest.mark.parametrize(
    ("status", "code", "kind", "said"),
    [
        (503, "SlowDown", errors.StoreFailed, "planned"),
        (503, "", errors.StoreFailed, "status 503"),
        (429, "TooManyRequests", errors.StoreFailed, "planned"),
        (500, "InternalError", errors.StoreFailed, "planned"),
        (400, "RequestTimeout", errors.StoreFailed, "planned"),
        (409, "ConditionalRequestConflict", errors.StoreFailed, "planned"),
        (403, "AccessDenied", Refused, "rights that are needed"),
        (403, "RequestTimeTooSkewed", Refused, "clock of this machine"),
        (403, "InvalidAccessKeyId", Refused, "credentials are not right"),
        (400, "ExpiredToken", Refused, "expired"),
        (400, "AuthorizationHeaderMalformed", Refused, "AWS_REGION"),
        (404, "NoSuchBucket", Refused, "Make the bucket"),
        (405, "MethodNotAllowed", Refused, "of this kind"),
        (403, "QuotaExceeded", errors.NoSpace, "raise the quota"),
        (400, "XMinioAdminBucketQuotaExceeded", errors.NoSpace, "raise the quota"),
        (507, "", errors.NoSpace, "raise the quota"),
    ],
)
def test_what_a_server_says(
    gateway: Gateway, direct: LockingStore, status: int, code: str, kind: type[Exception], said: str
) -> None:
    """Of each request the same."""
    direct.create("packs/one", b"x")
    for method in ("PUT", "GET", "DELETE"):
        gateway.plan(method, "", gateways.refuse(status, code), None)
    for request in (
        lambda: direct.create("packs/two", b"x"),
        lambda: direct.read("packs/one"),
        lambda: direct.read_range("packs/one", 0, 1),
        lambda: list(direct.list("packs/")),
        lambda: list(direct.modified("packs/")),
        lambda: direct.delete("packs/one"),
    ):
        with pytest.raises(kind, match=said) as caught:
            request()
        assert type(caught.value) is kind
        assert repr(direct) in str(caught.value)
    gateway.forget()
    assert dict(direct.list("")) == {"packs/one": 1}


def test_a_server_without_conditional_writes(gateway: Gateway, direct: LockingStore) -> None:
    gateway.plan("PUT", "", gateways.refuse(501, "NotImplemented"))
    with pytest.raises(errors.Unsupported, match="conditional writes"):
        direct.create("packs/one", b"x")


@pytest.mark.parametrize("fault", [gateways.lose_request, gateways.lose_answer, gateways.break_after])
def test_after_a_failure_the_outcome_is_unknown(gateway: Gateway, direct: LockingStore, fault: gateways.Fault) -> None:
    gateway.plan("PUT", "packs/one", fault)
    with pytest.raises(errors.StoreFailed) as caught:
        direct.create("packs/one", b"x")
    assert type(caught.value) is errors.StoreFailed
    assert dict(direct.list("")) == ({} if fault is gateways.lose_request else {"packs/one": 1})


@pytest.mark.parametrize("fault", [gateways.truncate, gateways.lose_request])
def test_an_answer_that_is_cut_is_asked_for_again(
    gateway: Gateway, direct: LockingStore, fault: gateways.Fault
) -> None:
    direct.create("packs/one", DATA)
    gateway.plan("GET", "", fault, None)
    for request in (
        lambda: direct.read("packs/one"),
        lambda: direct.read_range("packs/one", 7, 200_000),
        lambda: list(direct.list("packs/")),
    ):
        with pytest.raises(errors.StoreFailed) as caught:
            request()
        assert type(caught.value) is errors.StoreFailed
    gateway.forget()
    assert direct.read("packs/one") == DATA


def test_a_server_that_does_not_answer(gateway: Gateway, direct: LockingStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(objects, "ANSWER_SECONDS", 1)
    monkeypatch.setattr(objects, "TRANSFER_SECONDS", 2)
    for method in ("GET", "PUT"):
        gateway.plan(method, "packs/one", gateways.delay(4))
    with pytest.raises(errors.StoreFailed, match="no answer in time"):
        direct.read("packs/one")
    with pytest.raises(errors.StoreFailed, match="no answer in time"):
        direct.create("packs/one", b"x")


def test_ctrl_c_is_heeded_while_a_server_is_waited_for(gateway: Gateway, direct: LockingStore) -> None:
    direct.create("packs/one", b"x")
    for method in ("GET", "PUT", "DELETE"):
        gateway.plan(method, "", gateways.delay(3), None)
    for request in (
        lambda: direct.read("packs/one"),
        lambda: direct.read_range("packs/one", 0, 1),
        lambda: list(direct.list("")),
        lambda: direct.create("packs/two", b"x"),
        lambda: direct.delete("packs/one"),
    ):
        begun = time.monotonic()
        timer = threading.Timer(0.2, lambda: os.kill(os.getpid(), signal.SIGINT))
        timer.start()
        with pytest.raises(KeyboardInterrupt):
            request()
        assert time.monotonic() - begun < 2


def test_nobody_answers(direct: LockingStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    for request in (lambda: direct.read("config"), direct.clock, lambda: direct.locked_until("config")):
        with pytest.raises(errors.StoreFailed, match=r"refused|connect") as caught:
            request()
        assert type(caught.value) is errors.StoreFailed


def test_retries_make_it_right(gateway: Gateway, bucket: str, place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """All kinds of trouble at once, as a user has them: nothing is lost, and nothing is there twice."""
    monkeypatch.setattr("headstart.store.retrying.FIRST_PAUSE", 0.01)
    store = open_store(f"s3://{bucket}/{place}")
    for method in ("PUT", "GET", "DELETE"):
        for fault in (
            gateways.refuse(503, "SlowDown"),
            gateways.refuse(429, "TooManyRequests"),
            gateways.lose_answer,
            gateways.lose_request,
            gateways.truncate,
        ):
            gateway.plan(method, "", fault)
    store.create("packs/one", DATA)
    assert gateway.count("PUT") == 6
    with pytest.raises(Exists):
        store.create("packs/one", b"another")
    assert store.read("packs/one") == DATA
    assert dict(store.list("")) == {"packs/one": len(DATA)}
    store.delete("packs/one")
    assert dict(store.list("")) == {}


def test_what_is_not_listed_yet_is_there_all_the_same(gateway: Gateway, direct: LockingStore) -> None:
    """What is not listed yet can be read all the same, and its name is taken."""
    gateway.plan("GET", "list-type", gateways.hide("packs/one"), None)
    direct.create("packs/one", b"x")
    direct.create("packs/two", b"x")
    assert dict(direct.list("packs/")) == {"packs/two": 1}
    assert direct.read("packs/one") == b"x"
    with pytest.raises(Exists):
        direct.create("packs/one", b"y")


def test_many_objects(direct: LockingStore, gateway: Gateway) -> None:
    """More than a server lists at once; of a few, not all are asked for."""
    names = {f"packs/{number:04x}" for number in range(1100)}
    client = Account().client
    for name in sorted(names):
        client.put_object(Bucket=direct._name, Key=direct._prefix + name, Body=b"x")
    before = gateway.count("GET")
    assert {key for key, _ in direct.list("packs/")} == names
    assert gateway.count("GET") - before == 2
    before = gateway.count("GET")
    assert dict(direct.list("packs/0001")) == {"packs/0001": 1}
    assert gateway.count("GET") - before == 1
    assert {key for key, _ in direct.list("packs/04")} == {name for name in names if name.startswith("packs/04")}


def test_ages_are_by_the_clock_of_the_server(gateway: Gateway, direct: LockingStore) -> None:
    direct.create("drafts/one", b"x")
    ((_, _, created),) = direct.modified("drafts/")
    assert abs(created - direct.clock()) < 60
    gateway.plan("HEAD", "", gateways.at_time("Thu, 01 Jan 2026 00:00:10 GMT"))
    assert direct.clock() == 1767225610.0
    gateway.plan("HEAD", "", gateways.refuse(403, "AccessDenied"))
    with pytest.raises(errors.StoreFailed, match="what time it is"):
        direct.clock()


def test_who_may_only_read(weed: Weed, direct: LockingStore, monkeypatch: pytest.MonkeyPatch) -> None:
    direct.create("packs/one", b"x")
    for name, value in weeds.environment(weed.url, weeds.READER, weeds.READERS_SECRET).items():
        monkeypatch.setenv(name, value)
    reader = LockingStore(repr(direct), direct._name, direct._prefix, Account)
    assert reader.read("packs/one") == b"x"
    assert dict(reader.list("")) == {"packs/one": 1}
    with pytest.raises(Refused, match="rights that are needed"):
        reader.create("packs/two", b"x")
    with pytest.raises(Refused, match="rights that are needed"):
        reader.delete("packs/one")
    assert direct.read("packs/one") == b"x"


def test_foreign_objects(weed: Weed, direct: LockingStore) -> None:
    """They show with their names as they are, and of other prefixes nothing."""
    direct.create("config", b"x")
    client = weed.client()
    client.put_object(Bucket=direct._name, Key=direct._prefix + "my photos/ü.jpg", Body=b"x")
    client.put_object(Bucket=direct._name, Key=direct._prefix.rstrip("/") + "-other/config", Body=b"x")
    assert dict(direct.list("")) == {"config": 1, "my photos/ü.jpg": 1}


# -- who we are, and where it is


def test_a_profile_of_the_usual_files(
    weed: Weed, bucket: str, place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in weed.environment:
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "config").write_text(f"[profile backups]\nregion = eu-west-1\nendpoint_url = {weed.url}\n")
    (tmp_path / "credentials").write_text(
        f"[backups]\naws_access_key_id = {weeds.KEY}\naws_secret_access_key = {weeds.SECRET}\n"
    )
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setenv("AWS_PROFILE", "backups")
    store = open_store(f"s3://{bucket}/{place}")
    store.create("config", b"x")
    assert store.read("config") == b"x"
    assert Account().client.meta.region_name == "eu-west-1"


def test_wrong_credentials_are_told_as_such(direct: LockingStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    with pytest.raises(Refused, match="credentials are not right"):
        direct.read("config")


def test_without_credentials_it_is_said_where_they_go(direct: LockingStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    with pytest.raises(errors.Usage, match="AWS_PROFILE"):
        direct.read("config")


def test_a_profile_that_is_not_there(direct: LockingStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_PROFILE", "nobody")
    with pytest.raises(errors.Usage, match="nobody"):
        direct.read("config")


def test_a_ca_bundle_that_is_not_there(direct: LockingStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_CA_BUNDLE", "/nowhere/ca.pem")
    with pytest.raises(errors.Usage, match=r"/nowhere/ca\.pem"):
        direct.read("config")


def test_an_azure_account_has_to_be_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AZURE_STORAGE_ACCOUNT_NAME", "AZURE_STORAGE_ACCOUNT"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(errors.Usage, match="AZURE_STORAGE_ACCOUNT_NAME"):
        open_store("az://container/prefix").read("config")


def test_a_wrong_address_is_told_soon(gateway: Gateway, bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits for minutes for a server that has never answered."""
    monkeypatch.setattr("headstart.store.retrying.FIRST_PATIENCE", 0.2)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    store: contract.Store = open_store(f"s3://{bucket}/x")
    with pytest.raises(errors.StoreFailed, match="Could not read config"):
        store.read("config")


def test_missing_is_no_trouble(gateway: Gateway, bucket: str, place: str) -> None:
    with pytest.raises(Missing):
        open_store(f"s3://{bucket}/{place}").read("config")
    assert gateway.count("GET") == 1
