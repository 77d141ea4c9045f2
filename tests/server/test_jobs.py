"""Work on the server's side, in the one process of a server with SQLite: a real client pushes over HTTPS, and what the
server does is what another one finds."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import delete, insert, update

from headstart import errors, repository
from headstart.repository import label, proof, snapshot
from headstart.repository.layout import ChunkClass
from headstart.repository.proof import Evidence, Proof
from headstart.server import approvals, repositories, schedule, structure, tables, tended
from headstart.server.jobs import Job
from headstart.server.site import Site
from headstart.server.work import copy, gc, remove
from headstart.server.work.contract import Beat, Halted
from headstart.store.local import LocalStore
from headstart.store.server import ServerStore
from tests.kit import shop as kit
from tests.kit.server import Person, Server
from tests.kit.shop import DAY, Shop, shop_of
from tests.kit.stores import PASSWORD, QUICK
from tests.kit.waiting import wait_until
from tests.repository import samples
from tests.repository.samples import BLOCK, noise


@pytest.fixture(scope="module")
def site(server: Server) -> Iterator[Site]:
    opened = kit.site_of(server)
    yield opened
    opened.database.close()


@pytest.fixture
def shop(server: Server, site: Site, request: pytest.FixtureRequest) -> Shop:
    name = request.node.name.removeprefix("test_").replace("_", "-")
    return shop_of(site, server.tenant(name[:40]))


def test_retention_forgets_collecting_frees_and_the_rest_restores(shop: Shop) -> None:
    kit.keep(shop.tenant, "keep_last = 1")
    now = time.time()
    old, new = shop.add(1, now - 2 * DAY), shop.add(2, now - DAY)
    other = shop.add(3, now - 3 * DAY, vm="db")  # the rules hold for each VM by itself
    before = shop.stored()
    assert shop.used() == before

    told = shop.done("forget")
    assert (told["forgotten"], told["locked"], told["unclear"]) == ([old.id], [], {})
    assert sorted(shop.there()) == sorted([new.id, other.id])
    # Nothing is freed before the quarantine is over.
    assert shop.done("gc")["freed_bytes"] == 0
    shop.done("gc", quarantine=0)
    assert shop.done("gc", quarantine=0)["freed_bytes"] > 2 * BLOCK
    assert shop.stored()[0] < before[0] - 2 * BLOCK
    assert shop.used() == shop.stored()
    shop.require(new, 2)
    shop.require(other, 3)
    assert shop.done("verify")["damaged"] == 0


def test_a_vm_without_rules_or_with_too_many_loses_nothing(shop: Shop) -> None:
    kit.keep(shop.tenant, "keep_last = 1", "web*")
    kit.keep(shop.tenant, "keep_last = 1", "*1")
    now = time.time()
    made = {vm: [shop.add(seed, now - seed, vm) for seed in (1, 2)] for vm in ("web2", "web1", "db")}
    told = shop.done("forget")
    assert told["forgotten"] == [made["web2"][1].id]
    assert list(told["unclear"]) == ["web1"]  # two patterns name it
    assert len(shop.there()) == 5


def test_a_named_snapshot_is_forgotten_and_a_protected_one_is_not(shop: Shop) -> None:
    one, two = shop.add(1, time.time() - DAY), shop.add(2, time.time())
    with shop.open() as repo:
        label.protect(repo, two.id)
    refused = shop.order("forget", snapshots=[one.id, two.id])
    assert (refused["state"], refused["attempts"]) == ("failed", 1)
    assert "Protected" in refused["error"]
    assert len(shop.there()) == 2
    assert shop.done("forget", snapshots=[one.id])["forgotten"] == [one.id]
    assert shop.there() == [two.id]


def test_what_is_immutable_stays_and_is_told(server: Server, site: Site) -> None:
    shop = shop_of(site, server.tenant("immutable"), immutable_days=1)
    kept = shop.add(1, time.time())
    assert shop.done("forget", snapshots=[kept.id])["locked"] == [kept.id]
    with shop.open() as repo, repo.writer(samples.ignore) as writer:
        data = noise(77)
        writer.put(ChunkClass.CONTENT, repo.chunk_id(data), data, 0)  # that no snapshot needs
    for _ in range(2):
        told = shop.done("gc", quarantine=0)
    assert (told["locked_packs"], told["condemned_bytes"], told["freed_bytes"]) == (1, 0, 0)
    shop.require(kept, 1)


def test_verify_reads_what_is_new_and_finds_damage(shop: Shop) -> None:
    made = shop.add(1, time.time())
    catalogue(shop)
    first = shop.done("verify")
    assert first["packs"] == first["packs_there"] > 0
    assert shop.tenant.admin.get(f"/v1/snapshots/{made.id}")["verified"] > 0
    assert shop.done("verify")["packs"] == 0  # read lately
    assert shop.done("verify", everything=True)["packs"] == first["packs_there"]

    pack = max((shop.folder / "packs").iterdir(), key=lambda path: path.stat().st_size)
    whole = pack.read_bytes()
    pack.write_bytes(whole[: len(whole) // 2] + bytes([whole[len(whole) // 2] ^ 1]) + whole[len(whole) // 2 + 1 :])
    told = shop.done("verify", everything=True)
    assert told["damaged"] == 1
    assert told["findings"][0]["object"] == f"packs/{pack.name}"
    assert told["findings"][0]["snapshots"] == [made.id]
    point = shop.tenant.admin.get(f"/v1/snapshots/{made.id}")
    assert (point["verified"], point["damaged"] > 0) == (None, True)
    assert "repository.damaged" in [each["kind"] for each in shop.tenant.admin.get("/v1/events")]
    page = shop.tenant.admin.ask("GET", "/jobs").data.decode()
    assert "damage found" in page and "1 damaged object" in page and "1 restore point needs it" in page
    assert "Damaged" in shop.tenant.admin.ask("GET", f"/snapshots/{made.id}").data.decode()

    assert shop.done("verify")["damaged"] == 1
    assert shop.tenant.admin.get(f"/v1/snapshots/{made.id}")["damaged"] == point["damaged"], "known since then"
    pack.write_bytes(whole)
    assert shop.done("verify")["damaged"] == 0
    point = shop.tenant.admin.get(f"/v1/snapshots/{made.id}")
    assert (point["verified"] > 0, point["damaged"]) == (True, None)

    manifests = [shop.folder / key for key in (snapshot.key_of(made.id), snapshot.twin_of(made.id))]
    texts = [each.read_bytes() for each in manifests]
    for number, expected in ((1, None), (2, True)):
        for each in manifests[-number:]:
            each.write_bytes(b"no manifest")
        assert shop.done("verify")["damaged"] == number
        point = shop.tenant.admin.get(f"/v1/snapshots/{made.id}")
        assert (point["damaged"] and point["damaged"] > 0, point["verified"] is None) == (expected, bool(expected))
    for each, text in zip(manifests, texts, strict=True):
        each.write_bytes(text)


def catalogue(shop: Shop) -> None:
    shop.done("catalogue")


def test_the_catalogue_is_made_anew_from_the_repository(shop: Shop) -> None:
    made = [shop.add(seed, time.time() - seed * DAY) for seed in (1, 2)]
    wrong = {"repository": shop.id, "tenant": shop.tenant.id, "id": "ab" * 16, "vm": "web", "host": "", "size": 1}
    with shop.site.database.write() as connection:
        connection.execute(delete(tables.snapshots).where(tables.snapshots.c.repository == shop.id))
        connection.execute(insert(tables.snapshots).values(**wrong, created=1.0, consistency="crash"))
    with shop.open() as repo:
        proof.record(repo, made[0].id, Proof(time.time() + 1e8, "ahead", False, 1.0, "agent"), Evidence())
    told = shop.done("catalogue")
    assert (told["added"], told["removed"]) == (2, 1)
    points = shop.tenant.admin.get("/v1/snapshots")
    assert [each["id"] for each in points] == [each.id for each in made]
    assert points[0]["proof"]["host"] == "ahead" and points[0]["rehearsed"] <= time.time()


def test_a_wrong_count_is_put_right(shop: Shop) -> None:
    shop.add(1, time.time())
    with shop.site.database.write() as connection:
        mine = tables.repositories.c.id == shop.id
        connection.execute(update(tables.repositories).where(mine).values(used_bytes=5, objects=1))
    assert shop.done("recount")["bytes"] == shop.stored()[0]
    assert shop.used() == shop.stored()


def test_a_place_that_is_not_mounted_is_not_taken_for_empty(shop: Shop) -> None:
    shop.add(1, time.time())
    used = shop.used()
    place = Path(shop.site.settings.store)
    away = place.rename(place.with_name("away"))
    try:
        place.mkdir()
        job = shop.begin("recount")
        told = wait_until(lambda: (found := shop.tenant.admin.get(f"/v1/jobs/{job}"))["error"] and found)
        assert (told["state"], shop.used()) == ("waiting", used)  # it is tried again
        assert "mounted" in told["error"]
    finally:
        place.rmdir()
        away.rename(place)
    assert kit.ended(shop.tenant.admin, job)["state"] == "done"
    assert shop.used() == used


def test_a_mirror_is_the_same_repository_and_is_gone_on_with(shop: Shop) -> None:
    old, new = shop.add(1, time.time() - DAY), shop.add(2, time.time())
    shop.tenant.repository("mirror")
    first = shop.done("copy", repository="mirror")
    assert first["objects"] > 0
    there = ServerStore(shop.tenant.program("operator").client, "mirror")
    shop.require(old, 1, there)
    shop.require(new, 2, there)
    again = shop.done("copy", repository="mirror")
    assert (again["objects"], again["there"]) == (0, first["objects"])
    assert shop.done("copy", repository="mirror", everything=True)["there"] == first["objects"]

    shop.done("forget", snapshots=[old.id])
    shop.done("copy", repository="mirror")
    assert len(snapshots(there)) == 2  # what is gone here stays there
    assert shop.done("copy", repository="mirror", prune=True)["removed"] > 0
    assert snapshots(there) == [new.id]
    shop.require(new, 2, there)


def snapshots(store: ServerStore) -> list[str]:
    with repository.open(store, lambda: PASSWORD) as repo:
        return [each.id for each in snapshot.all_manifests(repo).manifests]


def test_the_second_site_is_another_store(shop: Shop, tmp_path: Path) -> None:
    made = shop.add(1, time.time())
    there = replace(shop.site, settings=replace(shop.site.settings, second_store=str(tmp_path / "far")))
    job = Job("0" * 32, "copy", shop.tenant.id, shop.id, {}, "test", 1)
    told = copy.run(there, job, nobody_ends_it)
    assert (told["bytes"], told["objects"]) == shop.stored()
    shop.require(made, 1, LocalStore(tmp_path / "far" / shop.tenant.id / shop.id))


def nobody_ends_it(what: str = "", done: int = 0, total: int = 0) -> None:
    pass


def test_the_server_opens_no_content_whatever_it_was_given(shop: Shop) -> None:
    shop.add(1, time.time())
    with shop.site.database.read() as connection:
        place = repositories.named(connection, shop.tenant.id, shop.id)
    assert place is not None
    for password in (kit.STRUCTURE, PASSWORD):
        kit.give(shop.site, shop.id, password)
        with structure.open_repository(shop.site, place) as repo:
            assert not repo.secrets.opens_content
            assert len(snapshot.all_manifests(repo).manifests) == 1


def test_a_copy_that_differs_is_told_and_nothing_foreign_is_written_over(shop: Shop) -> None:
    shop.add(1, time.time())
    other = shop.tenant.repository("other")
    with repository.create(ServerStore(shop.tenant.program("admin").client, "other"), PASSWORD, cost=QUICK):
        pass
    refused = shop.order("copy", repository="other")
    assert refused["state"] == "failed"
    assert "holds something else" in refused["error"]
    assert other

    mirror = shop.tenant.repository("mirror")
    shop.done("copy", repository="mirror")
    pack = next((kit.folder_of(shop.site, shop.tenant, mirror) / "packs").iterdir())
    pack.write_bytes(pack.read_bytes()[:-1] + b"!")
    told = shop.order("copy", repository="mirror", everything=True)
    assert told["state"] == "failed"
    assert pack.name in told["error"]


def test_without_a_second_site_or_a_key_it_says_what_to_do(server: Server, site: Site) -> None:
    tenant = server.tenant("keyless")
    tenant.repository()
    with repository.create(ServerStore(tenant.program("admin").client, "main"), PASSWORD, cost=QUICK):
        pass
    place = tenant.admin.get("/v1/repositories")[0]["id"]
    shop = Shop(site, tenant, place, LocalStore(Path("/nonexistent")))
    for kind in ("forget", "gc", "verify", "catalogue"):
        refused = tenant.admin.ask("POST", f"/v1/repositories/{place}/jobs", {"kind": kind})
        assert refused.status == 400 and "key add" in refused.detail, kind
    snapshot_id = "ab" * 16
    with site.database.write() as connection:
        known = {"repository": place, "tenant": tenant.id, "id": snapshot_id, "vm": "web", "host": "", "size": 1}
        connection.execute(insert(tables.snapshots).values(**known, created=1.0, consistency="crash"))
    refused = tenant.admin.ask("DELETE", f"/v1/repositories/{place}/snapshots/{snapshot_id}")
    assert refused.status == 400 and "was given no key" in refused.detail
    assert tenant.admin.get("/v1/jobs") == []
    # What was on its way when the key was taken back says the same.
    with pytest.raises(structure.NotGiven):
        gc.run(site, Job("0" * 32, "gc", tenant.id, place, {}, "test", 1), nobody_ends_it)
    kit.give(site, place, b"removed meanwhile")
    with pytest.raises(errors.WrongPassword, match="opens this repository no longer"):
        gc.run(site, Job("0" * 32, "gc", tenant.id, place, {}, "test", 1), nobody_ends_it)
    assert "--second-store" in shop.order("copy")["error"]
    assert shop.order("recount")["state"] == "done"


def test_one_of_a_lane_runs_and_both_can_be_cancelled(shop: Shop) -> None:
    shop.add(1, time.time())
    shop.tenant.repository("mirror")
    admin = shop.tenant.admin
    with kit.hanging(shop.folder):
        first = shop.begin("copy", repository="mirror")
        wait_until(lambda: admin.get(f"/v1/jobs/{first}")["progress"])
        second = shop.begin("copy", repository="mirror", prune=True)
        # Others go on beside it.
        shop.done("recount")
        assert admin.get(f"/v1/jobs/{second}")["state"] == "waiting"
        admin.post(f"/v1/jobs/{second}/cancel", {})
        assert admin.get(f"/v1/jobs/{second}")["state"] == "cancelled"
        admin.post(f"/v1/jobs/{first}/cancel", {})
        asked = admin.get(f"/v1/jobs/{first}")
        assert (asked["state"], asked["stop"]) == ("running", True)
        wait_until(lambda: admin.get(f"/v1/jobs/{first}")["beat"] > asked["beat"])  # now it has heard of it
    assert kit.ended(admin, first)["state"] == "cancelled"
    kinds = [each["kind"] for each in admin.get("/v1/events")]
    assert "job.begun" in kinds
    assert "job.cancelled" in kinds


def test_who_may_order_and_see_what(server: Server, shop: Shop) -> None:
    asked = {"kind": "recount"}
    path = f"/v1/repositories/{shop.id}/jobs"
    for role in ("viewer", "operator"):
        for kind in ("recount", "forget", "gc", "copy", "verify"):
            assert shop.tenant.program(role).ask("POST", path, {"kind": kind}).status == 403
    job = shop.begin("recount")
    kit.ended(shop.tenant.admin, job)
    viewer = shop.tenant.program("viewer")
    assert viewer.get(f"/v1/jobs/{job}")["kind"] == "recount"
    assert viewer.ask("POST", f"/v1/jobs/{job}/cancel").status == 403

    stranger = server.tenant("stranger").admin
    nothing = "f" * 32
    for method, there, not_there, value in (
        ("POST", path, f"/v1/repositories/{nothing}/jobs", asked),
        ("GET", f"/v1/jobs/{job}", f"/v1/jobs/{nothing}", None),
        ("POST", f"/v1/jobs/{job}/cancel", f"/v1/jobs/{nothing}/cancel", None),
    ):
        one, other = stranger.ask(method, there, value), stranger.ask(method, not_there, value)
        assert one.status == other.status == 404
        assert one.detail.replace(job, nothing).replace(shop.id, nothing) == other.detail
    assert stranger.get("/v1/jobs") == []

    seen = server.site().get(f"/v1/jobs/{job}")
    assert seen["state"] == "done"
    assert not {"arguments", "result", "error", "progress"} & seen.keys()
    assert server.site().ask("POST", path, asked).status in (403, 404)
    assert shop.tenant.admin.ask("POST", path, {"kind": "tidy"}).status == 422
    assert shop.tenant.admin.ask("POST", path, {"kind": "gc", "snapshots": [nothing]}).status == 400


def test_a_host_that_offers_itself_is_asked_to_rehearse(shop: Shop) -> None:
    made = shop.add(1, time.time())
    catalogue(shop)
    assert "offers itself" in shop.order("rehearse", vms=["web"])["error"]
    host = Person(shop.tenant.host("alpha").identity)
    host.post("/v1/host/pulse", {"version": "1", "state": {"rehearsals": True}, "vms": {}})
    order = shop.done("rehearse", vms=["web"])["orders"][made.id]
    told = shop.tenant.admin.get(f"/v1/orders/{order}")
    assert (told["kind"], told["host_name"], told["arguments"]["snapshot"]) == ("rehearse", "alpha", made.id)


def test_what_destroys_waits_where_the_tenant_wants_that(shop: Shop) -> None:
    made = shop.add(1, time.time())
    shop.tenant.admin.put("/v1/tenants/own/caution", {"second_person": False, "delay_seconds": 3600.0})
    path = f"/v1/repositories/{shop.id}/jobs"
    for asked in ({"kind": "forget", "snapshots": [made.id]}, {"kind": "gc", "quarantine": 0}):
        assert shop.tenant.admin.ask("POST", path, asked).status == 403
    assert shop.order("gc")["state"] == "done"
    assert shop.there() == [made.id]


def test_snapshots_of_several_vms_are_forgotten_after_in_one_job(shop: Shop) -> None:
    now = time.time()
    with shop.site.database.write() as connection:
        for vm in ("b", "a", "b"):
            schedule.after_snapshot(connection, shop.tenant.id, shop.id, vm, now)
    waiting = shop.tenant.admin.get("/v1/jobs?state=waiting")
    assert [(each["kind"], each["arguments"]) for each in waiting] == [("forget", {"vms": ["a", "b"]})]
    assert waiting[0]["due"] > now + 60


def test_the_site_is_tidied_by_itself(server: Server) -> None:
    site = server.site()
    wait_until(lambda: ("tidy", "done") in [(each["kind"], each["state"]) for each in site.get("/v1/jobs")])


# removing a repository


class _Later(LocalStore):
    """Its clock is some days ahead."""

    days = 0.0

    def clock(self) -> float:
        return super().clock() + self.days * DAY


def removal(site: Site, shop: Shop) -> Callable[..., dict[str, Any]]:
    """Its job, by hand: so many days later, with this beat."""

    def run(days: float, beat: Beat = lambda *_: None) -> dict[str, Any]:
        def opened(url: str, _patience: float) -> LocalStore:
            place = _Later(Path(url))
            place.days = days
            return place

        later = replace(site, clock=lambda: time.time() + days * DAY, open_store=opened, _opened={})
        job = Job("x", "remove", shop.tenant.id, None, {"repository": shop.id}, "server", 1)
        return remove.run(later, job, beat)

    return run


def gone(shop: Shop) -> dict[str, Any] | None:
    rows = shop.tenant.admin.get("/v1/repositories")
    return next((row for row in rows if row["id"] == shop.id), None)


def acts(shop: Shop) -> list[str]:
    return [each["act"] for each in shop.tenant.admin.get("/v1/audit") if each["object"] == shop.id]


def test_what_is_removed_is_gone_from_the_store_and_nothing_else_is(shop: Shop, site: Site) -> None:
    shop.add(1, time.time())
    other = shop_of(site, shop.tenant, "other")
    kept = other.add(2, time.time())
    admin = shop.tenant.admin
    catalogue(other)
    before = other.stored()
    admin.delete(f"/v1/repositories/{shop.id}")
    assert admin.ask("GET", f"/v1/repositories/{shop.id}").status == 404
    job = next(each for each in admin.get("/v1/jobs") if each["kind"] == "remove")
    told = kit.ended(admin, job["id"])
    assert (told["state"], told["result"]["waiting"]) == ("done", 0)
    assert told["result"]["objects"] > 3
    assert shop.stored() == shop.used() == (0, 0)
    # Its name is free, and whoever comes late adds nothing to what was removed.
    again = shop.tenant.repository("main")
    assert again != shop.id
    place = repositories.Place(shop.id, shop.tenant.id, "main", 0, False)
    with pytest.raises(errors.NotFound):
        tended.Tended(site, place).create("packs/" + "a" * 32, b"late")
    # The row goes when what had begun must have ended.
    with site.database.read() as connection:
        thought_of = [wish for wish in schedule.missing(connection, time.time() + DAY) if wish.kind == "remove"]
    assert [wish.arguments for wish in thought_of if wish.tenant == shop.tenant.id] == [{"repository": shop.id}]
    assert removal(site, shop)(0)["until"] > time.time()
    removal(site, shop)(1)
    assert gone(shop) is None
    assert removal(site, shop)(1)["objects"] == 0
    assert acts(shop) == ["repository.gone", "repository.objects.remove", "repository.remove", "repository.create"]
    assert other.stored() == before
    other.require(kept, 2)
    assert admin.get(f"/v1/snapshots/{kept.id}")["repository"] == other.id
    assert not [key for key, _ in LocalStore(Path(site.settings.store)).list("site/repositories/" + shop.id)]


def test_what_is_immutable_is_removed_when_it_may_be(server: Server, site: Site) -> None:
    shop = shop_of(site, server.tenant("immutable-removed"), immutable_days=2)
    shop.add(1, time.time())
    whole = shop.stored()
    shop.tenant.admin.delete(f"/v1/repositories/{shop.id}")
    job = next(each for each in shop.tenant.admin.get("/v1/jobs") if each["kind"] == "remove")
    told = kit.ended(shop.tenant.admin, job["id"])["result"]
    assert (told["objects"], told["waiting"]) == (whole[1] - shop.stored()[1], shop.stored()[1])
    assert shop.stored()[0] > BLOCK
    assert abs(told["until"] - time.time() - 3 * DAY) < DAY / 24
    # It counts as long as it is there.
    assert shop.used() == shop.stored()
    longer = sorted(key for key, _ in shop.folder_store().list("packs/"))[0]
    with site.database.write() as connection:
        values = {"repository": shop.id, "key": longer, "until": time.time() + 10 * DAY}
        connection.execute(insert(tables.locks).values(values))
    assert removal(site, shop)(2)["objects"] == 0
    assert removal(site, shop)(4)["waiting"] == 1
    assert [key for key, _ in shop.folder_store().list("")] == [longer]
    assert gone(shop) is not None
    assert removal(site, shop)(11)["objects"] == 1
    assert (gone(shop), shop.stored()) == (None, (0, 0))


def test_a_removal_that_was_ended_in_the_middle_goes_on(
    shop: Shop, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remove, "_BATCH", 2)
    for seed in range(3):
        shop.add(seed, time.time() - seed)
    with site.database.write() as connection:
        # As when the process died with the act itself: no job knows of it but the schedule.
        change = update(tables.repositories).where(tables.repositories.c.id == shop.id)
        connection.execute(change.values(removed=time.time() - DAY))
    whole, run, beats = shop.stored()[1], removal(site, shop), iter(range(10))

    def beat(what: str = "", done: int = 0, total: int = 0) -> None:
        if next(beats) == 3:
            raise Halted("ended")

    with pytest.raises(Halted):
        run(0, beat)
    left = {key for key, _ in shop.folder_store().list("")}
    assert len(left) == whole - 6
    assert not [key for key in left if key.startswith("snapshots/")]
    assert "config" in left
    assert run(0)["objects"] == whole - 6
    assert (gone(shop), shop.stored()) == (None, (0, 0))


def test_a_repository_with_a_delay_is_removed_after_it(shop: Shop, site: Site) -> None:
    admin = shop.tenant.admin
    admin.put("/v1/tenants/own/caution", {"second_person": False, "delay_seconds": 3600})
    asked = admin.ask("DELETE", f"/v1/repositories/{shop.id}")
    assert asked.status == 202
    assert not [each for each in admin.get("/v1/jobs") if each["kind"] == "remove"]
    later = replace(site, clock=lambda: time.time() + 3601)
    assert approvals.due(later) == 1
    assert gone(shop)["removed"] is not None  # type: ignore[index]
    assert [each["kind"] for each in admin.get("/v1/jobs")] == ["remove"]
