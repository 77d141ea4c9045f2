"""How Alembic runs the steps: on the connection that ``database`` hands over, in its transaction."""

from __future__ import annotations

from alembic import context

from headstart.server import tables

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=tables.metadata,
    render_as_batch=True,
    transactional_ddl=True,
)
with context.begin_transaction():
    context.run_migrations()
