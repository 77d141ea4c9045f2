"""Where one can go, by what one may do."""

from __future__ import annotations

from dataclasses import dataclass

from headstart.server.principal import Principal
from headstart.server.roles import Right, allows


@dataclass(frozen=True, slots=True)
class Item:
    path: str
    title: str
    icon: str
    is_here: bool = False


#: A right, a place, and whether it is for people of tenants (True), of the site (False), or both.
_ITEMS = (
    (Right.SEE, "/", "Overview", "overview", True),
    (Right.SEE, "/hosts", "Hosts", "host", True),
    (Right.SEE, "/policies", "Policies", "policy", True),
    (Right.SEE, "/repositories", "Repositories", "repository", True),
    (Right.SITE, "/tenants", "Tenants", "tenant", False),
    (Right.SEE, "/jobs", "Jobs", "job", True),
    (Right.SITE, "/jobs", "Jobs", "job", False),
    (Right.CONFIGURE, "/users", "Users", "user", True),
    (Right.SITE, "/users", "Users", "user", False),
    (Right.CONFIGURE, "/tokens", "Tokens", "token", True),
    (Right.CONFIGURE, "/notices", "Notices", "notice", True),
    (Right.CONFIGURE, "/audit", "Audit log", "audit", True),
    (Right.SITE, "/audit", "Audit log", "audit", False),
)


def of(who: Principal, here: str) -> tuple[Item, ...]:
    found = []
    for right, path, title, icon, tenants in _ITEMS:
        if allows(who.role, right) and (who.tenant is not None) is tenants:
            found.append(Item(path, title, icon, _is_in(here, path)))
    return tuple(found)


def _is_in(here: str, path: str) -> bool:
    if path == "/":
        return here == "/" or here.startswith(("/vms/", "/snapshots/"))
    return here == path or here.startswith(f"{path}/")
