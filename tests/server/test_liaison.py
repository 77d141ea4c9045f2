"""A host and its server: policies come, reports go, and neither a silence nor a crash loses or doubles anything."""

from __future__ import annotations

import json
import logging
import sqlite3
import time
from dataclasses import replace
from typing import Any
from unittest import mock

import pytest

from headstart.host import document, remote
from headstart.host.policy import Assignment
from headstart.host.remote import Remote
from headstart.state.runs import Runs
from headstart.store import membership
from headstart.wire import https
from tests.host import home as homes
from tests.host.home import HOUR, MIDNIGHT, Home
from tests.host.home import NIGHTLY as LOCAL
from tests.kit.server import Server, Tenant
from tests.kit.waiting import wait_until
from tests.server import joined
from tests.server.joined import serving, standing, wait_connected, wait_vm

TWO = MIDNIGHT + 2 * HOUR
DAY = 24 * HOUR


home = homes.fresh


@pytest.fixture
def tenant(server: Server, request: pytest.FixtureRequest) -> Tenant:
    """With a policy that all VMs have."""
    made = server.tenant(f"t{abs(hash(request.node.name)) % 10**8}")
    made.repository()
    made.admin.put("/v1/policies/gold", {"text": joined.NIGHTLY})
    made.admin.put("/v1/assignments", {"policy": "gold"})
    return made


def backups(home: Home, vm: str = "web") -> int:
    return home.verbs(vm).count("backup")


def test_a_host_works_by_the_servers_document_alone(tenant: Tenant, home: Home) -> None:
    home.add("web")
    joined.bare(home)
    joined.join(home, tenant.host())
    with serving(home):
        wait_until(lambda: "web" in home.ask("status")["vms"])
        assert home.status()["policy"] == "gold"
        home.now = TWO
        wait_until(lambda: backups(home) == 1)
        [made] = home.snapshots()
        wait_until(lambda: [each["id"] for each in tenant.admin.get("/v1/snapshots")] == [made.id])
        told = wait_vm(tenant)
        wait_until(lambda: joined.vm_of(tenant)["last_success"] == TWO)
        assert told["view"]["policy"] == "gold" and told["host_name"] == "alpha"
        [host] = tenant.admin.get("/v1/hosts")
        assert host["state"]["policies"]["version"] == standing(home)["policies"] and not host["away"]
        # It is in memory, and not where the server would look for it.
        assert tenant.admin.get(f"/v1/snapshots/{made.id}")["place"] == "memory"


def test_other_policies_are_applied_as_soon_as_they_are_heard_of(tenant: Tenant, home: Home) -> None:
    home.add("web")
    joined.bare(home)
    joined.join(home, tenant.host())
    with serving(home):
        wait_until(lambda: "web" in home.ask("status")["vms"])
        tenant.admin.put("/v1/policies/silver", {"text": joined.NIGHTLY.replace("02:00", "03:00")})
        tenant.admin.put("/v1/assignments?pattern=web", {"policy": "silver"})
        wait_until(lambda: home.status()["policy"] == "silver" and home.status()["due"] == MIDNIGHT + 3 * HOUR)
        tenant.admin.put("/v1/assignments?pattern=web", {"policy": None})
        wait_until(lambda: not home.ask("status")["vms"])
        wait_until(lambda: wait_vm(tenant)["view"] is None)


def test_the_hosts_own_files_come_first(tenant: Tenant, home: Home, caplog: pytest.LogCaptureFixture) -> None:
    for name in ("web", "db", "mail"):
        home.add(name)
    tenant.admin.put("/v1/policies/nightly", {"text": joined.NIGHTLY.replace("02:00", "05:00")})
    for pattern in ("web", "d?", "m*"):
        tenant.admin.put(f"/v1/assignments?pattern={pattern.replace('?', '%3F')}", {"policy": "nightly"})
    assigned = (Assignment("web", "nightly", "headstart.toml:1"), Assignment("d*", None, "headstart.toml:2"))
    home.config = replace(home.config, policies={"nightly": LOCAL}, assignments=assigned, default=None)
    joined.join(home, tenant.host())
    with serving(home) as daemon:
        wait_until(lambda: sorted(home.ask("status")["vms"]) == ["mail", "web"])
        # Also who is assigned by the server to a policy of that name gets the host's own.
        assert daemon.config.policies["nightly"] == LOCAL and "gold" in daemon.config.policies
        wanted = ["policy.nightly", "vm.web"]
        wait_until(lambda: tenant.admin.get("/v1/hosts")[0]["state"]["policies"]["overridden"] == wanted)
        assert standing(home)["overridden"] == wanted
    assert caplog.text.count("this host's own files say otherwise") == 1


def test_commands_never_come_from_the_server(tenant: Tenant, home: Home, caplog: pytest.LogCaptureFixture) -> None:
    home.add("web")
    joined.bare(home)
    joined.join(home, tenant.host())
    with serving(home):
        wait_until(lambda: home.ask("status")["vms"])
        told: list[str] = []
        evil = '[policy.gold.schedule]\ncalendar = "02:00"\n[policy.gold.hooks]\nafter-thaw = "touch /tmp/x"\n'

        def policies(self: Remote, version: str) -> str:
            told.append(version)
            return evil

        with mock.patch.object(Remote, "policies", policies):
            tenant.admin.put("/v1/policies/silver", {"text": joined.NIGHTLY})
            wait_until(lambda: "hooks" in tenant.admin.get("/v1/hosts")[0]["state"]["policies"].get("refused", ""))
            time.sleep(0.5)
            assert len(told) == 1, "it is not asked for again and again"
            assert home.status()["policy"] == "gold"
        assert any(each["kind"] == "policies.refused" for each in tenant.admin.get("/v1/events"))
    assert "hooks" not in (home.folder / "state" / document.FILE).read_text()
    # Also one that lies there already.
    (home.folder / "state" / document.FILE).write_text(evil)
    with mock.patch.object(Remote, "policies", return_value=None):
        with serving(home):
            wait_until(lambda: "hooks" in (standing(home).get("policies_refused") or ""))
            assert not home.ask("status")["vms"]
        (home.folder / "state" / membership.FILE).unlink()
        # What a daemon had under way when it ended fetches nothing either.
        with serving(home):
            time.sleep(0.2)
            assert not home.ask("status")["vms"]
    assert "hooks" in caplog.text


def told_of(tenant: Tenant, home: Home, vm: str = "web") -> tuple[Any, ...]:
    """What the server knows; and below, what there is to know."""
    found = wait_vm(tenant, vm)
    runs = tenant.admin.get(f"/v1/vms/{found['id']}/runs?since=0&limit=1000")
    events = [each for each in tenant.admin.get("/v1/events?limit=1000") if each["vm"] == vm]
    return (
        sorted((run["number"], run["verb"], run["begun"], run["ended"], run["error"]) for run in runs),
        sorted(each["id"] for each in tenant.admin.get(f"/v1/snapshots?vm={vm}&limit=1000")),
        sorted(each["facts"]["run"] for each in events if each["kind"] == "backup.done"),
    )


def truth(home: Home, vm: str = "web") -> tuple[Any, ...]:
    runs = Runs(home.journal).newest(vm, 1000)
    return (
        sorted((run.number, run.verb, run.begun, run.ended, run.report.get("error")) for run in runs),
        sorted(each.id for each in home.snapshots() if each.vm == vm),
        sorted(run.number for run in runs if run.verb == "backup" and "error" not in run.report),
    )


def minutes(server: Server, tenant: Tenant, vm: str = "web") -> dict[int, Any]:
    """As the server's database has them."""
    with sqlite3.connect(f"file:{server.folder / 'server.db'}?mode=ro", uri=True) as database:
        rows = database.execute("SELECT minutes FROM figures WHERE vm = ?", (joined.vm_of(tenant, vm)["id"],))
        return {int(moment): values for (text,) in rows for moment, values in json.loads(text).items()}


def test_a_server_that_was_away_for_days_is_told_everything_once(
    server: Server, tenant: Tenant, home: Home, caplog: pytest.LogCaptureFixture
) -> None:
    vm = home.add("web")
    home.add("db")
    joined.bare(home)
    joined.join(home, tenant.host())
    caplog.set_level(logging.INFO, "headstart.host")
    with serving(home):
        wait_until(lambda: "precopy" in home.verbs())
        home.now = TWO
        wait_until(lambda: len(home.snapshots()) == 2)
        server.kill()
        wait_until(lambda: standing(home)["state"] == "away")
        for day in range(1, 6):
            one = home.now = MIDNIGHT + day * DAY + HOUR
            vm.write("a", day)
            wait_until(lambda: home.pass_time(61) and home.verbs()[-1:] == ["precopy"])
            wait_until(lambda: home.pass_time(61) and home.series.minutes("web", one, home.now))  # noqa: B023
            home.now = TWO + day * DAY
            wait_until(lambda: len(home.snapshots()) == 2 * (day + 1))  # noqa: B023
        assert home.content([each for each in home.snapshots() if each.vm == "web"][-1]) == vm.data("a")
        server.start()
        wait_connected(home)
        wait_until(lambda: told_of(tenant, home) == truth(home) and told_of(tenant, home, "db") == truth(home, "db"))
        kept = home.series.minutes("web", 0, home.now + DAY)
        assert len(kept) >= 5
        wait_until(lambda: minutes(server, tenant).keys() >= {each.moment for each in kept[:-1]})
        assert wait_vm(tenant)["last_success"] == TWO + 5 * DAY
    # Said once each: it was away, it is back.
    assert caplog.text.count("event=server-away") == 1
    assert caplog.text.count("event=connected") == 2


def test_answers_that_are_lost_double_nothing(tenant: Tenant, home: Home) -> None:
    home.add("web")
    joined.bare(home)
    joined.join(home, tenant.host())
    lost: dict[str, int] = {}

    def losing(name: str) -> Any:
        real = getattr(Remote, name)

        def call(self: Remote, *given: Any) -> Any:
            done = real(self, *given)
            lost[name] = lost.get(name, 0) + 1
            if lost[name] % 2:
                raise https.Unanswered("The answer was lost.")
            return done

        return mock.patch.object(Remote, name, call)

    with losing("pulse"), losing("runs"), losing("snapshots"), losing("figures"), serving(home):
        for day in range(3):
            home.now = TWO + day * DAY
            wait_until(lambda: len(home.snapshots()) == day + 1)  # noqa: B023
        wait_until(lambda: told_of(tenant, home) == truth(home))
    assert all(lost[name] > 1 for name in ("pulse", "runs", "snapshots"))


def test_a_host_that_is_started_anew_goes_on_where_it_was(tenant: Tenant, home: Home) -> None:
    home.add("web")
    joined.bare(home)
    joined.join(home, tenant.host())
    with serving(home):
        wait_until(lambda: home.ask("status")["vms"])
    told: list[int] = []
    real = Remote.runs

    def runs(self: Remote, found: Any) -> None:
        told.extend(run.number for run in found)
        real(self, found)

    with mock.patch.object(Remote, "runs", runs):
        for day in range(3):
            with serving(home):
                home.now = TWO + day * DAY
                wait_until(lambda: len(home.snapshots()) == day + 1)  # noqa: B023
                wait_until(lambda: told_of(tenant, home) == truth(home))
    assert len(told) == len(set(told)), "nothing is told twice without need"


def test_a_token_is_replaced_and_a_crash_between_does_not_lock_the_host_out(tenant: Tenant, home: Home) -> None:
    first = tenant.host()
    lost = Remote(first).renew()
    assert lost.token != first.token
    # The host crashed before it had kept the new one: the old one is good, and brings another.
    Remote(first).pulse({}, {}, {})
    joined.join(home, first)
    joined.bare(home)
    beats = iter([True])
    real = remote.beat_of

    def beat_of(found: Any) -> Any:
        return replace(real(found), renew=next(beats, False))

    with mock.patch.object(remote, "beat_of", beat_of), serving(home):
        wait_until(lambda: membership.load(home.folder / "state" / membership.FILE) != first)
        wait_connected(home)
    renewed = membership.load(home.folder / "state" / membership.FILE)
    assert renewed is not None and renewed.host == first.host
    Remote(renewed).pulse({}, {}, {})
    tokens = {each["id"]: each for each in tenant.admin.get("/v1/tokens") if each["kind"] == "host"}
    ends = tokens[first.token.split("_")[1]]["expires"]
    assert time.time() < ends < time.time() + 3700, "what runs with the old one has an hour"
    assert tokens[lost.token.split("_")[1]]["revoked"]


def test_a_token_that_was_revoked(tenant: Tenant, home: Home, caplog: pytest.LogCaptureFixture) -> None:
    home.add("web")
    joined.bare(home)
    first = tenant.host()
    joined.join(home, first)
    with serving(home):
        wait_until(lambda: home.ask("status")["vms"])
        for each in tenant.admin.get("/v1/tokens"):
            if each["kind"] == "host":
                tenant.admin.delete(f"/v1/tokens/{each['id']}")
        wait_until(lambda: standing(home)["state"] == "refused")
        home.now = TWO
        wait_until(lambda: backups(home) == 1)
        time.sleep(0.7)
        assert caplog.text.count("event=server-refused") == 1 and "headstart join" in caplog.text
        # It joins again, with a token for the same name: the daemon need not be told.
        joined.join(home, tenant.host())
        wait_connected(home)
        wait_until(lambda: told_of(tenant, home) == truth(home))


def test_a_host_that_leaves_has_no_policies_of_the_servers(tenant: Tenant, home: Home) -> None:
    home.add("web")
    joined.bare(home)
    first = tenant.host()
    joined.join(home, first)
    with serving(home):
        wait_until(lambda: home.ask("status")["vms"])
        Remote(first).leave()
        (home.folder / "state" / membership.FILE).unlink()
        wait_until(lambda: not home.ask("status")["vms"] and standing(home)["state"] == "none")
    assert not (home.folder / "state" / document.FILE).exists()
    [host] = tenant.admin.get("/v1/hosts")
    assert host["state"]["left"]


def test_a_quota_of_vms(server: Server, tenant: Tenant, home: Home, caplog: pytest.LogCaptureFixture) -> None:
    """The new one is refused, and told of; those that are known go on."""
    home.add("web")
    joined.bare(home)
    joined.join(home, tenant.host())
    server.site().put(f"/v1/tenants/{tenant.id}/quota", {"quota_vms": 1})
    with serving(home):
        first = wait_vm(tenant)
        home.add("zero")
        wait_until(lambda: "event=not-taken-in" in caplog.text)
        wait_until(lambda: joined.vm_of(tenant)["seen"] > first["seen"])
        assert [each["name"] for each in tenant.admin.get("/v1/vms")] == ["web"]
        [host] = tenant.admin.get("/v1/hosts")
        assert "quota of 1 VMs" in host["state"]["refused"]["zero"]
        assert "quota" in standing(home)["refused_vms"]["zero"]
        home.now = TWO
        wait_until(lambda: backups(home, "zero") == 1 and backups(home) == 1)
        server.site().put(f"/v1/tenants/{tenant.id}/quota", {"quota_vms": 2})
        wait_vm(tenant, "zero")
        wait_until(lambda: not standing(home)["refused_vms"])
    assert sum(each["kind"] == "vm.refused" for each in tenant.admin.get("/v1/events")) == 1
