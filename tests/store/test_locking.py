"""Object lock: what is locked nobody removes, whoever he is."""

from __future__ import annotations

import time

import pytest
from botocore.exceptions import ClientError

from headstart import errors
from headstart.store import open_store
from headstart.store.contract import Exists, Locks, Missing, Protection, Refused, Store
from headstart.store.locking import LockingStore
from headstart.store.s3 import Account
from tests.kit import gateway as gateways
from tests.kit.gateway import Gateway
from tests.kit.weed import Weed

DAY = 86400.0


def locks_of(store: Store) -> Locks:
    found = store.locks()
    assert found is not None
    return found


@pytest.fixture
def store(gateway: Gateway, locking_bucket: str, place: str) -> LockingStore:
    made = LockingStore(f"s3://{locking_bucket}/{place}", locking_bucket, f"{place}/", Account)
    made.protect(Protection(4, ("drafts/",)))
    return made


def test_whether_a_bucket_can_lock(store: LockingStore, direct: LockingStore) -> None:
    assert store.available()
    assert not direct.available()


def test_what_is_created_is_locked(store: LockingStore) -> None:
    store.create("packs/one", b"x")
    store.create("drafts/one", b"x")
    assert abs(store.locked_until("packs/one") - (time.time() + 5 * DAY)) < 60
    assert store.locked_until("drafts/one") == 0.0
    with pytest.raises(Missing):
        store.locked_until("packs/none")


def test_nobody_removes_it(store: LockingStore, weed: Weed) -> None:
    """To delete it hides it. Its only version stays."""
    store.create("packs/one", b"x")
    client, key = weed.client(), store._prefix + "packs/one"
    [version] = client.list_object_versions(Bucket=store._name, Prefix=key)["Versions"]
    with pytest.raises(ClientError, match="AccessDenied"):
        client.delete_object(Bucket=store._name, Key=key, VersionId=version["VersionId"])
    store.delete("packs/one")
    with pytest.raises(Missing):
        store.read("packs/one")
    hidden = client.list_object_versions(Bucket=store._name, Prefix=key)["DeleteMarkers"][0]["VersionId"]
    client.delete_object(Bucket=store._name, Key=key, VersionId=hidden)
    assert store.read("packs/one") == b"x"


def test_longer_and_never_shorter(store: LockingStore) -> None:
    store.create("packs/one", b"x")
    until = time.time() + 30 * DAY
    store.extend("packs/one", until)
    assert abs(store.locked_until("packs/one") - until) < 2
    with pytest.raises(Refused):
        store.extend("packs/one", until - DAY)
    assert abs(store.locked_until("packs/one") - until) < 2


def test_a_default_of_the_bucket(store: LockingStore, weed: Weed, place: str) -> None:
    """Of a bucket that locks everything by itself, also what we do not ask for: gc has to know."""
    name = weed.new_bucket(locks=True)
    weed.client().put_object_lock_configuration(
        Bucket=name,
        ObjectLockConfiguration={
            "ObjectLockEnabled": "Enabled",
            "Rule": {"DefaultRetention": {"Mode": "GOVERNANCE", "Days": 3}},
        },
    )
    other = open_store(f"s3://{name}/{place}")
    other.create("packs/one", b"x")
    other.create("drafts/one", b"x")
    assert abs(locks_of(other).locked_until("packs/one") - (time.time() + 3 * DAY)) < 60
    other.delete("drafts/one")
    assert dict(other.list("")) == {"packs/one": 1}
    other.create("drafts/one", b"again")


def test_trouble_while_locking(
    gateway: Gateway, locking_bucket: str, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("headstart.store.retrying.FIRST_PAUSE", 0.01)
    store = open_store(f"s3://{locking_bucket}/{place}")
    locks_of(store).protect(Protection(1))
    for fault in (gateways.refuse(503, "SlowDown"), gateways.lose_answer, gateways.lose_request):
        gateway.plan("PUT", "packs/one", fault)
    store.create("packs/one", bytes(100_000))
    assert store.read("packs/one") == bytes(100_000)
    with pytest.raises(Exists):
        store.create("packs/one", b"another")
    gateway.plan("PUT", "retention", gateways.refuse(503, "SlowDown"))
    locks_of(store).extend("packs/one", time.time() + 9 * DAY)
    gateway.plan("HEAD", "", gateways.refuse(503))
    assert locks_of(store).locked_until("packs/one") > time.time() + 8 * DAY


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [(403, "AccessDenied", Refused), (403, "QuotaExceeded", errors.NoSpace), (404, "NoSuchBucket", Refused)],
)
def test_what_a_server_says(
    gateway: Gateway, store: LockingStore, status: int, code: str, kind: type[Exception]
) -> None:
    gateway.plan("PUT", "", gateways.refuse(status, code), None)
    with pytest.raises(kind, match="planned"):
        store.create("packs/one", b"x")
