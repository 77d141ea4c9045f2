"""Destructive acts that wait for a second person, or for a delay."""

from __future__ import annotations

import dataclasses
import random
import secrets
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from sqlalchemy import delete, exc, insert, select, update

from headstart import errors
from headstart.host import policy
from headstart.server import acts, approvals, keeping, policies, site, tables, tenants
from headstart.server.call import Call
from headstart.server.principal import Principal
from headstart.server.roles import Role
from headstart.server.settings import Settings
from headstart.wire.https import Answer
from tests.kit import tenancy
from tests.kit.server import PASSWORD, Person, Server
from tests.kit.tenancy import POLICY, Estate

DAY = 86400.0
SHORTER = POLICY.replace("keep_daily = 7", "keep_daily = 3")
KEEPS_ALL = '[schedule]\ncalendar = "daily"\n'


@dataclasses.dataclass
class House:
    """A tenant with two admins who want each other's consent."""

    estate: Estate
    one: Person
    two: Person

    @property
    def server(self) -> Server:
        return self.estate.server

    def names(self, kind: str) -> str:
        return self.estate.names[kind][0]


def _house(server: Server, *, second: bool, delay: float = 0.0) -> House:
    mark = f"w{secrets.token_hex(4)}"
    estate = tenancy.settle(server, mark)
    tenancy.give_key(estate)
    user = server.user(estate.tenant, f"two-{mark}", "operator")
    estate.admin.put(f"/v1/users/{user}/role", {"role": "admin"})
    estate.admin.put("/v1/tenants/own/caution", {"second_person": second, "delay_seconds": delay})
    return House(estate, estate.admin, server.person(f"two-{mark}"))


@pytest.fixture(scope="module")
def house(server: Server) -> House:
    return _house(server, second=True)


def _later(server: Server, seconds: float) -> int:
    """What a process does that comes by so much later."""
    opened = site.open_site(Settings(server.folder, tenancy.database(server), str(server.folder / "objects")))
    now = opened.clock() + seconds
    try:
        return approvals.due(dataclasses.replace(opened, clock=lambda: now))
    finally:
        opened.database.close()


def _state(person: Person, approval: str) -> str:
    return str(person.get(f"/v1/approvals/{approval}")["state"])


#: What is asked for in a house, with what is as it was until it is done.
ACTS: dict[str, tuple[Callable[[House], Answer], Callable[[House], object]]] = {
    "vm.remove": (
        lambda house: house.one.ask("DELETE", f"/v1/vms/{house.names('vm')}"),
        lambda house: [each["name"] for each in house.one.get("/v1/vms")],
    ),
    "policy.put": (
        lambda house: house.one.ask("PUT", f"/v1/policies/{house.names('policy')}", {"text": SHORTER}),
        lambda house: [each["text"] for each in house.one.get("/v1/policies")],
    ),
    "snapshot.forget": (
        lambda house: house.one.ask(
            "DELETE", f"/v1/repositories/{house.names('repository')}/snapshots/{house.names('snapshot')}"
        ),
        lambda house: len(tenancy.rows(house.server, tables.jobs, tables.jobs.c.kind == "forget")),
    ),
}


@pytest.mark.parametrize("act", list(ACTS))
def test_a_second_person_approves(house: House, act: str) -> None:
    ask, see = ACTS[act]
    before = see(house)
    asked = ask(house)
    assert asked.status == 202, asked.detail
    approval = asked.json()["approval"]
    assert ask(house).json()["approval"] == approval, "asked for once"
    assert house.one.ask("POST", f"/v1/approvals/{approval}/approve").status == 403, "not by oneself"
    by_token = house.estate.people["program"].ask("POST", f"/v1/approvals/{approval}/approve")
    assert by_token.status == 403, "nor by a token"
    assert house.estate.people["operator"].ask("POST", f"/v1/approvals/{approval}/approve").status == 403
    assert see(house) == before and _later(house.server, DAY) == 0
    assert house.two.post(f"/v1/approvals/{approval}/approve", None) == {"state": "done"}
    assert see(house) != before
    assert house.two.ask("POST", f"/v1/approvals/{approval}/approve").status == 409
    acts = [each["act"] for each in house.one.get("/v1/audit")]
    assert {"approval.ask", "approval.approve"} <= set(acts)
    done = [each["facts"] for each in house.one.get("/v1/audit") if each["act"] == act]
    assert [each["approved"] for each in done if "approved" in each] == [approval]


def test_what_was_rejected_is_not_done(house: House) -> None:
    host = house.names("host")
    approval = house.one.ask("DELETE", f"/v1/hosts/{host}").json()["approval"]
    house.one.post(f"/v1/approvals/{approval}/reject", None)
    assert house.two.ask("POST", f"/v1/approvals/{approval}/approve").status == 409
    assert [each["id"] for each in house.one.get("/v1/hosts")] == [host]


def test_a_token_asks_in_the_name_of_who_made_it(house: House) -> None:
    program = house.estate.people["program"]
    approval = program.ask("DELETE", f"/v1/hosts/{house.names('host')}").json()["approval"]
    # A token that a token made is of the same person, too.
    assert house.one.ask("POST", f"/v1/approvals/{approval}/approve").status == 403
    house.two.post(f"/v1/approvals/{approval}/reject", None)


def test_no_way_leads_around_it(house: House) -> None:
    """Nobody makes a second person, takes over another one, or goes without asking."""
    one, mark = house.one, house.estate.mark
    wanted = {"name": f"puppet-{mark}", "password": PASSWORD, "role": "admin"}
    assert one.ask("POST", "/v1/users", wanted).status == 403
    puppet = tenancy.create_user(one, f"puppet-{mark}", "operator")
    assert one.ask("PUT", f"/v1/users/{puppet}/role", {"role": "admin"}).status == 202
    other = house.two.get("/v1/session")["id"]
    assert one.ask("POST", f"/v1/users/{other}/reset", {"password": PASSWORD}).status == 202
    assert PASSWORD not in str(one.get("/v1/approvals")) and "argon2" not in str(one.get("/v1/approvals"))
    assert "argon2" not in str(one.get("/v1/audit"))
    assert one.ask("DELETE", f"/v1/users/{other}").status == 400, "two have to be left"
    weaker = {"second_person": False, "delay_seconds": 0}
    assert one.ask("PUT", "/v1/tenants/own/caution", weaker).status == 202
    path = f"/v1/repositories/{house.names('repository')}/objects/{house.names('key')}"
    assert one.ask("DELETE", path).status == 403, "objects go by forgetting and collecting"
    assert one.ask("GET", path).status == 200


def test_a_policy_that_keeps_less_waits_in_every_disguise(server: Server) -> None:
    house = _house(server, second=True)
    one, gold, vm = house.one, house.names("policy"), house.estate.names["vm"][1]
    one.put(f"/v1/policies/{gold}", {"text": KEEPS_ALL})
    assert one.ask("PUT", f"/v1/policies/{gold}", {"text": POLICY}).status == 202, "without rules all was kept"
    one.put("/v1/policies/tin", {"text": SHORTER})
    one.put(f"/v1/policies/{gold}", {"text": KEEPS_ALL + "# more\n"})
    assert one.ask("PUT", f"/v1/assignments?pattern={vm}", {"policy": "tin"}).status == 202
    one.put(f"/v1/assignments?pattern={vm}", {"policy": None})
    assert one.ask("PUT", f"/v1/assignments?pattern={vm}", {"policy": "tin"}).status == 202, "by way of none"
    one.delete(f"/v1/assignments?pattern={vm}")
    assert one.ask("DELETE", f"/v1/policies/{gold}").status == 202, "what it keeps is what others are compared with"
    assert one.ask("PUT", f"/v1/assignments?pattern={vm}", {"policy": "tin"}).status == 202


ELSEWHERE = POLICY.replace("[retention]", 'timezone = "Pacific/Auckland"\n[retention]')
TEXTS = {"week": POLICY, "days": SHORTER, "all": KEEPS_ALL}
#: Policies and assignments; a change; whether snapshots that are kept may go then.
CHANGES: dict[str, tuple[list[str], dict[str, str | None], tuple[str, ...], bool]] = {
    "a new default for what had none": ([], {}, ("put", "default", POLICY), True),
    "a new default that keeps all": ([], {}, ("put", "default", KEEPS_ALL), False),
    "no default, as one is assigned": (["all"], {"": "all"}, ("put", "default", POLICY), False),
    "a new one that nobody has": ([], {}, ("put", "week", SHORTER), False),
    "the only one, where there was none": (["week"], {}, ("assign", "db", "week"), True),
    "to a pattern of what had none": (["week"], {"db": "week"}, ("assign", "w*", "week"), True),
    "to what had another by its pattern": (["week", "days"], {"d*": "week"}, ("assign", "db", "days"), True),
    "to what had the same by its pattern": (["week", "days"], {"d*": "days"}, ("assign", "db", "days"), False),
    "to what is not backed up": (["week"], {"db": None}, ("assign", "db", "week"), True),
    "to nothing": (["week"], {"db": "week"}, ("assign", "db", ""), False),
    "to all others": (["week"], {"db": "week"}, ("assign", "", "week"), True),
    "back to the default": (["week", "days"], {"db": "week", "": "days"}, ("unassign", "db"), True),
    "not backed up, back to the default": (["week"], {"db": None, "": "week"}, ("unassign", "db"), True),
    "back to one that keeps more": (["week", "days"], {"db": "days", "": "week"}, ("unassign", "db"), False),
    "back to a pattern": (["week", "days"], {"db": "week", "d*": "days"}, ("unassign", "db"), True),
    "one of two that matched": (["week"], {"d*": "week", "*b": "week"}, ("unassign", "*b"), True),
    "one of two that never match": (["week"], {"d*": "week", "w*": "week"}, ("unassign", "w*"), False),
    "the default of its name": (["default", "days"], {"": "default", "d*": "days"}, ("unassign", ""), False),
    "what was not assigned": (["week"], {"": "week"}, ("unassign", "db"), False),
    "other midnights": (["week"], {"": "week"}, ("put", "week", ELSEWHERE), True),
}


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[site.Site, Call]]:
    """With one tenant, which wants nothing of anybody, and its admin."""
    folder = tmp_path_factory.mktemp("opened")
    found = site.open_site(Settings(folder, f"sqlite:///{folder / 'server.db'}", str(folder / "objects")))
    with found.database.write() as connection:
        tenant = tenants.create(connection, Call(Principal("", "site", Role.SITE, None), 1.0), "quiet")
    yield found, Call(Principal("", "admin", Role.ADMIN, tenant), 1.0)
    found.database.close()


def test_nothing_hides_what_waits_and_what_is_over_keeps_no_secret(
    opened: tuple[site.Site, Call], monkeypatch: pytest.MonkeyPatch
) -> None:
    here, _ = opened
    monkeypatch.setitem(acts.ALL, "host.remove", acts.Act(lambda *_: True, lambda *_: None))
    monkeypatch.setitem(acts.ALL, "user.reset", acts.Act(lambda *_: True, lambda *_: None, ("password",)))
    monkeypatch.setattr(approvals, "MOST_OPEN", 3)
    with here.database.write() as connection:
        tenant = tenants.create(connection, Call(Principal("", "site", Role.SITE, None), 1.0), "hidden")
        change = update(tables.tenants).where(tables.tenants.c.id == tenant)
        connection.execute(change.values(second_person=True, delay_seconds=DAY))
        eve, ann = (
            Call(Principal(name, name, Role.ADMIN, tenant, person=name, session="s"), DAY) for name in ("eve", "ann")
        )

        def ask(act: str, **arguments: str) -> str:
            asked = approvals.ask(connection, eve, act, arguments)
            assert asked is not None
            return asked.id

        bad = ask("host.remove", host="theirs")
        rejected = [ask("user.reset", user=f"{number}", password="secret") for number in range(2)]
        with pytest.raises(errors.TooOften):
            ask("host.remove", host="one more")
        approvals.reject(connection, ann, rejected.pop())
        approvals.approve(connection, ann, rejected[0])
        assert sum("secret" in each.arguments.values() for each in connection.execute(select(tables.approvals))) == 1
        approvals.reject(connection, ann, rejected[0])
        row = {"tenant": tenant, "act": "x", "arguments": {}, "state": "rejected", "asker": "x", "asker_id": "x"}
        more = {"second_person": False, "created": 2 * DAY, "due": 2 * DAY}
        flood = [{**row, **more, "id": f"flood{number}"} for number in range(250)]
        connection.execute(insert(tables.approvals), flood)
        listed = [each["id"] for each in approvals.listed(connection, ann)]
        assert listed[0] == bad and listed[1].startswith("flood") and len(listed) == 201
        lapses = ask("user.reset", user="9", password="secret")
    approvals.due(dataclasses.replace(here, clock=lambda: 32 * DAY))
    with here.database.write() as connection:
        assert approvals.get(connection, ann, lapses)["state"] == "lapsed"
        assert not any("secret" in each.arguments.values() for each in connection.execute(select(tables.approvals)))
        approvals.forget_old(connection, 92.5 * DAY)
        assert [each["id"] for each in approvals.listed(connection, ann)] == []


@pytest.mark.parametrize("name", list(CHANGES))
def test_what_keeps_less_is_found_where_no_policy_says_so(opened: tuple[site.Site, Call], name: str) -> None:
    """No policy keeps everything. Also what falls to another one, or to the default, keeps less."""
    here, call = opened
    known, assigned, change, expected = CHANGES[name]
    with here.database.write() as connection:
        for table in (tables.assignments, tables.policies):
            connection.execute(delete(table))
        for each in known:
            policies.put(connection, call, each, TEXTS.get(each, POLICY))
        for pattern, policy in assigned.items():
            policies.assign(connection, call, pattern, policy)
        assert _shortens(connection, call, *change) is expected


def _shortens(connection: Any, call: Call, how: str, *told: str) -> bool:
    if how == "put":
        return policies.shortens(connection, call, *told)
    if how == "assign":
        return policies.assignment_shortens(connection, call, told[0], told[1] or None)
    return policies.unassignment_shortens(connection, call, *told)


def test_whatever_is_changed_no_vm_loses_unasked() -> None:
    chance, lost = random.Random(7), 0
    vms, names = ("db", "db1", "dx", "web", "web1", "other"), ("week", "days", "default", None)
    patterns = ("", "db", "db*", "d*", "web*", "w[a-f]b*", "*1")
    texts = {"week": POLICY, "days": SHORTER, "default": SHORTER}
    known = {name: policies.check(name, text, 0.0).value(name) for name, text in texts.items()}
    for _ in range(1000):
        there = {name: each for name, each in known.items() if name != "default" or chance.random() < 0.5}
        before: dict[str, str | None] = {
            each: chance.choice([name for name in names if name is None or name in there])
            for each in chance.sample(patterns, chance.randrange(5))
        }
        after, pattern = dict(before), chance.choice(patterns)
        if chance.random() < 0.5:
            after.pop(pattern, None)
            found = keeping.loses_unassigned(there, before, pattern)
        else:
            after[pattern] = chance.choice(list(there))
            found = keeping.loses_assigned(there, before, pattern, after[pattern])
        loses = [vm for vm in vms if _days(there, after, vm) < _days(there, before, vm)]
        lost += bool(loses)
        assert found or not loses, (sorted(there), before, after, loses)
    assert lost > 100


def _days(known: keeping.Known, assigned: keeping.Assigned, vm: str) -> float:
    try:
        its = policy.policy_of(keeping.whole_of(known, assigned), vm)
    except errors.Usage:  # several patterns match
        its = None
    return (0 if its is None else its.retention.keep_daily) or float("inf")


def test_after_the_delay_it_is_done_by_itself(server: Server) -> None:
    house = _house(server, second=False, delay=DAY)
    vm = house.names("vm")
    approval = house.one.ask("DELETE", f"/v1/vms/{vm}").json()["approval"]
    assert house.two.ask("POST", f"/v1/approvals/{approval}/approve").status == 409, "that waits for its time"
    _later(server, DAY - 60)
    assert (_state(house.one, approval), len(house.one.get("/v1/vms"))) == ("waiting", 1)
    assert _later(server, DAY + 60) == 1
    assert (_state(house.one, approval), len(house.one.get("/v1/vms"))) == ("done", 0)


def test_with_both_it_takes_both(server: Server) -> None:
    house = _house(server, second=True, delay=DAY)
    approval = house.one.ask("DELETE", f"/v1/vms/{house.names('vm')}").json()["approval"]
    assert _later(server, 2 * DAY) == 0
    assert house.two.post(f"/v1/approvals/{approval}/approve", None) == {"state": "approved"}
    assert len(house.one.get("/v1/vms")) == 1
    assert _later(server, 2 * DAY) == 1
    assert house.one.get("/v1/vms") == []


def test_what_cannot_be_done_any_longer_fails_and_says_why(server: Server) -> None:
    house = _house(server, second=False, delay=DAY)
    vm, host = (
        house.one.ask("DELETE", f"/v1/{kind}s/{house.names(kind)}").json()["approval"] for kind in ("vm", "host")
    )
    assert _later(server, 2 * DAY) == 2
    told: dict[str, Any] = {each["id"]: each for each in house.one.get("/v1/approvals")}
    # The VM goes first; had the host, the VM would be gone with it.
    assert {told[vm]["state"], told[host]["state"]} <= {"done", "failed"} and told[host]["state"] == "done"
    repository = house.names("repository")
    asked = house.one.ask("DELETE", f"/v1/repositories/{repository}").json()["approval"]
    house.one.post("/v1/host/join", _newcomer(house))
    assert _later(server, 2 * DAY) == 1
    assert "Remove them first" in house.one.get(f"/v1/approvals/{asked}")["error"]


def _newcomer(house: House) -> dict[str, str]:
    token = house.estate.tenant.join_token(house.names("repository"))
    return {"token": token, "name": "late", "installation": "late", "version": "1"}


def test_who_is_no_admin_any_longer_asked_for_nothing(server: Server) -> None:
    house = _house(server, second=False, delay=DAY)
    approval = house.one.ask("DELETE", f"/v1/vms/{house.names('vm')}").json()["approval"]
    me = house.one.get("/v1/session")["id"]
    house.two.put(f"/v1/users/{me}/role", {"role": "viewer"})
    _later(server, 2 * DAY)
    assert (_state(house.two, approval), len(house.two.get("/v1/vms"))) == ("lapsed", 1)


def test_what_nobody_decides_lapses(server: Server) -> None:
    house = _house(server, second=True)
    approval = house.one.ask("DELETE", f"/v1/vms/{house.names('vm')}").json()["approval"]
    _later(server, 31 * DAY)
    assert _state(house.one, approval) == "lapsed"


def test_one_alone_cannot_want_a_second_person(server: Server) -> None:
    tenant = server.tenant(f"alone{secrets.token_hex(4)}")
    answer = tenant.admin.ask("PUT", "/v1/tenants/own/caution", {"second_person": True, "delay_seconds": 0})
    assert answer.status == 400 and "second admin first" in answer.detail


@pytest.mark.parametrize("address", ["/v1/assignments?pattern=a%00", "/v1/policies/a%00", "/v1/policies/a"])
def test_a_text_that_no_database_keeps_is_not_asked_for(house: House, address: str) -> None:
    before = house.one.get("/v1/approvals")
    assert house.one.ask("PUT", address, {"policy": None, "text": "a = 1\0"}).status == 400
    assert house.one.get("/v1/approvals") == before


def test_an_act_that_cannot_be_done_is_in_nobodys_way(pair: tuple[Server, Server]) -> None:
    server = pair[0]
    house = _house(server, second=False, delay=DAY)
    asker = house.one.get("/v1/session")["id"]
    known = {
        "tenant": house.estate.tenant.id,
        "asker_id": asker,
        "act": "policy.assign",
        "due": 1.0,
        "state": "waiting",
    }
    zero = tenancy.add_row(
        server, tables.approvals, **known, arguments={"pattern": "a\0", "policy": house.names("policy")}
    )
    bug = tenancy.add_row(server, tables.approvals, **known, arguments={})
    vm = house.one.ask("DELETE", f"/v1/vms/{house.names('vm')}").json()["approval"]
    assert _later(server, 2 * DAY) == 3
    assert [_state(house.one, each) for each in (zero, bug, vm)] == ["failed", "failed", "done"]
    assert "nothing can have" in house.one.get(f"/v1/approvals/{zero}")["error"]


def test_what_the_database_refuses_just_now_stays_and_others_go_on(
    opened: tuple[site.Site, Call], monkeypatch: pytest.MonkeyPatch
) -> None:
    here, call = opened
    done: list[str] = []

    def do(_connection: Any, _call: Call, given: Any) -> None:
        if given["host"] == "one" and not done:
            done.append("one")
            raise exc.OperationalError("", {}, Exception("deadlock detected"))
        done.append(given["host"])

    monkeypatch.setitem(acts.ALL, "host.remove", acts.Act(lambda *_: True, do))
    monkeypatch.setattr(approvals, "_asker", lambda *_: call.who)
    values = {"tenant": call.who.tenant, "act": "host.remove", "asker": "x", "asker_id": "x", "second_person": False}
    with here.database.write() as connection:
        for number, name in enumerate(("one", "two")):
            row = {**values, "id": name, "state": "waiting", "created": 1.0, "due": float(number)}
            connection.execute(insert(tables.approvals).values(row | {"arguments": {"host": name}}))
    assert (approvals.due(here), done) == (1, ["one", "two"])
    assert (approvals.due(here), done) == (1, ["one", "two", "one"])


def test_on_two_processes_it_is_approved_at_one_and_done_once(pair: tuple[Server, Server]) -> None:
    one, two = pair
    house = _house(one, second=True)
    asked = house.one.ask("DELETE", f"/v1/vms/{house.names('vm')}")
    assert asked.status == 202
    approval = asked.json()["approval"]
    other = Person(two.identity, f"two-{house.estate.mark}", PASSWORD)
    same = Person(two.identity, f"{house.estate.tenant.name}-admin", PASSWORD)
    assert same.ask("POST", f"/v1/approvals/{approval}/approve").status == 403  # also there it is the same person
    assert other.post(f"/v1/approvals/{approval}/approve", None) == {"state": "done"}
    assert house.one.get("/v1/vms") == []
    assert house.one.ask("POST", f"/v1/approvals/{approval}/reject").status == 409

    # What waits for its time is done by one of those who look at once.
    late = _house(one, second=False, delay=60)
    approvals_there = [
        late.one.ask("DELETE", f"/v1/{kind}s/{late.names(kind)}").json()["approval"] for kind in ("vm", "host")
    ]
    found: list[int] = []
    threads = [threading.Thread(target=lambda: found.append(_later(two, 61))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(found) == 2, found
    there = Person(two.identity, f"{late.estate.tenant.name}-admin", PASSWORD)
    assert [_state(there, each) for each in approvals_there] == ["done", "done"]
    removals = [each for each in there.get("/v1/audit") if each["act"] in ("vm.remove", "host.remove")]
    assert len(removals) == 2
