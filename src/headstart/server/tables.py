"""The server's tables. Changing one takes a step in ``migrations/versions``; a test compares the two.

Moments are seconds since 1970, UTC, by the server's clock; sizes are bytes. Every row of a tenant's has its
``tenant``, and every query of one names it. Objects of repositories are in no table: the store has them, and a
database that is lost is made anew from them.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    PrimaryKeyConstraint,
    String,
    Table,
    Text,
    UniqueConstraint,
    text,
)

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_name)s",
        "uq": "uq_%(table_name)s_%(column_0_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "pk": "pk_%(table_name)s",
    }
)


def _id() -> Column[str]:
    return Column("id", String(32), primary_key=True)


def _number() -> Column[int]:
    """Ascending, so that what is new can be asked for. SQLite counts only plain integers."""
    return Column("id", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True)


def _of(table: str, *, null: bool = False) -> Column[Any]:
    """A row of another table; it takes this one with it when it goes."""
    name = {"repositories": "repository", "policies": "policy"}.get(table, table.removesuffix("s"))
    return Column(name, String(32), ForeignKey(f"{table}.id", ondelete="CASCADE"), nullable=null)


def _where(condition: str) -> dict[str, Any]:
    """Of an index: the rows that are in it."""
    return {"sqlite_where": text(condition), "postgresql_where": text(condition)}


tenants = Table(
    "tenants",
    metadata,
    _id(),
    Column("name", String(64), nullable=False, unique=True),
    Column("created", Float, nullable=False),
    # NULL: no limit.
    Column("quota_bytes", BigInteger),
    Column("quota_vms", Integer),
    # Destructive acts wait for a second person, or for so long.
    Column("second_person", Boolean, nullable=False),
    Column("delay_seconds", Float, nullable=False),
)

#: People. Without a tenant: those of the site.
users = Table(
    "users",
    metadata,
    _id(),
    _of("tenants", null=True),
    Column("name", String(64), nullable=False, unique=True),
    Column("role", String(16), nullable=False),
    Column("password", Text),  # argon2id, as its library writes it; NULL: none, the provider lets in
    Column("totp", LargeBinary),  # sealed; NULL: not set up
    Column("totp_new", LargeBinary),  # sealed; one that is being set up, until a code of it was shown
    Column("totp_step", BigInteger, nullable=False, server_default="0"),  # of the code that was used last
    Column("disabled", Boolean, nullable=False),
    Column("created", Float, nullable=False),
    Column("seen", Float),
    Index("ix_users_tenant", "tenant"),
)

sessions = Table(
    "sessions",
    metadata,
    Column("hash", String(64), primary_key=True),  # of the cookie's secret
    _of("users"),
    Column("csrf", String(64), nullable=False),
    Column("address", String(64), nullable=False),
    Column("created", Float, nullable=False),
    Column("expires", Float, nullable=False),
    Index("ix_sessions_user", "user"),
)

#: Accounts at a provider of OpenID Connect: one of each person's at most.
identities = Table(
    "identities",
    metadata,
    Column("issuer", String(255), nullable=False),
    Column("subject", String(255), nullable=False),
    _of("users"),
    Column("created", Float, nullable=False),
    PrimaryKeyConstraint("issuer", "subject"),
    UniqueConstraint("user"),
)

#: Of people without a password, until they come with an account of that e-mail.
invitations = Table(
    "invitations",
    metadata,
    Column("hash", String(64), primary_key=True),  # of its secret
    _of("users"),
    Column("email", String(255), nullable=False),
    Column("expires", Float, nullable=False),
    Index("ix_invitations_user", "user"),
)

repositories = Table(
    "repositories",
    metadata,
    _id(),
    _of("tenants"),
    Column("name", String(64), nullable=False),
    Column("created", Float, nullable=False),
    # Counted as objects come and go; a job counts anew.
    Column("used_bytes", BigInteger, nullable=False),
    Column("objects", BigInteger, nullable=False),
    Column("immutable_days", Integer, nullable=False),
    # Since when nobody reaches it, and a job takes its objects away; NULL: it is there.
    Column("removed", Float),
    # A password that opens the structure and no content, sealed; NULL: the server was given none.
    Column("structure", LargeBinary),
    UniqueConstraint("tenant", "name"),
)

hosts = Table(
    "hosts",
    metadata,
    _id(),
    _of("tenants"),
    _of("repositories"),
    Column("name", String(64), nullable=False),
    Column("installation", String(64), nullable=False),
    Column("version", String(32), nullable=False),
    Column("created", Float, nullable=False),
    Column("seen", Float),
    Column("state", JSON, nullable=False),  # what the host last said of itself
    UniqueConstraint("tenant", "name"),
)

#: Of machines: joining (once), hosts, and programs of the owner's.
tokens = Table(
    "tokens",
    metadata,
    _id(),
    _of("tenants", null=True),
    _of("hosts", null=True),
    _of("repositories", null=True),
    Column("kind", String(8), nullable=False),
    Column("name", String(64), nullable=False),
    Column("role", String(16)),
    Column("hash", String(64), nullable=False),
    Column("maker", String(32)),  # the person who made it, also by way of another token
    Column("created", Float, nullable=False),
    Column("expires", Float, nullable=False),
    Column("used", Float),
    Column("revoked", Boolean, nullable=False),
    Index("ix_tokens_tenant", "tenant"),
    Index("ix_tokens_host", "host"),
)

policies = Table(
    "policies",
    metadata,
    _id(),
    _of("tenants"),
    Column("name", String(64), nullable=False),
    Column("text", Text, nullable=False),  # TOML, what stands in a [policy.NAME] of docs/policies.md
    Column("changed", Float, nullable=False),
    UniqueConstraint("tenant", "name"),
)

#: Which VMs, by name or pattern, have which policy. The pattern "" is what nothing names.
assignments = Table(
    "assignments",
    metadata,
    _of("tenants"),
    Column("pattern", String(255), nullable=False),
    _of("policies", null=True),  # NULL: not backed up
    PrimaryKeyConstraint("tenant", "pattern"),
)

vms = Table(
    "vms",
    metadata,
    _id(),
    _of("tenants"),
    _of("hosts"),
    Column("name", String(255), nullable=False),
    Column("created", Float, nullable=False),
    Column("seen", Float, nullable=False),
    # What its host said last, as `headstart status --json` does; NULL: no policy has it.
    Column("view", JSON),
    Column("doing", String(16)),  # the verb of what is under way
    Column("due", Float),  # of its next backup; NULL: paused, or there is none to come
    # Of its newest snapshot; NULL: it has none.
    Column("last_success", Float),
    Column("last_failure", Float),
    Column("last_error", Text),
    Column("residue_bytes", BigInteger),
    Column("window_seconds", Float),
    UniqueConstraint("host", "name"),
    Index("ix_vms_tenant", "tenant", "name"),
    Index("ix_vms_doing", "tenant", "doing"),
    Index("ix_vms_due", "due"),
)

#: The catalogue. ``id`` is that of the repository's manifest.
snapshots = Table(
    "snapshots",
    metadata,
    _of("repositories"),
    Column("id", String(32), nullable=False),
    _of("tenants"),
    Column("vm", String(255), nullable=False),  # its name: snapshots outlive the VM
    Column("host", String(255), nullable=False),
    Column("created", Float, nullable=False),
    Column("consistency", String(32), nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("changed_bytes", BigInteger),
    Column("residue_bytes", BigInteger),
    Column("stored_bytes", BigInteger),
    Column("window_seconds", Float),
    Column("place", Text),  # the address of another repository than ours that has it; NULL: it is in ours
    Column("verified", Float),
    Column("damaged", Float),  # since when that is known; NULL: it was found whole, or not looked at
    Column("rehearsed", Float),
    Column("proof", JSON),  # of the newest rehearsal
    PrimaryKeyConstraint("repository", "id"),
    Index("ix_snapshots_tenant", "tenant", "id"),
    Index("ix_snapshots_vm", "tenant", "vm", "created"),
    Index("ix_snapshots_created", "tenant", "created"),
    # Of few of them.
    Index("ix_snapshots_damaged", "tenant", "damaged", **_where("damaged IS NOT NULL")),
    Index("ix_snapshots_rehearsed", "tenant", "vm", "host", "created", **_where("rehearsed IS NOT NULL")),
)

#: Backups and rounds, as hosts reported them.
runs = Table(
    "runs",
    metadata,
    _of("hosts"),
    Column("number", BigInteger, nullable=False),  # the host's
    _of("tenants"),
    Column("vm", String(255), nullable=False),
    Column("verb", String(16), nullable=False),
    Column("begun", Float, nullable=False),
    Column("ended", Float),
    Column("error", Text),
    Column("report", JSON, nullable=False),
    PrimaryKeyConstraint("host", "number"),
    Index("ix_runs_vm", "tenant", "vm", "begun"),
)

#: What hosts measured, the minutes of an hour in one row.
figures = Table(
    "figures",
    metadata,
    _of("vms"),
    Column("hour", BigInteger, nullable=False),  # its beginning
    Column("minutes", JSON, nullable=False),
    PrimaryKeyConstraint("vm", "hour"),
    Index("ix_figures_hour", "hour"),
)

events = Table(
    "events",
    metadata,
    _number(),
    _of("tenants"),
    Column("moment", Float, nullable=False),
    Column("kind", String(32), nullable=False),
    Column("host", String(64)),
    Column("vm", String(255)),
    Column("facts", JSON, nullable=False),
    Index("ix_events_tenant", "tenant", "id"),
    Index("ix_events_moment", "moment"),
    sqlite_autoincrement=True,
)

#: Where a tenant is told of what happens, and how far it was. One process at a time has a row, until ``claimed``.
notices = Table(
    "notices",
    metadata,
    _of("tenants"),
    Column("urls", LargeBinary, nullable=False),  # a list in JSON, sealed: there are passwords in them
    Column("kinds", JSON, nullable=False),
    Column("quiet", JSON),  # the hours in which nothing is sent; NULL: there are none
    Column("cursor", BigInteger, nullable=False),  # the number of the last event that was told, or was nothing to tell
    # Of what is tried again: up to which event, and the numbers of the URLs that did not take it yet.
    Column("upto", BigInteger),
    Column("remaining", JSON),
    Column("failures", Integer, nullable=False),
    Column("due", Float, nullable=False),
    Column("claimed", Float, nullable=False),
    Column("error", Text),
    PrimaryKeyConstraint("tenant"),
)

#: What is amiss and was told as an event, until it is over: hosts away, backups late.
lapses = Table(
    "lapses",
    metadata,
    _of("tenants"),
    Column("kind", String(32), nullable=False),
    Column("object", String(32), nullable=False),
    Column("host", String(64), nullable=False),
    Column("vm", String(255)),
    Column("since", Float, nullable=False),
    PrimaryKeyConstraint("kind", "object"),
)

#: What one process at a time does, now and then: not again before ``due``.
turns = Table(
    "turns",
    metadata,
    Column("name", String(32), primary_key=True),
    Column("due", Float, nullable=False),
)

#: What hosts are asked to do: they come and fetch it.
orders = Table(
    "orders",
    metadata,
    _id(),
    _of("tenants"),
    _of("hosts"),
    Column("vm", String(255)),
    Column("kind", String(16), nullable=False),
    Column("arguments", JSON, nullable=False),
    Column("state", String(16), nullable=False),
    Column("actor", String(128), nullable=False),
    Column("created", Float, nullable=False),
    Column("expires", Float, nullable=False),
    Column("changed", Float, nullable=False),
    Column("progress", JSON),
    Column("result", JSON),
    Index("ix_orders_host", "host", "state"),
    Index("ix_orders_tenant", "tenant", "created"),
)

#: Work on the server's side.
jobs = Table(
    "jobs",
    metadata,
    _id(),
    _of("tenants", null=True),
    _of("repositories", null=True),
    Column("kind", String(16), nullable=False),
    Column("arguments", JSON, nullable=False),
    Column("state", String(16), nullable=False),
    Column("actor", String(128), nullable=False),
    Column("created", Float, nullable=False),
    Column("due", Float, nullable=False),
    Column("begun", Float),
    Column("beat", Float),  # the worker's last sign of life
    Column("ended", Float),
    Column("attempts", Integer, nullable=False),
    Column("worker", String(96)),  # who has it; NULL: nobody
    Column("stop", Boolean, nullable=False),  # somebody wants it to end
    # Of those with the same one, one runs at a time; NULL: it does not run.
    Column("lane", String(64), unique=True),
    # Of those with the same one, there is one: what comes by itself comes once, however many processes think of it.
    Column("once", String(96), unique=True),
    Column("progress", JSON),
    Column("result", JSON),
    Column("error", Text),
    Index("ix_jobs_state", "state", "due"),
    Index("ix_jobs_tenant", "tenant", "created"),
)

#: When packs were last read back and found whole. Losing it costs reading them again.
packs_read = Table(
    "packs_read",
    metadata,
    _of("repositories"),
    Column("pack", String(32), nullable=False),
    Column("moment", Float, nullable=False),
    PrimaryKeyConstraint("repository", "pack"),
)

#: Destructive acts that wait for a second person, or for their delay.
approvals = Table(
    "approvals",
    metadata,
    _id(),
    _of("tenants"),
    Column("act", String(32), nullable=False),
    Column("arguments", JSON, nullable=False),
    Column("state", String(16), nullable=False),
    Column("asker", String(128), nullable=False),
    Column("asker_id", String(32), nullable=False),  # of the person, or of the token
    Column("person", String(32)),  # the one behind it, who is no second person
    Column("second_person", Boolean, nullable=False),
    Column("created", Float, nullable=False),
    Column("due", Float, nullable=False),
    Column("decider", String(128)),
    Column("decided", Float),
    Column("error", Text),
    Index("ix_approvals_tenant", "tenant", "created"),
    Index("ix_approvals_state", "state", "due"),
)

#: Until when nobody may remove an object, where that is longer than the repository's days since it was made.
locks = Table(
    "locks",
    metadata,
    _of("repositories"),
    Column("key", String(255), nullable=False),
    Column("until", Float, nullable=False),
    PrimaryKeyConstraint("repository", "key"),
)

#: Leases and records of drafts: whoever put them may take them away.
ephemera = Table(
    "ephemera",
    metadata,
    _of("repositories"),
    Column("key", String(255), nullable=False),
    Column("token", String(32), nullable=False),
    PrimaryKeyConstraint("repository", "key"),
)

#: Who did what. Only added to: triggers of the database refuse everything else.
audit = Table(
    "audit",
    metadata,
    _number(),
    Column("tenant", String(32)),  # no reference: it outlives its tenant
    Column("moment", Float, nullable=False),
    Column("actor", String(128), nullable=False),
    Column("address", String(64), nullable=False),
    Column("request", String(32), nullable=False),
    Column("act", String(48), nullable=False),
    Column("object", String(255), nullable=False),
    Column("facts", JSON, nullable=False),
    Index("ix_audit_tenant", "tenant", "id"),
    sqlite_autoincrement=True,
)

#: Failed logins and the like, to bound them over all processes.
attempts = Table(
    "attempts",
    metadata,
    Column("key", String(128), primary_key=True),
    Column("count", Integer, nullable=False),
    Column("since", Float, nullable=False),
)
