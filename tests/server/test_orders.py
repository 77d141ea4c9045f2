"""Orders: a host comes for them, does each once, and tells how it ended."""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from sqlalchemy import create_engine, delete

from headstart import errors
from headstart.host import restoring
from headstart.host.booter import Booter, Ending
from headstart.host.errands import Errands
from headstart.host.remote import Remote
from headstart.server import orders, tables
from headstart.state.values import Run
from headstart.store.membership import Membership
from tests.host import home as homes
from tests.host.home import Home
from tests.kit import machine, tenancy
from tests.kit.server import Person, Server, Tenant
from tests.kit.waiting import wait_until
from tests.server import joined
from tests.server.joined import serving

HOUR = 3600.0


home = homes.fresh


@pytest.fixture(scope="module")
def tenant(server: Server) -> Tenant:
    made = server.tenant("orders")
    made.repository()
    made.admin.put("/v1/policies/gold", {"text": joined.NIGHTLY})
    made.admin.put("/v1/assignments", {"policy": "gold"})
    return made


@pytest.fixture
def member(tenant: Tenant, request: pytest.FixtureRequest) -> Membership:
    return tenant.host(f"h{abs(hash(request.node.name)) % 10**8}")


def order(tenant: Tenant, vm: str, kind: str, **values: Any) -> str:
    return str(tenant.admin.post(f"/v1/vms/{vm}/orders", {"kind": kind, **values})["id"])


def shown(tenant: Tenant, order: str) -> dict[str, Any]:
    found: dict[str, Any] = tenant.admin.get(f"/v1/orders/{order}")
    return found


def wait_over(tenant: Tenant, order: str) -> dict[str, Any]:
    wait_until(lambda: shown(tenant, order)["state"] in ("done", "failed"))
    return shown(tenant, order)


def its_vm(tenant: Tenant, member: Membership) -> str:
    """The VM ``web`` of this host."""

    def found() -> list[str]:
        return [each["id"] for each in tenant.admin.get("/v1/vms") if each["host"] == member.host]

    wait_until(found)
    return found()[0]


def test_backups_pauses_and_cancelling(tenant: Tenant, member: Membership, home: Home) -> None:
    machine = home.add("web", blocks=512, filled=512)
    joined.bare(home)
    joined.join(home, member)
    with serving(home):
        vm = its_vm(tenant, member)
        wait_until(lambda: home.ask("status")["vms"])
        done = wait_over(tenant, order(tenant, vm, "backup"))
        assert done["state"] == "done" and done["result"]["snapshot"] == home.snapshots()[-1].id
        assert home.content(home.snapshots()[-1]) == machine.data("a")
        paused = wait_over(tenant, order(tenant, vm, "pause"))
        assert paused["state"] == "done" and home.series.paused("web")
        assert wait_over(tenant, order(tenant, vm, "resume"))["state"] == "done" and not home.series.paused("web")
        assert wait_over(tenant, order(tenant, vm, "cancel"))["result"]["cancelled"] is False
        # A backup that is under way tells how far it is, and can be cancelled.
        gate = threading.Event()
        taking = threading.Event()

        def meanwhile(step: str) -> None:
            if step == "take":
                taking.set()
                gate.wait(30)

        machine.meanwhile = meanwhile
        slow = order(tenant, vm, "backup")
        assert taking.wait(20)
        wait_until(lambda: shown(tenant, slow)["progress"])
        assert wait_over(tenant, order(tenant, vm, "cancel"))["result"]["cancelled"] is True
        gate.set()
        ended = wait_over(tenant, slow)
        assert ended["state"] == "failed" and "cancelled" in ended["result"]["error"]
    kinds = [each["kind"] for each in tenant.admin.get("/v1/events?limit=1000") if each["facts"].get("order")]
    assert kinds.count("order.backup.done") == 1 and kinds.count("order.backup.failed") == 1


def test_a_restore_goes_where_the_owner_allows_it_and_nowhere_else(
    tenant: Tenant, member: Membership, home: Home, tmp_path: Path
) -> None:
    machine = home.add("web")
    joined.bare(home)
    joined.join(home, member)
    with serving(home) as daemon:
        vm = its_vm(tenant, member)
        wait_until(lambda: home.ask("status")["vms"])
        done = wait_over(tenant, order(tenant, vm, "backup"))
        snapshot, truth = done["result"]["snapshot"], machine.data("a")
        wait_until(lambda: any(each["id"] == snapshot for each in tenant.admin.get("/v1/snapshots")))
        wanted = {"kind": "restore", "snapshot": snapshot, "format": "raw"}
        refused = tenant.admin.ask("POST", f"/v1/vms/{vm}/orders", wanted)
        assert refused.status == 409 and "restore_into" in refused.detail
        joined.bare(home, restore_into=tmp_path)
        daemon.reload()
        wait_until(lambda: host_of(tenant, member)["state"]["restores"])
        ended = wait_over(tenant, order(tenant, vm, **wanted))
        assert ended["state"] == "done", ended
        [disk] = ended["result"]["disks"]
        assert Path(disk["path"]).is_relative_to(tmp_path) and Path(disk["path"]).read_bytes() == truth
        other = str(tenant.admin.post(f"/v1/hosts/{member.host}/orders", {**wanted, "folder": "again"})["id"])
        assert wait_over(tenant, other)["result"]["directory"] == str(tmp_path / "again")
        # A path is no name; and what is there already is nobody's to write to.
        for folder in ("../up", "/etc", ".hidden", "a/b"):
            answer = tenant.admin.ask("POST", f"/v1/vms/{vm}/orders", {**wanted, "folder": folder})
            assert answer.status == 400, folder
        (tmp_path / "link").symlink_to("/etc")
        linked = wait_over(tenant, order(tenant, vm, **wanted, folder="link"))
        assert linked["state"] == "failed" and "none of ours" in linked["result"]["error"]
        assert (
            tenant.admin.ask("POST", f"/v1/vms/{vm}/orders", {"kind": "rehearse", "snapshot": snapshot}).status == 409
        )
    # Whatever a server says: the host itself looks.
    with pytest.raises(errors.Denied):
        restoring.restore(home.house, None, {"snapshot": snapshot}, lambda *each: None)
    for folder in ("../up", "/etc", ".hidden", "a/b", "x" * 65):
        with pytest.raises(errors.Usage):
            restoring.restore(home.house, tmp_path, {"snapshot": snapshot, "folder": folder}, lambda *each: None)


def host_of(tenant: Tenant, member: Membership) -> dict[str, Any]:
    found: dict[str, Any] = next(each for each in tenant.admin.get("/v1/hosts") if each["id"] == member.host)
    return found


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_what_a_host_had_begun_when_it_was_started_anew_has_failed(
    tenant: Tenant, member: Membership, home: Home
) -> None:
    home.add("web")
    joined.bare(home)
    joined.join(home, member)
    begun, release = threading.Event(), threading.Event()

    def hang(self: Errands, *given: Any) -> dict[str, Any]:
        begun.set()
        release.wait(30)
        raise SystemExit  # as if the process had ended here

    with mock.patch.object(Errands, "_result", hang), serving(home):
        vm = its_vm(tenant, member)
        wait_until(lambda: home.ask("status")["vms"])
        first = order(tenant, vm, "backup")
        assert begun.wait(20)
        wait_until(lambda: shown(tenant, first)["state"] == "taken")
        assert tenant.admin.ask("DELETE", f"/v1/orders/{first}").status == 409
    with serving(home):
        ended = wait_over(tenant, first)
        release.set()
    assert ended["state"] == "failed" and "started anew" in ended["result"]["error"]
    assert home.verbs().count("backup") == 0, "it was not repeated"


def test_one_that_was_taken_and_not_begun_is_done_once(tenant: Tenant, member: Membership, home: Home) -> None:
    """The host dies at each step between an offer and its beginning; answers are lost, too."""
    home.add("web")
    joined.bare(home)
    joined.join(home, member)
    with serving(home):
        vm = its_vm(tenant, member)
        wait_until(lambda: home.ask("status")["vms"])
    first = order(tenant, vm, "backup")
    remote = Remote(member)
    offered = remote.pulse({}, {}, {}).offered
    assert [each.id for each in offered] == [first]

    def anew() -> Errands:
        return Errands(mock.Mock(house=home.house), lambda: None)

    assert anew().take(offered)
    again = anew()
    assert not again.take(offered), "it is known already"
    assert remote.pulse({}, {}, again.told()).orders == {first: "taken"}
    # The answer was lost, and the host died: the same is said, and answered, again.
    last = anew()
    assert remote.pulse({}, {}, last.told()).orders == {first: "taken"}
    with serving(home):
        assert wait_over(tenant, first)["state"] == "done"
    assert home.verbs().count("backup") == 1


def test_one_that_is_withdrawn_or_comes_too_late_is_not_done(tenant: Tenant, member: Membership, home: Home) -> None:
    home.add("web")
    joined.bare(home)
    joined.join(home, member)
    with serving(home):
        vm = its_vm(tenant, member)
    gone, late = order(tenant, vm, "backup"), order(tenant, vm, "backup", seconds=2)
    remote = Remote(member)
    offered = remote.pulse({}, {}, {}).offered
    assert {each.id for each in offered} == {gone, late}
    hand = Errands(mock.Mock(house=home.house), lambda: None)
    hand.take(offered)
    tenant.admin.delete(f"/v1/orders/{gone}")
    wait_until(lambda: shown(tenant, late)["state"] == "expired")
    states = remote.pulse({}, {}, hand.told()).orders
    assert states == {gone: "withdrawn", late: "expired"}
    hand.heard(states)
    assert not hand.told() and not home.verbs().count("backup")


def test_what_is_done_at_once_does_not_wait_behind_what_takes_long(tenant: Tenant, member: Membership) -> None:
    remote = Remote(member)
    remote.pulse({}, {"web": None}, {})
    vm = its_vm(tenant, member)
    long = [order(tenant, vm, "backup") for _ in range(orders.MOST)]
    with pytest.raises(AssertionError, match="wait for this host already"):
        order(tenant, vm, "backup")
    at_once = [order(tenant, vm, kind) for kind in ("pause", "resume", "cancel")]
    assert [each.id for each in remote.pulse({}, {}, {}).offered] == at_once + long[: orders.OFFERED]


def test_a_host_that_lost_its_state_does_not_keep_an_order_for_ever(tenant: Tenant, member: Membership) -> None:
    remote = Remote(member)
    remote.pulse({}, {"web": None}, {})
    vm = its_vm(tenant, member)
    first = order(tenant, vm, "backup")
    assert remote.pulse({}, {}, {first: {"state": "taken", "result": {}}}).orders == {first: "taken"}
    remote.pulse({}, {}, {})
    assert shown(tenant, first)["state"] == "failed"
    # It was only late: what it says of the end is nearer to the truth.
    assert remote.pulse({}, {}, {first: {"state": "done", "result": {}}}).orders == {first: "done"}


def test_who_may_order_what(server: Server, tenant: Tenant, member: Membership) -> None:
    Remote(member).pulse({"restores": True}, {"web": None}, {})
    vm = its_vm(tenant, member)
    viewer, operator = tenant.program("viewer"), tenant.program("operator")
    stranger = server.tenant("strangers").admin
    body = {"kind": "backup"}
    assert viewer.ask("POST", f"/v1/vms/{vm}/orders", body).status == 403
    first = operator.post(f"/v1/vms/{vm}/orders", body)["id"]
    assert viewer.get(f"/v1/orders/{first}")["state"] == "waiting"
    assert viewer.ask("DELETE", f"/v1/orders/{first}").status == 403
    nobody = stranger.ask("POST", f"/v1/vms/{'0' * 32}/orders", body)
    same = stranger.ask("POST", f"/v1/vms/{vm}/orders", body)
    assert (same.status, same.detail.replace(vm, "")) == (nobody.status, nobody.detail.replace("0" * 32, ""))
    for method, path in (("GET", f"/v1/orders/{first}"), ("DELETE", f"/v1/orders/{first}")):
        assert stranger.ask(method, path).status == 404
    assert stranger.get("/v1/orders") == []
    wanted = {"kind": "restore", "snapshot": "0" * 32}
    assert stranger.ask("POST", f"/v1/hosts/{member.host}/orders", wanted).status == 404
    machine = Person(tenant.admin.client.identity)
    machine.headers = {"Authorization": f"Bearer {member.token}"}
    assert machine.ask("POST", f"/v1/vms/{vm}/orders", body).status == 403
    acts = [each["act"] for each in tenant.admin.get("/v1/audit")]
    assert "order.backup" in acts


def test_a_boot_runs_until_it_is_stopped(server: Server, tenant: Tenant, member: Membership, home: Home) -> None:
    """With a real daemon, and no real VM."""
    home.add("web")
    joined.bare(home, boots=True)
    joined.join(home, member)
    seen: list[Ending] = []

    def boot(self: Booter, snapshot: str, hours: float, ending: Ending, tell: Callable[[Any], None]) -> dict[str, Any]:
        seen.append(ending)
        tell({"what": "runs", "reach": {"screen": "/run/vnc"}})
        wait_until(lambda: ending.reason)
        return {"snapshot": snapshot, "ended": ending.reason}

    with mock.patch.object(Booter, "boot", boot), serving(home):
        vm = its_vm(tenant, member)
        wait_until(lambda: home.ask("status")["vms"])
        snapshot = wait_over(tenant, order(tenant, vm, "backup"))["result"]["snapshot"]
        wait_until(lambda: any(each["id"] == snapshot for each in tenant.admin.get("/v1/snapshots")))
        wait_until(lambda: host_of(tenant, member)["state"]["boots"])
        for hours in (0, -1, 169):
            refused = tenant.admin.ask("POST", f"/v1/vms/{vm}/orders", {"kind": "boot", "hours": hours})
            assert refused.status in (400, 422), hours
        first = order(tenant, vm, "boot", snapshot=snapshot, hours=2)
        wait_until(lambda: (shown(tenant, first)["progress"] or {}).get("reach") == {"screen": "/run/vnc"})
        assert shown(tenant, first)["arguments"]["hours"] == 2
        assert tenant.program("viewer").ask("DELETE", f"/v1/orders/{first}").status == 403
        tenant.program("operator").delete(f"/v1/orders/{first}")
        assert wait_over(tenant, first)["result"]["ended"] == "It was stopped by order."
        assert tenant.admin.ask("DELETE", f"/v1/orders/{first}").status == 409
        # One that its tenant's server does not know any longer ends, too.
        second = order(tenant, vm, "boot", snapshot=snapshot)
        wait_until(lambda: len(seen) == 2)
        with create_engine(tenancy.database(server)).begin() as connection:
            connection.execute(delete(tables.orders).where(tables.orders.c.id == second))
        wait_until(lambda: seen[1].reason)
    acts = [each["act"] for each in tenant.admin.get("/v1/audit")]
    assert {"order.boot", "order.stop"} <= set(acts)


def test_one_that_is_stopped_before_it_began_is_not_begun(tenant: Tenant, member: Membership, home: Home) -> None:
    remote = Remote(member)
    remote.pulse({"boots": True}, {"web": None}, {})
    snapshot = secrets.token_hex(16)
    told = machine.backup("web", 1000.0, 1, 1, 1.0) | {"snapshot": snapshot}
    remote.runs([Run(1, "web", "backup", 1.0, 2.0, told)])
    given = str(tenant.admin.post(f"/v1/hosts/{member.host}/orders", {"kind": "boot", "snapshot": snapshot})["id"])
    doer = mock.Mock(house=home.house)
    hand = Errands(doer, lambda: None)
    assert hand.take(remote.pulse({}, {}, {}).offered)
    remote.pulse({}, {}, hand.told())
    tenant.admin.delete(f"/v1/orders/{given}")
    assert shown(tenant, given)["state"] == "stopping"
    assert given in {each["id"] for each in tenant.admin.get("/v1/orders?open=true")}
    hand.heard(remote.pulse({}, {}, hand.told()).orders)
    assert remote.pulse({}, {}, hand.told()).orders == {given: "failed"}
    assert "before it began" in shown(tenant, given)["result"]["error"] and not doer.boot.called


def test_what_a_rehearsal_by_order_has_shown_stands_at_the_restore_point(tenant: Tenant, member: Membership) -> None:
    remote = Remote(member)
    remote.pulse({"rehearsals": True}, {"web": None}, {})
    snapshot = secrets.token_hex(16)
    report = machine.backup("web", 1000.0, 1, 1, 1.0) | {"snapshot": snapshot}
    remote.runs([Run(1, "web", "backup", 1.0, 2.0, report)])
    path, wanted = f"/v1/hosts/{member.host}/orders", {"kind": "rehearse", "snapshot": snapshot}

    def rehearsed(**result: Any) -> dict[str, Any]:
        given = str(tenant.admin.post(path, wanted)["id"])
        for state, told in (("taken", {}), ("done", result)):
            remote.pulse({"rehearsals": True}, {}, {given: {"state": state, "result": told}})
        found: dict[str, Any] = tenant.admin.get(f"/v1/snapshots/{snapshot}")
        return found

    found = rehearsed(time=2000.0, passed=True, awaited="agent", snapshot="f" * 32, more="of no use")
    assert found["rehearsed"] == 2000.0 and found["proof"] == {"time": 2000.0, "passed": True, "awaited": "agent"}
    assert rehearsed(time=1000.0, passed=False)["proof"]["passed"], "an older one tells nothing"
    # A host's clock may be wrong: nothing hides all that comes.
    assert rehearsed(time=9e11, passed=False)["rehearsed"] < 9e11
    assert not rehearsed(time="never", passed=False)["proof"]["passed"]
    # Whoever is to be told that one has not passed is, once, whether it was ordered or came by itself.
    lived = {"time": 3000.0, "passed": True}
    for shown in (lived, {"time": 3001.0, "passed": False, "reason": "no login"}, lived | {"time": 3002.0}):
        told = {"vm": "web", "snapshot": snapshot, "rehearsed": shown}
        for _ in range(2):
            remote.snapshots([told])
    rehearsed(time=3001.0, passed=False, reason="no login")
    failed = [each for each in tenant.admin.get("/v1/events") if each["kind"] == "rehearse.failed"]
    assert [(each["vm"], each["facts"]["begun"]) for each in failed] == [
        ("web", 1000.0),
        ("web", 9e11),
        ("web", None),
        ("web", 3001.0),
    ]
    assert failed[-1]["facts"]["error"] == "no login"
