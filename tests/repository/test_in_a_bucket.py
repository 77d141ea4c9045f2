"""A whole repository in a bucket of a real server of S3, and what providers and networks do to it."""

from __future__ import annotations

import itertools
import random
import time
from collections.abc import Callable

import pytest

from headstart import errors, repository
from headstart.repository import collect, immutable, snapshot, verify
from headstart.repository.repo import Repository
from headstart.store import open_store
from headstart.store.contract import Refused
from tests.kit import gateway as gateways
from tests.kit import stores
from tests.kit import weed as weeds
from tests.kit.gateway import Answer, Gateway
from tests.kit.weed import Weed
from tests.repository import samples
from tests.repository.samples import BLOCK, Image, noise

IMAGE = Image(3000 * BLOCK, {number: noise(number) for number in range(0, 300, 7)})
DAY = 86400.0


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("headstart.store.retrying.FIRST_PAUSE", 0.01)
    monkeypatch.setattr("headstart.store.retrying.LONGEST_PAUSE", 0.02)


@pytest.fixture
def url(bucket: str, place: str) -> str:
    return f"s3://{bucket}/{place}"


def make(url: str, **options: int) -> Repository:
    return repository.create(open_store(url), stores.PASSWORD, cost=stores.QUICK, **options)


def reopen(url: str) -> Repository:
    return repository.open(open_store(url), lambda: stores.PASSWORD)


def must_be_whole(url: str, count: int) -> None:
    with reopen(url) as repo:
        report = verify.verify_all(repo, lambda done, total: None)
        assert (report.snapshots, report.findings) == (count, ())
        for each in snapshot.all_manifests(repo).manifests:
            assert samples.restored(repo, each.disks[0]) == IMAGE


def test_made_filled_verified_and_read(gateway: Gateway, url: str) -> None:
    with make(url) as repo:
        samples.add_snapshot(repo, {"vda": IMAGE})
    with pytest.raises(errors.TargetRefused, match="holds a repository already"):
        make(url)
    with reopen(url) as repo:
        samples.add_snapshot(repo, {"vda": IMAGE})
        assert len(samples.packs_of(repo)) <= 4, "the second has nothing new but its attachment"
    must_be_whole(url, 2)


def troubled(seed: int) -> gateways.Fault:
    """Every request may meet with any trouble, most with none."""
    chance = random.Random(seed)
    kinds = (
        *(gateways.refuse(503, "SlowDown"), gateways.refuse(429), gateways.refuse(500, "InternalError")),
        *(gateways.lose_answer, gateways.lose_request, gateways.truncate, gateways.break_after),
    )

    def fault(forward: Callable[[], Answer]) -> Answer:
        return chance.choice(kinds)(forward) if chance.random() < 0.3 else forward()

    return fault


@pytest.mark.parametrize("seed", range(3))
def test_through_all_kinds_of_trouble(gateway: Gateway, url: str, seed: int) -> None:
    for method in ("PUT", "GET", "DELETE", "HEAD"):
        gateway.plan(method, "", troubled(seed), None)
    with make(url) as repo:
        samples.add_snapshot(repo, {"vda": IMAGE})
    must_be_whole(url, 1)


def test_late_listings(gateway: Gateway, url: str) -> None:
    """A new snapshot and its index are not listed for a while: chunks are stored again, and nothing is lost."""
    with make(url) as repo:
        gateway.plan("GET", "list-type", gateways.hide("(packs|indexes|snapshots|twins)/"), None)
        made = samples.add_snapshot(repo, {"vda": IMAGE})
    with reopen(url) as repo:
        assert snapshot.all_manifests(repo).manifests == ()
        assert snapshot.load(repo, made.id) == made
        samples.add_snapshot(repo, {"vda": IMAGE})
    gateway.forget()
    must_be_whole(url, 2)


def test_a_quota_in_the_middle(gateway: Gateway, url: str) -> None:
    """What was stored counts: there is no snapshot, nothing is hurt, and with room it goes on."""
    with make(url) as repo:
        gateway.plan("PUT", "indexes/", gateways.refuse(403, "QuotaExceeded"), None)
        with pytest.raises(errors.NoSpace, match="raise the quota"):
            samples.add_snapshot(repo, {"vda": IMAGE})
    with reopen(url) as repo:
        assert snapshot.all_manifests(repo).manifests == ()
    gateway.forget()
    with reopen(url) as repo:
        samples.add_snapshot(repo, {"vda": IMAGE})
    must_be_whole(url, 1)


def test_who_may_only_read(weed: Weed, gateway: Gateway, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with make(url) as repo:
        samples.add_snapshot(repo, {"vda": IMAGE})
    for name, value in weeds.environment(gateway.url, weeds.READER, weeds.READERS_SECRET).items():
        monkeypatch.setenv(name, value)
    must_be_whole(url, 1)
    with reopen(url) as repo, pytest.raises(Refused, match="rights that are needed"):
        samples.add_snapshot(repo, {"vda": Image(BLOCK, {0: noise(999)})})
    with pytest.raises(Refused, match="rights that are needed"):
        make(f"{url}-other")


def test_a_server_without_conditional_writes_is_refused(gateway: Gateway, url: str) -> None:
    gateway.plan("PUT", "", gateways.ignore_conditions, None)
    with pytest.raises(errors.Unsupported, match="conditional writes"):
        make(url)
    assert list(open_store(url).list("")) == []
    gateway.forget()
    make(url).close()


def test_foreign_objects(weed: Weed, gateway: Gateway, url: str, bucket: str, place: str) -> None:
    weed.client().put_object(Bucket=bucket, Key=f"{place}/photo.jpg", Body=b"x")
    with pytest.raises(errors.TargetRefused, match=r"not empty \(photo.jpg\)"):
        make(url)
    assert dict(open_store(url).list("")) == {"photo.jpg": 1}


def test_a_bucket_that_is_not_there(gateway: Gateway, url: str) -> None:
    for method in ("GET", "PUT"):
        gateway.plan(method, "", gateways.refuse(404, "NoSuchBucket", "The specified bucket does not exist"), None)
    with pytest.raises(Refused, match="Make the bucket"):
        reopen(url)
    with pytest.raises(Refused, match="Make the bucket"):
        make(url)


def test_immutable(gateway: Gateway, bucket: str, locking_bucket: str, place: str) -> None:
    with pytest.raises(errors.Unsupported, match="without object lock"):
        make(f"s3://{bucket}/{place}", immutable_days=4)
    url = f"s3://{locking_bucket}/{place}"
    with make(url, immutable_days=4) as repo:
        samples.add_snapshot(repo, {"vda": IMAGE}, created=time.time())
        names = [name for name, _ in repo.store.list("")]
        assert all(immutable.locked_until(repo, name) > time.time() + 4 * DAY for name in names)
        assert immutable.extend(repo, time.time()).asked == 0
        # As if it were three days later: what it shares has been locked for five days, and has to be for seven.
        later = time.time() + 3 * DAY
        samples.add_snapshot(repo, {"vda": IMAGE}, created=later)
        done = immutable.extend(repo, later)
        assert 0 < done.extended == done.asked
        packs = samples.packs_of(repo)
        assert all(immutable.locked_until(repo, name) > later + 4 * DAY for name in packs)
        assert immutable.extend(repo, later).extended == 0
    must_be_whole(url, 2)


def test_requests(gateway: Gateway, url: str) -> None:
    """What a snapshot costs beside its packs grows with neither the disk nor the repository."""
    with make(url) as repo:
        samples.add_snapshot(repo, {"vda": IMAGE})
    counts = []
    for number in range(2):
        gateway.requests.clear()
        with reopen(url) as repo:
            samples.add_snapshot(repo, {"vda": Image(IMAGE.size, IMAGE.contents | {299: noise(1000 + number)})})
        counts.append({method: gateway.count(method) for method in ("PUT", "GET", "HEAD")})
    assert all(each["PUT"] <= 5 and each["HEAD"] == 0 and each["GET"] <= 15 for each in counts), counts
    assert len(set(itertools.chain.from_iterable(each.items() for each in counts))) <= 4, counts


@pytest.mark.parametrize("days", [0, 1])
def test_a_collector_takes_what_is_locked_for_living(
    gateway: Gateway, locking_bucket: str, place: str, days: int
) -> None:
    """The snapshot was forgotten; the same without a lock is condemned, then deleted."""
    url = f"s3://{locking_bucket}/{place}"
    with make(url, immutable_days=days) as repo:
        made = samples.add_snapshot(repo, {"vda": IMAGE})
        packs = samples.packs_of(repo)
    with reopen(url) as repo:
        for name in (snapshot.twin_of(made.id), snapshot.key_of(made.id)):
            repo.store.delete(name)
    for _ in range(2):
        with reopen(url) as repo:
            done = collect.collect(repo, collect.Order(quarantine=0.0))
    with reopen(url) as repo:
        assert samples.packs_of(repo) == (packs if days else [])
    assert (done.deleted_packs, done.kept) == (0 if days else len(packs), {})
