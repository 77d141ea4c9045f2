"""Who may do what: a table of values, and nothing else.

=============  =======================================================================================
viewer         looks at everything of the tenant but the content of backups
operator       and starts, pauses and cancels backups; browses snapshots, restores
admin          and changes policies, people, tokens, repositories; forgets and deletes
site admin     makes tenants and bounds them; sees sizes and health of all; no content, no names of files
host           the machine's own end: its pulse, its runs, its orders, objects of its repository
=============  =======================================================================================

Content is never opened by a role alone: whoever browses gives the repository's password, too.
"""

from __future__ import annotations

import enum


class Role(enum.StrEnum):
    VIEWER = "viewer"
    OPERATOR = "operator"
    ADMIN = "admin"
    SITE = "site"
    HOST = "host"


class Right(enum.Enum):
    """``SIZES``: health and sizes; ``SEE``: everything but content; ``ORDER``: backups now; ``RESTORE``: content;
    ``CONFIGURE``; ``DELETE``; ``SITE``: tenants; ``REPORT``: a host's own end; ``ADD``: new objects; ``READ``: objects
    as they are stored."""

    SIZES = enum.auto()
    SEE = enum.auto()
    ORDER = enum.auto()
    RESTORE = enum.auto()
    CONFIGURE = enum.auto()
    DELETE = enum.auto()
    SITE = enum.auto()
    REPORT = enum.auto()
    ADD = enum.auto()
    READ = enum.auto()


_VIEWER = frozenset({Right.SIZES, Right.SEE})
_OPERATOR = _VIEWER | {Right.ORDER, Right.RESTORE, Right.READ}
_ADMIN = _OPERATOR | {Right.CONFIGURE, Right.DELETE, Right.ADD}

RIGHTS: dict[Role, frozenset[Right]] = {
    Role.VIEWER: _VIEWER,
    Role.OPERATOR: _OPERATOR,
    Role.ADMIN: _ADMIN,
    Role.SITE: frozenset({Right.SIZES, Right.SITE}),
    Role.HOST: frozenset({Right.REPORT, Right.ADD, Right.READ}),
}
#: What a tenant can give to its people and programs.
GIVEN = (Role.VIEWER, Role.OPERATOR, Role.ADMIN)


def allows(role: Role, right: Right) -> bool:
    return right in RIGHTS[role]
