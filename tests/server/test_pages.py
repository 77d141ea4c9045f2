"""The pages as a program sees them: who may look at what, what they are sent with, what forms have to bring."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlencode

import pytest
from sqlalchemy import create_engine, insert, update

from headstart import repository
from headstart.repository import keyring
from headstart.server import acts, tables
from headstart.server.pages import wishes, words
from headstart.store.server import ServerStore
from headstart.wire.https import Answer
from tests.kit import machine, tenancy
from tests.kit.machine import Machine
from tests.kit.server import PASSWORD, Person, Server, Tenant
from tests.kit.shop import STRUCTURE
from tests.kit.stores import PASSWORD as KEY
from tests.kit.stores import QUICK

FORM = {"Content-Type": "application/x-www-form-urlencoded"}
#: Of a tenant's, by the role that is needed.
VIEWED = ("/", "/hosts", "/policies", "/policies/nightly", "/policies/nightly/simulate", "/repositories", "/jobs")
CONFIGURED = ("/users", "/tokens", "/audit", "/notices")


def send(person: Person, path: str, values: Mapping[str, str], *, csrf: bool = True) -> Answer:
    """As a browser sends a form: the token is a field of it."""
    headers = dict(person.headers)
    token = headers.pop("X-Csrf-Token", "")
    told = {**values, **({"csrf": token} if csrf else {})}
    return person.client.request("POST", path, urlencode(told).encode(), {**headers, **FORM})


def get(person: Person, path: str, headers: Mapping[str, str] | None = None) -> str:
    answer = person.ask("GET", path, headers=headers)
    assert answer.status == 200, (path, answer.status, answer.data[:300])
    return answer.data.decode()


@dataclass(frozen=True, slots=True)
class Fleet:
    """A tenant with a host, a VM of it, a restore point, a policy; somebody of each role; and another tenant."""

    tenant: Tenant
    other: Tenant
    people: dict[str, Person]
    host: str
    vm: str
    point: str
    machine: Machine


@pytest.fixture(scope="module")
def fleet(server: Server) -> Fleet:
    tenant, other = server.tenant("pages"), server.tenant("strangers")
    tenant.repository()
    policy = {"text": '[schedule]\ncalendar = "02:00"\ntimezone = "UTC"\n'}
    tenant.admin.put("/v1/policies/nightly", policy)
    people = {"admin": tenant.admin}
    for role in ("viewer", "operator"):
        server.user(tenant, f"pages-{role}", role)
        people[role] = server.person(f"pages-{role}")
    joined = tenant.host("rack")
    host = Machine(joined)
    host.tell({"web": machine.view()})
    host.ran("web", "backup", time.time() - 60, machine.backup("web", time.time() - 60, 1 << 30, 9 << 20, 0.4))
    vm = tenant.admin.get("/v1/vms")[0]["id"]
    point = tenant.admin.get("/v1/snapshots")[0]["id"]
    return Fleet(tenant, other, people, joined.host, vm, point, host)


def test_each_role_sees_its_pages(server: Server, fleet: Fleet) -> None:
    for path in (*VIEWED, f"/vms/{fleet.vm}", f"/snapshots/{fleet.point}", "/settings"):
        for person in fleet.people.values():
            get(person, path)
    for path in CONFIGURED:
        get(fleet.people["admin"], path)
        for role in ("viewer", "operator"):
            assert fleet.people[role].ask("GET", path).status == 403, (role, path)
    site = server.site()
    tenancy.add_row(server, tables.jobs, tenant=fleet.tenant.id, kind="gc", state="running", error="of theirs")
    assert "of theirs" not in get(site, "/jobs") and "of theirs" in get(fleet.people["viewer"], "/jobs")
    for path in ("/tenants", "/users", "/audit", "/jobs", "/settings"):
        get(site, path)
    for path in ("/hosts", "/policies", "/repositories", "/tokens", "/notices", f"/vms/{fleet.vm}"):
        assert site.ask("GET", path).status == 403, path
    assert fleet.people["admin"].ask("GET", "/tenants").status == 403


def test_what_belongs_to_others_is_as_if_it_were_not_there(fleet: Fleet) -> None:
    nobody = "0" * 32
    for path in ("/vms/{}", "/vms/{}/live", "/vms/{}/picture.svg", "/policies/nightly/simulate?vm={}"):
        theirs, none = (fleet.other.admin.ask("GET", path.format(each)) for each in (fleet.vm, nobody))
        assert theirs.status == none.status == 404, path
        assert theirs.data.replace(fleet.vm.encode(), b"") == none.data.replace(nobody.encode(), b"")
    for path in ("/snapshots/{}", *(f"/snapshots/{{}}/{part}" for part in ("orders", "unlock", "screenshot.png"))):
        points = [fleet.other.admin.ask("GET", path.format(each)) for each in (fleet.point, nobody)]
        assert [each.status for each in points] == [404, 404], path
        assert points[0].data.replace(fleet.point.encode(), b"") == points[1].data.replace(nobody.encode(), b"")
    acts: tuple[tuple[str, dict[str, str]], ...] = (
        ("/vms/{}/orders", {"kind": "backup"}),
        ("/snapshots/{}/orders", {"kind": "rehearse", "host": fleet.host}),
        ("/snapshots/{}/orders", {"kind": "boot", "host": fleet.host}),
        ("/snapshots/{}/unlock", {"password": "a guess"}),
        ("/orders/{}/withdraw", {"snapshot": fleet.point}),
        ("/vms/{}/remove", {}),
        ("/hosts/{}/remove", {}),
        ("/users/{}/remove", {}),
        ("/tokens/{}/revoke", {}),
        ("/jobs/{}/cancel", {}),
        ("/approvals/{}/approve", {}),
    )
    for path, values in acts:
        ids = (fleet.host if path.startswith("/hosts") else fleet.vm, nobody)
        theirs, none = (send(fleet.other.admin, path.format(each), values) for each in ids)
        assert theirs.status == none.status == 404, path
        assert theirs.data.replace(ids[0].encode(), b"") == none.data.replace(nobody.encode(), b"")
    get(fleet.people["admin"], f"/vms/{fleet.vm}")


@pytest.mark.parametrize("state", [{"policies": 7, "mistake": ["x"], "refused": "all"}, {"policies": {"refused": {}}}])
def test_a_host_that_is_well_has_nothing_to_complain_of(server: Server, fleet: Fleet, state: dict[str, object]) -> None:
    fleet.machine.state = state
    fleet.machine.pulse(web=machine.view())
    for path in ("/", "/hosts", "/policies"):
        found = get(fleet.people["viewer"], path)
        assert not any(each in found for each in ("cannot use", "mistakes", "not listed", "refused")), path


def test_what_hosts_refuse_and_what_is_refused_of_them_is_told(server: Server) -> None:
    tenant = server.tenant("unheard")
    tenant.repository()
    server.site().put(f"/v1/tenants/{tenant.id}/quota", {"quota_vms": 1})
    host = Machine(tenant.host("unheard-rack"))
    host.state = {
        "policies": {"version": "1", "refused": "line 3: <b>no such key</b>", "refused_version": "2"},
        "mistake": "headstart.toml:7: no such zone",
    }
    names = ("a-one", "b-two", "c-three", "d-four", "e-five", "f-six")
    host.tell(dict.fromkeys(names, machine.view()))
    for path in ("/", "/hosts", "/policies"):
        found = get(tenant.admin, path)
        assert "by the last ones that it could" in found
        assert "line 3: &lt;b&gt;no such key" in found and "headstart.toml:7" in found, path
        assert "5 VMs" in found and "b-two" in found and "The quota of 1 VMs is used up" in found, path
    host.state = {"policies": {"version": "", "refused": "line 3"}}
    host.tell({"a-one": None})
    for path in ("/hosts", "/policies"):
        found = get(tenant.admin, path)
        assert "without any" in found and "by the last ones" not in found, path


def test_a_policy_of_content_is_on_every_page(fleet: Fleet) -> None:
    paths = (*VIEWED, *CONFIGURED, f"/vms/{fleet.vm}", f"/vms/{fleet.vm}/live", "/login", "/vms/none")
    for path in paths:
        headers = fleet.people["admin"].ask("GET", path).headers
        policy = headers["content-security-policy"]
        assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self';"), path
        assert "unsafe" not in policy and "frame-ancestors 'none'" in policy
        assert headers["x-content-type-options"] == "nosniff" and headers["cache-control"] == "no-store"
    drawn = fleet.people["admin"].ask("GET", f"/vms/{fleet.vm}/picture.svg")
    assert "script-src" not in drawn.headers["content-security-policy"]
    assert drawn.headers["content-security-policy"].startswith("default-src 'none'")


def test_nothing_is_inline(fleet: Fleet) -> None:
    """What the policy would refuse: no page has any."""
    for path in (*VIEWED, *CONFIGURED, f"/vms/{fleet.vm}", "/settings"):
        found = get(fleet.people["admin"], path)
        assert not re.search(r"<style|\sstyle=|\son[a-z]+=|<script(?! src=\"/static/)|javascript:", found), path
        assert not re.search(r"(src|href|action|srcset)=\"(https?:)?//", found), path


def test_a_stranger_is_led_to_the_login(server: Server, fleet: Fleet) -> None:
    stranger = Person(server.identity)
    answer = stranger.ask("GET", f"/vms/{fleet.vm}?hours=6")
    assert answer.status == 303 and answer.headers["location"] == f"/login?next=%2Fvms%2F{fleet.vm}%3Fhours%3D6"
    part = stranger.ask("GET", f"/vms/{fleet.vm}/live", headers={"HX-Request": "true"})
    assert part.status == 204 and part.headers["hx-redirect"] == "/login"
    # From a mail: the cookie comes only with the next request.
    foreign = stranger.ask("GET", "/hosts", headers={"Sec-Fetch-Site": "cross-site"})
    assert foreign.status == 200 and b'http-equiv="refresh"' in foreign.data


@pytest.mark.parametrize(
    "place", ["//evil.example", "https://evil.example", "/\\evil.example", "\\\\evil", "/\t/evil.example", "evil"]
)
def test_a_login_leads_nowhere_else(server: Server, place: str, fleet: Fleet) -> None:
    asked = {"name": "pages-viewer", "password": PASSWORD, "next": place}
    answer = send(Person(server.identity), "/login", asked)
    assert answer.status == 303 and answer.headers["location"] == "/"


def test_a_login_of_another_page_is_refused(server: Server) -> None:
    asked = urlencode({"name": "pages-viewer", "password": PASSWORD}).encode()
    headers = {**FORM, "Sec-Fetch-Site": "cross-site"}
    assert Person(server.identity).client.request("POST", "/login", asked, headers).status == 403


def test_forms_carry_the_token_of_the_session(fleet: Fleet) -> None:
    admin = fleet.people["admin"]
    acts: tuple[tuple[str, dict[str, str]], ...] = (
        ("/logout", {}),
        ("/policies/nightly", {"text": ""}),
        ("/hosts/join", {"repository": "main"}),
        (f"/vms/{fleet.vm}/orders", {"kind": "pause"}),
        ("/users", {"name": "smuggled", "password": PASSWORD, "role": "admin"}),
        ("/settings/password", {"password": PASSWORD, "new": "another password"}),
    )
    for path, values in acts:
        assert send(admin, path, values, csrf=False).status == 403, path
        assert send(admin, path, {**values, "csrf": "0" * 64}, csrf=False).status == 403, path
    get(admin, "/")


def test_forms_are_bounded(fleet: Fleet) -> None:
    admin = fleet.people["admin"]
    assert send(admin, "/policies/nightly", {"text": "x" * 600_000}).status == 413
    assert send(admin, "/assignments", {"pattern": "x" * 300, "policy": "nightly"}).status == 400
    assert send(admin, "/jobs", {f"field{n}": "" for n in range(300)}).status == 400
    answer = admin.client.request("POST", "/assignments", b"\xff\xfe=%ff", {**admin.headers, **FORM})
    assert answer.status == 400


def test_only_words_of_ours_are_said_to_be_done(fleet: Fleet) -> None:
    assert 'role="status"' in get(fleet.people["admin"], "/hosts?done=removed")
    assert 'role="status"' not in get(fleet.people["admin"], "/hosts?done=Call+0123+at+once")


def test_every_mistake_of_a_policy_is_told(fleet: Fleet) -> None:
    admin = fleet.people["admin"]
    text = 'audit = "maybe"\n[schedule]\ncalendar = "25:00"\nmised = true\n[hooks]\nafter-thaw = ["rm -rf /"]\n'
    answer = send(admin, "/policies/nightly", {"text": text})
    told = answer.data.decode()
    assert answer.status == 400 and "4 mistakes" in told
    for line, key in ((1, "audit"), (3, "schedule.calendar"), (4, "schedule.mised"), (5, "hooks")):
        assert f"Line {line}: <code>{key}</code>" in told
    assert "after-thaw = [&#34;rm -rf /&#34;]" in told, "what was written stays in the editor"
    assert "25:00" not in admin.get("/v1/policies")[0]["text"]
    good = '[schedule]\ncalendar = "03:00"\ntimezone = "UTC"\n'
    checked = send(admin, "/policies/nightly", {"text": good, "check": "1"})
    assert checked.status == 200 and "03:00" not in admin.get("/v1/policies")[0]["text"]
    assert send(admin, "/policies/nightly", {"text": good}).status == 303
    program = admin.ask("PUT", "/v1/policies/nightly", {"text": f"{good}\n[load]\nlow = 0.9\nhigh = 0.1\n"})
    assert program.status == 400 and "load.low: must be less than high" in program.detail
    assert "03:00" in admin.get("/v1/policies")[0]["text"]


def test_a_host_is_joined_by_what_the_page_says(fleet: Fleet) -> None:
    told = send(fleet.people["admin"], "/hosts/join", {"repository": "main", "name": "new-one"}).data.decode()
    found = re.search(r"headstart join (\S+) (hsj_\w+) --name new-one", told)
    assert found is not None
    asked = {"token": found[2], "name": "new-one", "installation": "i", "version": "1"}
    assert fleet.people["admin"].post("/v1/host/join", asked)["repository"] == "main"
    assert send(fleet.people["operator"], "/hosts/join", {"repository": "main"}).status == 403


def test_orders_go_to_the_host(fleet: Fleet) -> None:
    assert send(fleet.people["viewer"], f"/vms/{fleet.vm}/orders", {"kind": "backup"}).status == 403
    assert send(fleet.people["operator"], f"/vms/{fleet.vm}/orders", {"kind": "restore"}).status == 400
    assert send(fleet.people["operator"], f"/vms/{fleet.vm}/orders", {"kind": "backup"}).status == 303
    assert fleet.people["viewer"].get("/v1/orders")[0]["kind"] == "backup"
    assert "waits for the host" in get(fleet.people["viewer"], f"/vms/{fleet.vm}/live")


def test_a_restore_point_is_restored_where_a_host_offers_it(fleet: Fleet) -> None:
    operator, path = fleet.people["operator"], f"/snapshots/{fleet.point}"
    assert "No host offers to restore" in get(operator, path)
    assert "Restore" not in get(fleet.people["viewer"], path).replace("restore point", "")
    fleet.machine.state = {"restores": True, "rehearsals": True}
    fleet.machine.tell({"web": machine.view()})
    host = next(each["id"] for each in operator.get("/v1/hosts") if each["name"] == "rack")
    assert f'<option value="{host}">rack' in get(operator, path)
    wanted = {"kind": "restore", "host": host, "folder": "back", "format": "raw"}
    assert send(operator, f"{path}/orders", wanted).status == 303
    order = operator.get("/v1/orders")[0]
    assert (order["kind"], order["arguments"]["folder"], order["arguments"]["format"]) == ("restore", "back", "raw")
    assert send(operator, f"{path}/orders", {**wanted, "folder": "../../etc"}).status == 400
    assert send(fleet.people["viewer"], f"{path}/orders", wanted).status == 403
    for part in ("unlock", "screenshot.png"):
        assert fleet.people["viewer"].ask("GET", f"{path}/{part}").status == 403


def test_a_restore_point_is_booted_where_a_host_offers_it(fleet: Fleet) -> None:
    operator, path = fleet.people["operator"], f"/snapshots/{fleet.point}"
    wanted = {"kind": "boot", "host": fleet.host, "hours": "2"}
    fleet.machine.state = {"restores": True, "rehearsals": True}
    fleet.machine.tell({"web": machine.view()})
    refused = send(operator, f"{path}/orders", wanted)
    assert refused.status == 409 and b"boots" in refused.data
    fleet.machine.state = {"boots": True}
    fleet.machine.tell({"web": machine.view()})
    for hours in ("0", "169", "-1", "many", "nan"):
        assert send(operator, f"{path}/orders", {**wanted, "hours": hours}).status == 400, hours
    assert send(fleet.people["viewer"], f"{path}/orders", wanted).status == 403
    assert send(operator, f"{path}/orders", wanted).status == 303
    order = operator.get("/v1/orders")[0]
    hand = {order["id"]: {"state": "taken", "result": {}, "progress": {"reach": {"screen": "/run/vnc"}}}}
    fleet.machine.tell({}, hand)
    assert "/run/vnc" in get(operator, f"{path}/orders") and "/run/vnc" in get(operator, f"/vms/{fleet.vm}")
    stop = {"snapshot": fleet.point}
    assert send(fleet.people["viewer"], f"/orders/{order['id']}/withdraw", stop).status == 403
    assert send(operator, f"/orders/{order['id']}/withdraw", stop).headers["location"] == f"{path}?done=stopping"
    assert "Stop</button>" not in get(operator, f"{path}/orders")
    fleet.machine.tell({}, {order["id"]: {"state": "done", "result": {"ended": "It was stopped by order."}}})


def test_what_is_nowhere_is_a_page_for_browsers(fleet: Fleet) -> None:
    answer = fleet.people["viewer"].ask("GET", "/nowhere", headers={"Accept": "text/html,*/*"})
    assert answer.status == 404 and b"There is no such page." in answer.data
    for path in ("/nowhere", "/v1/nowhere"):
        answer = fleet.people["viewer"].ask("GET", path)
        assert answer.status == 404 and answer.json()["status"] == 404


def test_what_waits_for_a_second_admin_is_decided_on_a_page(server: Server, fleet: Fleet) -> None:
    admin = fleet.people["admin"]
    server.user(fleet.tenant, "pages-second", "admin")
    second = server.person("pages-second")
    assert send(admin, "/settings/caution", {"second_person": "yes", "hours": "0"}).status == 303
    fleet.machine.tell({"web": machine.view(), "doomed": None})
    doomed = next(vm["id"] for vm in admin.get("/v1/vms") if vm["name"] == "doomed")
    answer = send(admin, f"/vms/{doomed}/remove", {})
    assert answer.headers["location"] == "/?done=asked"
    assert "vm.remove" in get(second, "/jobs") and ">doomed<" in get(second, "/jobs")
    approval = next(each["id"] for each in admin.get("/v1/approvals") if each["state"] == "waiting")
    assert send(admin, f"/approvals/{approval}/approve", {}).status == 403
    assert send(second, f"/approvals/{approval}/approve", {}).status == 303
    assert "doomed" not in {vm["name"] for vm in admin.get("/v1/vms")}
    send(admin, "/settings/caution", {"hours": "0"})
    weaker = next(each["id"] for each in admin.get("/v1/approvals") if each["state"] == "waiting")
    assert send(second, f"/approvals/{weaker}/approve", {}).status == 303


def test_who_approves_sees_what_it_is(server: Server) -> None:
    tenant = server.tenant("sighted")
    one = tenant.admin
    place = tenant.repository("vault")
    host = Machine(tenant.host("rack", "vault"))
    report = machine.backup("web", 1.7e9, 1 << 30, 9 << 20, 0.4)
    host.ran("web", "backup", time.time() - 60, report)
    with create_engine(tenancy.database(server)).begin() as connection:
        connection.execute(update(tables.repositories).where(tables.repositories.c.id == place).values(structure=b"x"))
    server.user(tenant, "sighted-two", "admin")
    two = server.person("sighted-two")
    me = two.get("/v1/session")["id"]
    text = '[schedule]\ncalendar = "daily"\n[retention]\nkeep_daily = 7\n'
    one.put("/v1/policies/gold", {"text": text})
    one.put("/v1/tenants/own/caution", {"second_person": True, "delay_seconds": 0})
    shorter = f"# {'x' * 200}\u2028keep_daily = 7\n{text.replace('= 7', '= 1')}"
    assert one.ask("PUT", "/v1/policies/gold", {"text": shorter}).status == 202
    assert one.ask("POST", f"/v1/users/{me}/reset", {"password": PASSWORD}).status == 202
    assert one.ask("DELETE", f"/v1/repositories/vault/snapshots/{report['snapshot']}").status == 202
    assert one.ask("DELETE", f"/v1/hosts/{host.joined.host}").status == 202
    weaker = {"second_person": False, "delay_seconds": 0}
    assert one.ask("PUT", "/v1/tenants/own/caution", weaker).status == 202
    page = get(two, "/jobs")
    assert "<del>- keep_daily = 7</del>\n" in page and "<ins>+ keep_daily = 1</ins>\n" in page
    assert f"<ins>+ # {'x' * 200}?keep_daily = 7</ins>\n" in page and "  [retention]\n" in page
    assert "sighted-two (admin), who is you" in page and me not in page
    assert "web, 2023-11-14 22:13 UTC" in page and ">vault<" in page and ">rack<" in page
    reset, forget = (
        next(each["id"] for each in two.get("/v1/approvals") if each["act"] == act)
        for act in ("user.reset", "snapshot.forget")
    )
    assert f"/approvals/{reset}/approve" not in page and f"/approvals/{forget}/approve" in page
    refused = send(two, f"/approvals/{reset}/approve", {})
    assert refused.status == 403 and b"would have your account" in refused.data
    assert "who is you" not in get(one, "/jobs") and "sighted-two (admin)" in get(one, "/jobs")
    assert send(two, f"/approvals/{reset}/reject", {}).status == 303
    two.get("/v1/session")


def test_every_act_has_words_and_a_text_is_shown_whole() -> None:
    assert wishes.TITLES.keys() == acts.ALL.keys()
    assert wishes._compared("-- a\nb\n", "b\n++ c") == (("-", "-- a"), (" ", "b"), ("+", "++ c"))
    assert wishes._compared("", "a\r\n\nb\n") == (("+", "a"), ("+", ""), ("+", "b"))
    assert wishes._compared("a\n", "a\n") == ((" ", "a"),)
    long = "\n".join(map(str, range(5000)))
    assert [text for _, text in wishes._compared("1", long)] == long.split("\n")


def test_a_repository_is_removed_on_a_page(fleet: Fleet) -> None:
    admin = fleet.tenant.admin
    send(admin, "/repositories", {"name": "passing", "immutable_days": "1"})
    place = next(each["id"] for each in admin.get("/v1/repositories") if each["name"] == "passing")
    assert f"/repositories/{place}/remove" in get(admin, "/repositories")
    assert f"/repositories/{place}/remove" not in get(fleet.people["operator"], "/repositories")
    for person, status in ((fleet.people["operator"], 403), (fleet.other.admin, 404), (admin, 303)):
        assert send(person, f"/repositories/{place}/remove", {}).status == status
    page = get(admin, "/repositories")
    assert "passing" in page and "what is left of it goes when it may" in page
    assert f"/repositories/{place}/remove" not in page
    # One that hosts store in is not removed from under them.
    main = next(each["id"] for each in admin.get("/v1/repositories") if each["name"] == "main")
    assert send(admin, f"/repositories/{main}/remove", {}).status == 409
    offered = get(admin, "/tokens")
    assert f'value="{place}"' not in offered and f'value="{main}"' in offered


def test_the_key_of_the_structure_is_given_and_taken_back_on_a_page(server: Server, fleet: Fleet) -> None:
    admin, operator, nobody = fleet.people["admin"], fleet.people["operator"], "0" * 32
    place = fleet.tenant.repository("keyed")
    path, said = f"/repositories/{place}/structure", "was given no key of the structure of"
    assert path in get(admin, "/repositories") and path not in get(operator, "/repositories")
    early = send(admin, path, {"password": "x"})
    assert early.status == 404 and b"no host has made its repository" in early.data and b"<form" in early.data
    assert all(said not in get(admin, page) for page in ("/", "/policies", "/repositories"))
    store = ServerStore(fleet.tenant.program("admin").client, "keyed")
    with repository.create(store, KEY, cost=QUICK) as repo:
        keyring.add(repo, STRUCTURE, time.time(), structure_alone=True, cost=QUICK)
    for page, people in (("/", (admin,)), ("/policies", (admin, operator)), ("/repositories", (admin, operator))):
        assert all(said in get(person, page) for person in people), page
    assert said not in get(operator, "/")
    # Where somebody would wait in vain.
    refused = send(admin, "/jobs", {"kind": "verify", "repository": place})
    assert refused.status == 400 and b"key add --structure-only" in refused.data

    assert "cannot</strong> read what is on a disk" in get(admin, path) and "/withdraw" not in get(admin, path)
    right = {"password": STRUCTURE.decode()}
    for act, values in ((path, right), (f"{path}/withdraw", {})):
        assert send(operator, act, values).status == send(admin, act, values, csrf=False).status == 403
        theirs, none = (send(fleet.other.admin, act.replace(place, each), values) for each in (place, nobody))
        assert theirs.status == none.status == 404
        assert theirs.data.replace(place.encode(), b"") == none.data.replace(nobody.encode(), b"")
    assert operator.ask("GET", path).status == 403 and fleet.other.admin.ask("GET", path).status == 404
    for wrong, status, word in (
        ("a guess", 401, "No key of this repository"),
        (KEY.decode(), 400, "opens the content"),
    ):
        answer = send(admin, path, {"password": wrong})
        assert answer.status == status and word in answer.data.decode() and wrong not in answer.data.decode()
    assert said in get(admin, "/repositories")

    assert send(admin, path, right).headers["location"] == "/repositories?done=given"
    assert said not in get(admin, "/repositories")
    assert send(admin, "/jobs", {"kind": "verify", "repository": place}).status == 303
    assert f"{path}/withdraw" in get(admin, path)
    assert send(admin, f"{path}/withdraw", {}).headers["location"] == "/repositories?done=withdrawn"
    assert said in get(admin, "/repositories")
    acts = [each["act"] for each in admin.get("/v1/audit") if each["object"] == place]
    assert acts[:2] == ["repository.structure.withdraw", "repository.structure.give"]


def test_whom_notices_reach_is_set_and_tried_on_a_page(fleet: Fleet) -> None:
    admin, secret = fleet.tenant.admin, "json://localhost:1/hook-of-theirs"
    assert "Nobody is told" in get(admin, "/notices")
    assert send(admin, "/notices/addresses", {"url": "file:///etc/passwd"}).status == 400
    for url in (secret, "json://example.com/x"):
        assert send(admin, "/notices/addresses", {"url": url}).status == 303
    assert send(admin, "/notices/addresses", {"url": secret}).status == 400  # told already
    page = get(admin, "/notices")
    assert "json://localhost..." in page and "json://example.com..." in page and "hook-of-theirs" not in page
    chosen = {"kind-backup.failed": "yes", "begin": "22:00", "end": "06:30", "zone": "Europe/Berlin"}
    assert send(admin, "/notices", chosen).status == 303
    told = admin.get("/v1/notices")
    assert (told["kinds"], told["quiet"]) == (["backup.failed"], {"begin": 1320, "end": 390, "zone": "Europe/Berlin"})
    assert len(told["urls"]) == 2
    for wrong in ({"begin": "22"}, {"begin": "25:00", "end": "1:00"}, {"begin": "1:00", "end": "2:00", "zone": "Moon"}):
        assert send(admin, "/notices", wrong).status == 400, wrong
    assert admin.get("/v1/notices") == told
    # What the page shows is what is removed, or nothing.
    assert send(admin, "/notices/addresses/remove", {"number": "0", "url": "json://example.com..."}).status == 404
    assert send(admin, "/notices/addresses/remove", {"number": "1", "url": "json://example.com..."}).status == 303
    assert admin.get("/v1/notices") == {**told, "urls": told["urls"][:1]}
    tried = send(admin, "/notices/test", {})
    assert tried.status == 200 and "not public" in tried.data.decode()
    assert send(fleet.people["operator"], "/notices/test", {}).status == 403
    assert send(admin, "/notices/addresses", {"url": "json://x"}, csrf=False).status == 403
    assert send(admin, "/notices/addresses/remove", {"number": "0", "url": "json://localhost..."}).status == 303
    assert "Nobody is told" in get(admin, "/notices")


def test_a_moment_that_no_calendar_has_is_a_dash(server: Server) -> None:
    """NTFS counts to the year 60056, and a host may say anything."""
    for moment in (2.0**63, 1e300, float("inf"), float("nan"), -1e17, 1.8e12, None):
        assert words.when(moment) == words.at(moment) == words.ago(moment, 1.8e9) == "\u2013", moment
    assert words.at(1.8e9).startswith('<time datetime="2027-01-15T08:00:00Z"')
    tenant = server.tenant("timeless")
    tenant.repository()
    host = Machine(tenant.host("rack"))
    host.tell({"web": machine.view(due=1.8e12)})
    host.ran("web", "backup", time.time() - 60, machine.backup("web", 2.0**62, 1 << 30, 9 << 20, 0.4))
    vm = tenant.admin.get("/v1/vms")[0]["id"]
    for path in ("/", f"/vms/{vm}", f"/vms/{vm}/live", f"/vms/{vm}/picture.svg", f"/snapshots/{_points(tenant)[0]}"):
        get(tenant.admin, path)
    host.ran("web", "backup", time.time() - 60, machine.backup("web", 1e300, 1 << 30, 9 << 20, 0.4))
    assert len(_points(tenant)) == 1, "that is no report"


def _points(tenant: Tenant) -> list[str]:
    return [each["id"] for each in tenant.admin.get("/v1/snapshots")]


def test_what_two_repositories_have_is_one_restore_point(server: Server) -> None:
    tenant = server.tenant("twofold")
    tenant.repository()
    mirror = tenant.repository("mirror")
    rack, spare = Machine(tenant.host("rack")), Machine(tenant.host("spare", "mirror"))
    rack.state = spare.state = {"restores": True}
    rack.tell({"web": machine.view()})
    spare.tell({})
    report = machine.backup("web", time.time() - 60, 1 << 30, 9 << 20, 0.4)
    rack.ran("web", "backup", time.time() - 60, report)
    point = report["snapshot"]
    (row,) = tenancy.rows(server, tables.snapshots, tables.snapshots.c.id == point)
    copied = {**row, "repository": mirror, "changed_bytes": None, "window_seconds": None}
    with create_engine(tenancy.database(server)).begin() as connection:
        connection.execute(insert(tables.snapshots).values(copied))
    vm = tenant.admin.get("/v1/vms")[0]["id"]
    overview = get(tenant.admin, "/")
    assert 'data-label="Restore points">1<' in overview and "<b>1</b><span>Restore points" in overview
    assert get(tenant.admin, f"/vms/{vm}").count(f'href="/snapshots/{point}"') == 1
    page = get(tenant.admin, f"/snapshots/{point}")
    assert "main, mirror" in page or "mirror, main" in page
    for host in (rack.joined.host, spare.joined.host):
        assert f'value="{host}"' in page
        tenant.admin.post(f"/v1/hosts/{host}/orders", {"kind": "restore", "snapshot": point})
    listed = tenant.admin.get("/v1/snapshots")
    assert sorted(each["repository"] for each in listed) == sorted([row["repository"], mirror])
    assert tenant.admin.get(f"/v1/snapshots/{point}")["repository"] == row["repository"], "whoever made it tells more"


def test_damage_and_a_rehearsal_that_failed_reach_the_overview(server: Server) -> None:
    tenant = server.tenant("doubtful")
    tenant.repository()
    host, its, now = Machine(tenant.host("rack")), tables.snapshots.c, time.time()
    host.tell({"web": machine.view(), "db": machine.view()})
    points = {}
    for vm, age in (("web", 7200), ("web", 3600), ("db", 3600)):
        report = machine.backup(vm, now - age, 1 << 30, 9 << 20, 0.4)
        host.ran(vm, "backup", now - age, report)
        points[vm, age] = report["snapshot"]
    vms = {each["name"]: each["id"] for each in tenant.admin.get("/v1/vms")}

    def note(vm: str, age: int, **values: object) -> None:
        with create_engine(tenancy.database(server)).begin() as connection:
            connection.execute(update(tables.snapshots).where(its.id == points[vm, age]).values(**values))

    assert "At risk" not in get(tenant.admin, "/") and "none yet" in get(tenant.admin, f"/vms/{vms['web']}")
    # What is newer was not looked at yet, and shares with it.
    note("web", 7200, damaged=now)
    assert "Verifying found" in get(tenant.admin, "/") and "Damaged" in get(tenant.admin, f"/vms/{vms['web']}/live")
    assert "Damaged" not in get(tenant.admin, f"/vms/{vms['db']}")
    note("web", 3600, verified=now)
    assert "At risk" not in get(tenant.admin, "/")
    note("web", 3600, rehearsed=now, proof={"passed": False, "reason": "It shows a login of nobody."})
    assert "Rehearsal failed" in get(tenant.admin, "/") and "a login of nobody" in get(tenant.admin, "/?show=warn")
    note("web", 7200, rehearsed=now, proof={"passed": True})
    note("web", 3600, rehearsed=now, proof={"seconds": 9.0})
    assert "Rehearsal failed" in get(tenant.admin, "/"), "an older one that lives is no newest one"
    note("web", 3600, rehearsed=now, proof={"passed": True})
    assert "At risk" not in get(tenant.admin, "/")


def test_the_picture_is_drawn_for_both_grounds(fleet: Fleet) -> None:
    viewer = fleet.people["viewer"]
    light, dark = (get(viewer, f"/vms/{fleet.vm}/picture.svg?theme={each}") for each in ("light", "dark"))
    assert 'fill="#ffffff"' in light and 'fill="#ffffff"' not in dark
    assert "web:" in light and "web:" in dark
    zoned = {"Cookie": f"{viewer.headers['Cookie']}; zone=Asia/Tokyo"}
    assert "JST" in get(viewer, f"/vms/{fleet.vm}/picture.svg", zoned)
    hostile = {"Cookie": f"{viewer.headers['Cookie']}; zone=../../etc/passwd"}
    assert "UTC" in get(viewer, f"/vms/{fleet.vm}/picture.svg", hostile)


def test_static_files_are_kept_by_browsers_and_no_others_are_served(server: Server) -> None:
    stranger = Person(server.identity)
    place = re.search(r'href="(/static/style\.css\?\w+)"', stranger.ask("GET", "/login").data.decode())
    assert place is not None
    answer = stranger.ask("GET", place[1], headers={"Accept-Encoding": "identity"})
    assert answer.status == 200 and "immutable" in answer.headers["cache-control"]
    for path in ("/static/../routes.py", "/static/%2e%2e%2froutes.py", "/static/htmx.LICENSE", "/static/none.css"):
        assert stranger.ask("GET", path).status == 404, path


def test_two_processes_on_postgresql_show_the_same(pair: tuple[Server, Server]) -> None:
    one, two = pair
    tenant = one.tenant("paired")
    tenant.repository()
    tenant.admin.put("/v1/policies/nightly", {"text": '[schedule]\ncalendar = "02:00"\ntimezone = "UTC"\n'})
    host = Machine(tenant.host("rack"))
    host.tell({"web": machine.view()})
    host.ran("web", "backup", time.time() - 60, machine.backup("web", time.time() - 60, 1 << 30, 9 << 20, 0.4))
    there = Person(two.identity, "paired-admin", PASSWORD)
    vm = there.get("/v1/vms")[0]["id"]
    paths = (
        *VIEWED,
        *CONFIGURED,
        "/settings",
        f"/vms/{vm}",
        f"/vms/{vm}/picture.svg",
        f"/policies/nightly/simulate?vm={vm}",
    )
    for path in paths:
        get(there, path)
    assert "Protected" in get(there, "/") and "web" in get(there, "/?q=WEB&show=good&sort=-last")
    for path in ("/tenants", "/users", "/audit", "/jobs"):
        get(two.site(), path)


def test_without_a_provider_of_openid_connect_there_is_nothing_of_it(fleet: Fleet) -> None:
    admin = fleet.people["admin"]
    for path in ("/login", "/settings", "/users"):
        assert "oidc" not in get(admin, path) and 'name="email"' not in get(admin, path)
    for path in ("/login/oidc", "/login/oidc/back?state=x&code=y"):
        assert admin.ask("GET", path).status == 404
    assert send(admin, "/settings/oidc", {"password": PASSWORD}).status == 404
    wanted = {"name": "pages-invited", "role": "viewer", "email": "a@b.c"}
    assert admin.ask("POST", "/v1/users", wanted).status == 400
    assert send(admin, "/users", wanted).status == 400
